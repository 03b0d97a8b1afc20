"""The loss that a transformers head computes from its outputs and the labels."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.loss.loss_utils import ForQuestionAnsweringLoss, ForSemanticSegmentationLoss

LossOf = Callable[[Mapping[str, Any]], Tensor]

# What a loss raises for outputs that it is not made for.
_UNFIT = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError)


def head_loss(
    model: nn.Module, outputs: Mapping[str, Any], inputs: Mapping[str, Any], loss: Tensor
) -> LossOf | None:
    """Find the function by which a head's loss comes from its outputs.

    Nothing is believed: a candidate must give this pass's own loss.

    Args:
        model: The model, without PEFT's wrapper.
        outputs: Of a pass.
        inputs: Of this pass, labels included.
        loss: That the pass returned.

    Returns:
        (outputs) -> loss; None if the loss has more in it than outputs and labels.
    """
    exact = loss.dtype in (torch.float32, torch.float64)
    tolerance = 1e-4 if exact else 2e-2
    for candidate in _candidates(model, inputs):
        try:
            found = candidate(outputs)
        except _UNFIT:
            continue
        if not isinstance(found, Tensor) or found.shape != loss.shape:
            continue
        if torch.allclose(
            found.float(), loss.float(), rtol=tolerance, atol=tolerance / 100, equal_nan=True
        ):
            return candidate
    return None


def _candidates(model: nn.Module, inputs: Mapping[str, Any]) -> Iterator[LossOf]:
    # A copy: transformers' losses write `problem_type` into it, and heads look there.
    config, labels = copy(getattr(model, "config", None)), inputs.get("labels")
    items = {k: inputs[k] for k in ("num_items_in_batch",) if inputs.get(k) is not None}
    starts, ends = inputs.get("start_positions"), inputs.get("end_positions")
    if starts is not None and ends is not None:
        yield lambda o: ForQuestionAnsweringLoss(
            o["start_logits"], o["end_logits"], starts, ends, **items
        )
    if not isinstance(labels, Tensor):
        return
    own = getattr(model, "loss_function", None)
    if own is not None and getattr(model, "loss_type", None) is not None:
        yield lambda o: own(
            logits=o["logits"],
            labels=labels,
            pooled_logits=o["logits"],
            vocab_size=o["logits"].shape[-1],
            config=config,
            **items,
        )
    ignored = getattr(config, "semantic_loss_ignore_index", 255)
    if labels.is_floating_point():
        yield lambda o: F.binary_cross_entropy_with_logits(o["logits"], labels)
    else:
        yield lambda o: _cross_entropy(o["logits"], labels, items)
        # The next token's; labels move, since logits would be copied.
        following = F.pad(labels, (0, 1), value=-100)[..., 1:]
        yield lambda o: _cross_entropy(o["logits"], following, items)
        yield lambda o: F.cross_entropy(o["logits"], labels, ignore_index=ignored)
        yield lambda o: _token_replaced(o["logits"], labels, inputs.get("attention_mask"))
        yield lambda o: ForSemanticSegmentationLoss(o["logits"], labels, ignored)
    yield lambda o: F.mse_loss(o["logits"].squeeze(), labels.squeeze().to(o["logits"].dtype))


def _token_replaced(logits: Tensor, labels: Tensor, mask: Any) -> Tensor:
    # Electra's: of the tokens that are there, which are not the text's?
    counted = torch.ones_like(labels) if mask is None else mask
    counted = counted == 1
    return F.binary_cross_entropy_with_logits(logits[counted], labels[counted].float())


def _cross_entropy(logits: Tensor, labels: Tensor, items: Mapping[str, Any]) -> Tensor:
    reduction = "sum" if items else "mean"
    flat = logits.reshape(-1, logits.shape[-1])
    loss = F.cross_entropy(flat, labels.reshape(-1), reduction=reduction)
    return loss / items["num_items_in_batch"] if items else loss
