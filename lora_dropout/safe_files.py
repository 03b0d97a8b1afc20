"""Files written whole or not at all, as `lora_bounds` writes them, and JSON read or refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lora_bounds.files import atomic_path, json_digest, remove_orphans

__all__ = ["atomic_path", "bytes_digest", "json_digest", "json_object", "remove_orphans"]


def json_object(path: Path) -> dict[str, Any]:
    """Read a file that must hold one JSON object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def bytes_digest(content: bytes) -> str:
    """A digest of 16 bytes, hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
