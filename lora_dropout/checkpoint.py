"""Checkpoints of a training run: one file, replaced atomically, read without running code."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_dropout.evaluation import Data
from lora_dropout.files import atomic_path

NAME = "checkpoint.pt"


def save_checkpoint(folder: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        folder: Checkpoint folder, made if needed.
        state: Tensors, numbers, strings, and containers of them.
    """
    with atomic_path(Path(folder) / NAME) as path:
        torch.save(dict(state), path)


def load_checkpoint(folder: str | Path, *, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a checkpoint, if there is one.

    Args:
        folder: Checkpoint folder.
        settings: Settings of the run that wants to resume; they must equal the stored ones.

    Returns:
        The state, or None.

    Raises:
        ValueError: If the file is damaged, or belongs to a run with other settings.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored = state["settings"]
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged, remove it to start afresh: {error}") from error
    changed = [
        f"{key}: {stored.get(key)!r} there, {settings.get(key)!r} here"
        for key in sorted(stored.keys() | settings.keys())
        if stored.get(key) != settings.get(key)
    ]
    if changed:
        raise ValueError(f"{path} belongs to a run with other settings ({'; '.join(changed)})")
    return state


def fingerprint(data: Data) -> str:
    """A digest of a data set.

    Args:
        data: (inputs, targets).

    Returns:
        Hexadecimal digest of names, types, shapes and bytes.
    """
    inputs, targets = data
    named = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted({**named, "targets": targets}.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()
