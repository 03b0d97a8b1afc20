"""`lora-dropout compare`: many runs, and what they say together."""
