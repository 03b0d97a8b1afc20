"""Whether one pass over N instances computes what Eq. 7 says of a Trainer's own loss."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lora_dropout.adapters.use_masks import sample_masks, use_masks
from lora_dropout.data import evaluating

_PACKED = ("cu_seq_lens_q", "cu_seqlens", "seq_idx")


@torch.no_grad()
def check_objective(trainer: Any, model: nn.Module, inputs: Mapping[str, Any], items: Any) -> None:
    """Check on one batch, under two masks, that instances do not meet in the loss.

    `batched` needs the loss of two copies of the batch to be the mean of the copies' losses.
    `grouped` needs a loss that is a sum over the blocks of what each block's mask makes of it:
    L(a, a) + L(b, b) = L(a, b) + L(b, a), the weights of the blocks whatever they are.

    Args:
        trainer: A `LoRADropoutMixin` in mode `batched` or `grouped`.
        model: The model, wrapped as the Trainer wraps it.
        inputs: A batch.
        items: Labels in the whole accumulated batch, or None.

    Raises:
        ValueError: If they meet: pairs of examples, in-batch negatives, halves of a batch.
    """
    inputs = trainer._prepare_inputs(inputs)
    size = next(len(v) for v in inputs.values() if isinstance(v, Tensor) and v.dim() > 0)
    masks = sample_masks(trainer.model, seeds=torch.tensor([1, 2]))
    model = getattr(model, "_orig_mod", model)

    def loss(order: list[int], copies: int = 1, seed: int = 0) -> float:
        chosen = masks.gather(torch.tensor(order))
        trainer._copies = copies
        try:
            with _seeded(seed), use_masks(trainer.model, chosen, rows=size * copies):
                found = trainer.compute_loss(model, dict(inputs), num_items_in_batch=items)
                return float(found.detach().float().mean())
        finally:
            trainer._copies = 1

    with evaluating(model), _nonzero_updates(trainer.model):
        a, again, b = loss([0]), loss([0], seed=1), loss([1])
        half = any(getattr(trainer.args, name) for name in ("bf16", "fp16"))
        slack = (2e-2 if half else 1e-4) * max(abs(a), abs(b)) + 1e-3 * abs(a - b)
        if abs(a - again) > slack:
            warnings.warn(
                "compute_loss draws random numbers, so that it could not be checked that a "
                f"batch's loss is the mean over its parts, as mode={trainer.mode!r} needs",
                UserWarning,
                stacklevel=2,
            )
            return
        if trainer.mode == "batched":
            found, expected = loss([0, 1], copies=2), (a + b) / 2
        else:
            n = min(trainer.n_instances, size)
            mixed = [k % 2 for k in range(n)]
            found = loss(mixed) + loss([1 - k for k in mixed]) if n > 1 else a + b
            expected = a + b
    if not abs(found - expected) <= slack:
        raise ValueError(
            f"mode must be 'loop' for this loss, got mode={trainer.mode!r}: examples of a batch "
            "meet in it (pairs, in-batch negatives, halves of a batch, a sum), so that instances "
            f"in one pass would train another objective ({found:.6g}, by its definition "
            f"{expected:.6g})"
        )


def check_rows(inputs: Mapping[str, Any], size: int, batch_size: int) -> None:
    """Check that `grouped` has rows to deal out.

    Args:
        inputs: A batch.
        size: Its rows.
        batch_size: Rows of a full batch.

    Raises:
        ValueError: If every batch is one row, or several examples are packed into the only one.
    """
    positions = inputs.get("position_ids")
    starts = isinstance(positions, Tensor) and bool((positions == 0).sum() > 1)
    packed = starts or any(key in inputs for key in _PACKED)
    if size == 1 and (packed or batch_size == 1):
        what = "its examples packed into it" if packed else "batches of one"
        raise ValueError(
            "mode must be 'loop' or 'batched' for a batch of one row, which has one mask, got "
            f"mode='grouped' and {what}"
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _nonzero_updates(model: nn.Module) -> Iterator[None]:
    """Factors at zero, where masks change nothing, are others for the moment."""
    generator = torch.Generator().manual_seed(0)
    filled = []
    for name, p in model.named_parameters():
        factor = "lora_B" in name or "lora_E" in name
        if factor and p.requires_grad and not isinstance(p, DTensor) and not p.any():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator))
            filled.append(p)
    try:
        yield
    finally:
        for p in filled:
            p.zero_()
