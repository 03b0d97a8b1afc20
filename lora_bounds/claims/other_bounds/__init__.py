"""Other bounds for the same model, and the identity behind stability."""
