"""The N-instance loss (arXiv 2404.09610 v1, Eq. 7), three ways."""

from collections.abc import Generator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.batching import Inputs, LossFn, batch_length, call_loss, call_model, repeat_inputs
from lora_dropout.checks import check_choice, check_tensor, check_type
from lora_dropout.model_masks import Masks, use_masks

InstanceMode = Literal["loop", "batched", "grouped"]


def instance_losses(
    model: nn.Module,
    inputs: Inputs,
    targets: Tensor,
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

    Yields:
        Scalar tensors whose sum is the loss.

    Raises:
        ValueError: See `instance_loss`.
    """
    check_choice("mode", mode, get_args(InstanceMode))
    check_type("masks", masks, Masks, "masks of sample_masks")
    size = batch_length(inputs)
    check_tensor("targets", targets)
    if targets.dim() == 0 or len(targets) != size:
        found = len(targets) if targets.dim() else "a single number"
        raise ValueError(f"targets must have the batch size {size} of inputs, got {found}")
    if mode == "grouped":
        with use_masks(model, masks, rows=size):
            yield call_loss(loss_fn, call_model(model, inputs), targets)
    elif mode == "batched":
        with use_masks(model, masks, rows=size * masks.n_instances):
            outputs = call_model(model, repeat_inputs(inputs, masks.n_instances))
            if len(outputs) != size * masks.n_instances:
                raise ValueError(
                    f"model must keep the batch first, got outputs {tuple(outputs.shape)}"
                )
            losses = [call_loss(loss_fn, part, targets) for part in outputs.split(size)]
            yield torch.stack(losses).mean()
    else:
        for index in range(masks.n_instances):
            with use_masks(model, masks.select(index)):
                yield call_loss(loss_fn, call_model(model, inputs), targets) / masks.n_instances


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
        model: An adapted model. It must treat examples apart from each other and keep the batch
            in the leading dimension throughout (`batched` and `grouped` tell instances by it).
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
            N instances a layer sees another leading dimension than the batch.
    """
    terms = instance_losses(model, inputs, targets, masks=masks, mode=mode, loss_fn=loss_fn)
    return torch.stack(list(terms)).sum()
