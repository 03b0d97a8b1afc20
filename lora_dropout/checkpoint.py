"""Checkpoints of a training run: one file, replaced atomically, read without running code."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_dropout.evaluation import Data
from lora_dropout.files import atomic_path

NAME = "checkpoint.pt"
_DIGEST_BYTES = 32


def save_checkpoint(folder: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, behind a digest of its bytes.

    Args:
        folder: Checkpoint folder, made if needed.
        state: Tensors, numbers, strings, and containers of them.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    with atomic_path(Path(folder) / NAME) as path:
        path.write_bytes(_digest(content) + content)


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
    raw = path.read_bytes()
    digest, content = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
    if digest != _digest(content):
        raise ValueError(f"{path} is damaged, remove it to start afresh")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        stored = dict(state["settings"])
    except Exception as error:  # of many kinds, by where torch's readers stumble
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path} is damaged, remove it to start afresh ({reason})") from error
    changed = [
        f"{key}: {stored.get(key)!r} there, {settings.get(key)!r} here"
        for key in sorted(stored.keys() | settings.keys())
        if stored.get(key) != settings.get(key)
    ]
    if changed:
        raise ValueError(f"{path} belongs to a run with other settings ({'; '.join(changed)})")
    return dict(state)


def fingerprint(data: Data) -> str:
    """A digest of a data set.

    Args:
        data: (inputs, targets).

    Returns:
        Hexadecimal digest of names, types, shapes and bytes.
    """
    inputs, targets = data
    named = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    return tensors_digest({**named, "targets": targets})


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of named tensors: equal if and only if all their bits are.

    Args:
        tensors: Name -> tensor, in any order.

    Returns:
        Hexadecimal digest of names, types, shapes and bytes.
    """
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """A digest of a model's frozen weights, to tell one base from another.

    Args:
        model: The model.

    Returns:
        Hexadecimal digest of names, types, shapes and the first 256 values of each frozen
        parameter: all bytes of a large model would take too long.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)} ".encode())
            digest.update(_bytes(parameter.flatten()[:256]))
    return digest.hexdigest()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()
