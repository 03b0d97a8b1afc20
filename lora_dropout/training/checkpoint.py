"""Checkpoints of training: one file, replaced atomically, its content and its run verified."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_dropout.data import Data, LossFn
from lora_dropout.identity import digest_of, package_digest, structure_digest, tensors_digest
from lora_dropout.safe_files import atomic_path, bytes_digest

NAME = "checkpoint.pt"
_DIGEST_BYTES = 16


def run_identity(
    model: nn.Module, parameters: Mapping[str, Tensor], loss_fn: LossFn, device: torch.device
) -> dict[str, Any]:
    """What decides a training run's result, beside its settings and data.

    Args:
        model: The model before training.
        parameters: Name -> those of its parameters that are trained.
        loss_fn: The loss.
        device: Where it is trained.

    Returns:
        Digests by what they are of: two runs that differ in it have another one.

    Raises:
        ValueError: If part of the model or the loss cannot be told from its like.
    """
    names = {name for name, _ in model.named_parameters()}
    base = {name: p for name, p in model.named_parameters() if name not in parameters}
    return {
        "base": tensors_digest(base),
        "buffers": tensors_digest(dict(model.named_buffers())),
        "initial weights": tensors_digest({k: p for k, p in parameters.items() if k in names}),
        "model": structure_digest(model),
        "parameters": {name: list(p.shape) for name, p in parameters.items()},
        "loss_fn": digest_of("loss_fn", loss_fn),
        "device": device.type,
        "code": package_digest(),
        "torch": str(torch.__version__),
    }


def save_checkpoint(folder: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        folder: Checkpoint folder, made if needed.
        state: Tensors, numbers, strings, and containers of them.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    with atomic_path(Path(folder) / NAME) as path:
        path.write_bytes(bytes.fromhex(bytes_digest(content)) + content)


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
    if digest.hex() != bytes_digest(content):
        raise ValueError(f"{path} is damaged, remove it to start afresh")
    try:
        state = torch.load(  # noqa: TID251
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
        stored = dict(state["settings"])
    except Exception as error:  # of many kinds, by where torch's readers stumble
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path} is damaged, remove it to start afresh ({reason})") from error
    changed = [
        f"{key}: {stored.get(key)!r} there, {settings.get(key)!r} here"
        for key in sorted(stored.keys() | settings.keys(), key=str)
        if stored.get(key) != settings.get(key)
    ]
    if changed:
        raise ValueError(f"{path} belongs to a run with other settings ({'; '.join(changed)})")
    return dict(state)


def check_state(
    folder: str | Path,
    state: Mapping[str, Any],
    like: Mapping[str, Any],
    *,
    infinite: tuple[str, ...] = (),
    nan: tuple[str, ...] = (),
) -> None:
    """Check that a checkpoint holds what is about to be taken from it, before anything is.

    Args:
        folder: Checkpoint folder.
        state: From `load_checkpoint`.
        like: A state of the same run: its keys, types, shapes and dtypes.
        infinite: Fields whose numbers may be infinite.
        nan: Fields whose numbers may be anything.

    Raises:
        ValueError: If a field is missing or unknown, of another type or shape, or not finite; the
            message names file and field.
    """
    for problem in _problems(state, like, "", infinite, nan):
        raise ValueError(damage(folder, problem))


def damage(folder: str | Path, problem: str) -> str:
    """What to say of a checkpoint that cannot be taken up.

    Args:
        folder: Checkpoint folder.
        problem: What is wrong.

    Returns:
        One line.
    """
    return f"{Path(folder) / NAME} is damaged, remove it to start afresh: {problem}"


def _problems(
    value: Any, like: Any, name: str, infinite: tuple[str, ...], nan: tuple[str, ...]
) -> Iterator[str]:
    shown = name or "the checkpoint"
    if isinstance(like, Tensor):
        if not isinstance(value, Tensor):
            yield f"{shown} must be a tensor, got {type(value).__name__}"
        elif value.shape != like.shape or value.dtype != like.dtype:
            yield (
                f"{shown} must be {like.dtype} of shape {tuple(like.shape)}, got {value.dtype} of "
                f"shape {tuple(value.shape)}"
            )
        elif name not in nan and value.isnan().any():
            yield f"{shown} must hold numbers, got NaN"
        elif name not in nan and name not in infinite and value.isinf().any():
            yield f"{shown} must be finite"
    elif isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            yield f"{shown} must be a mapping, got {type(value).__name__}"
            return
        for key in like:
            if key not in value:
                yield f"{name}{'.' * bool(name)}{key} is missing"
        for key in value:
            if key not in like:
                yield f"{name}{'.' * bool(name)}{key} is unknown"
            else:
                inner = f"{name}{'.' * bool(name)}{key}"
                yield from _problems(value[key], like[key], inner, infinite, nan)
    elif type(value) is not type(like):
        yield f"{shown} must be {type(like).__name__}, got {type(value).__name__}"


def fingerprint(data: Data) -> str:
    """A digest of a data set.

    Args:
        data: (inputs, targets).

    Returns:
        Hexadecimal digest of names, types, shapes and bytes.
    """
    inputs, targets = data
    named = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    kind = "by name" if isinstance(inputs, Mapping) else "alone"
    return f"{kind}: {tensors_digest(named)}, targets: {tensors_digest({'targets': targets})}"
