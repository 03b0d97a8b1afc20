"""Tests of `lora_dropout`, one file a module."""
