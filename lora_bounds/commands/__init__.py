"""What the command `lora-bounds` prints: bounds, the ledger, the page of one claim."""
