"""The subcommands of `lora-dropout`; their parsers import nothing heavy."""
