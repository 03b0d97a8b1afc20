"""The N-instance loss (arXiv 2404.09610 v1, Eq. 7), three ways."""

import warnings
import weakref
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.adapters.use_masks import Masks, check_masks, using
from lora_dropout.data import (
    Batch,
    Inputs,
    LossFn,
    call_loss,
    call_model,
    n_examples,
    repeat_inputs,
)
from lora_dropout.door import Dense, checked

InstanceMode = Literal["loop", "batched", "grouped"]


@checked
def instance_losses(
    model: nn.Module,
    inputs: Batch,
    targets: Dense,
    *,
    masks: Masks,
    mode: InstanceMode = "batched",
    loss_fn: LossFn = F.cross_entropy,
) -> Generator[Tensor, None, None]:
    """The terms of `instance_loss`, one a forward pass, each while its masks are still active.

    A backward pass inside the loop meets the right masks even where activations are recomputed
    (`torch.utils.checkpoint`), and with `loop` only one instance's activations are alive at once:

        for term in instance_losses(model, inputs, targets, masks=masks, mode="loop"):
            term.backward()

    Args:
        model: See `instance_loss`, as for all arguments.
        inputs: A batch of b examples.
        targets: Targets, shape (b, ...).
        masks: N draws.
        mode: `loop` gives N terms, `batched` and `grouped` one.
        loss_fn: (outputs, targets) -> scalar, a mean over examples.

    Returns:
        Generator of scalar tensors whose sum is the loss.

    Raises:
        ValueError: See `instance_loss`.
    """
    size = n_examples(inputs)
    if targets.dim() == 0 or len(targets) != size:
        found = len(targets) if targets.dim() else "a single number"
        raise ValueError(f"targets must have the batch size {size} of inputs, got {found}")
    check_masks(model, masks)
    return instance_terms(model, inputs, targets, masks=masks, mode=mode, loss_fn=loss_fn)


def instance_terms(
    model: nn.Module,
    inputs: Inputs,
    targets: Tensor,
    *,
    masks: Masks,
    mode: InstanceMode,
    loss_fn: LossFn,
) -> Generator[Tensor, None, None]:
    """As `instance_losses`, for arguments that are known to be valid."""
    size = n_examples(inputs)
    if mode == "grouped":
        if size == 1 < masks.n_instances:
            warnings.warn(
                f"mode='grouped' has one row to deal out among {masks.n_instances} masks: the "
                "first one is used alone",
                UserWarning,
                stacklevel=3,
            )
        with using(model, masks, rows=size):
            outputs = call_model(model, inputs)
            _check_separable(loss_fn, outputs, targets, -(-size // masks.n_instances))
            yield call_loss(loss_fn, outputs, targets)
    elif mode == "batched":
        with using(model, masks, rows=size * masks.n_instances):
            outputs = call_model(model, repeat_inputs(inputs, masks.n_instances))
            if len(outputs) != size * masks.n_instances:
                raise ValueError(
                    f"model must keep the batch first, got outputs {tuple(outputs.shape)}"
                )
            losses = [call_loss(loss_fn, part, targets) for part in outputs.split(size)]
            yield torch.stack(losses).mean()
    else:
        for index in range(masks.n_instances):
            with using(model, masks.select(index)):
                yield call_loss(loss_fn, call_model(model, inputs), targets) / masks.n_instances


_SEPARABLE: weakref.WeakSet[Any] = weakref.WeakSet()


@torch.no_grad()
def _check_separable(loss_fn: LossFn, outputs: Tensor, targets: Tensor, block: int) -> None:
    # Refuses a loss that is no sum over blocks of examples, once a loss function: other outputs of
    # some blocks must change it alike, whatever those of the other blocks are.
    with suppress(TypeError):
        if loss_fn in _SEPARABLE:
            return
    if len(outputs) <= block:
        return
    a = outputs.detach()
    b = a.roll(1, dims=0)
    odd = (torch.arange(len(a), device=a.device) // block % 2 == 1).view(-1, *[1] * (a.dim() - 1))
    pairs = (a, b, torch.where(odd, a, b), torch.where(odd, b, a))
    losses = [call_loss(loss_fn, pair, targets).double().sum() for pair in pairs]
    gap = (losses[0] + losses[1] - losses[2] - losses[3]).abs()
    scale = max(loss.abs() for loss in losses)
    slack = {torch.float64: 1e-9, torch.float32: 1e-4}.get(a.dtype, 5e-2) * scale
    if gap > slack:
        raise ValueError(
            "loss_fn must be a mean over examples for mode='grouped', got one in which examples "
            "meet (pairs, in-batch negatives, statistics of the batch): use mode='loop' or "
            "'batched'"
        )
    if gap.isfinite():
        with suppress(TypeError):  # neither every function can be referred to weakly, nor hashed
            _SEPARABLE.add(loss_fn)


def instance_loss(
    model: nn.Module,
    inputs: Inputs,
    targets: Tensor,
    *,
    masks: Masks,
    mode: InstanceMode = "batched",
    loss_fn: LossFn = F.cross_entropy,
) -> Tensor:
    """Loss averaged over mask draws: (1/N) sum_r loss(x; theta0 + dtheta(m_r)) (Eq. 7).

    Args:
        model: An adapted model. In `batched` and `grouped` it must treat examples apart from
            each other; where they are in each layer's input is found by a probe, once for inputs
            of a kind.
        inputs: A batch of b examples.
        targets: Targets, shape (b, ...).
        masks: N draws.
        mode: `loop`: N passes. `batched`: one pass over N copies of the batch; the same value to
            rounding, without other randomness in the model. `grouped`: one pass over the batch,
            dealt out among the masks in blocks of ceil(b / N) consecutive examples; for a loss
            that is a mean over examples it has the same expectation at the cost of one pass, and
            a larger variance.
        loss_fn: (outputs, targets) -> scalar, a mean over examples.

    Under activation checkpointing the recomputation must meet the same masks: run the backward
    pass inside the loop over `instance_losses`, as `fit` does.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: If `mode` is unknown, the batch is empty or of two sizes, or in one pass over
            N instances examples meet, in the model or (`grouped`) in the loss, or cannot be told
            apart in a layer's input.
    """
    terms = instance_losses(model, inputs, targets, masks=masks, mode=mode, loss_fn=loss_fn)
    return torch.stack(list(terms)).sum()
