"""Crash-safe files: those of `lora_bounds`, under the name that this package uses."""

from lora_bounds.files import atomic_path, json_digest, remove_orphans

__all__ = ["atomic_path", "json_digest", "remove_orphans"]
