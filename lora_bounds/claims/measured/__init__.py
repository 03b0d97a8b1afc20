"""The predictions on trained adapters."""
