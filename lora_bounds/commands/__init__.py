"""What the command `lora-bounds` prints: bounds, the claims, the page of one claim."""
