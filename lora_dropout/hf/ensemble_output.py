"""The ensemble's outputs and loss (arXiv 2404.09610 v1, Eq. 8), from its members' outputs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def average_outputs(members: Sequence[Any], labels: Any) -> Any:
    """Average the members' outputs.

    Args:
        members: One tensor a member, or equal structures of tensors (tuples, lists, dicts).
        labels: The labels, if there are any: with floating-point labels, as with a single output
            feature, outputs are averaged, else probabilities over the last dimension.

    Returns:
        The same structure; where probabilities were averaged, the logarithm of their mean.

    Raises:
        ValueError: If the outputs are no numbers to average (generated tokens, say).
    """
    first = members[0]
    if isinstance(first, dict):
        return {k: average_outputs([m[k] for m in members], labels) for k in first}
    if isinstance(first, (tuple, list)):
        parts = [average_outputs(list(part), labels) for part in zip(*members, strict=True)]
        return type(first)(parts)
    if not isinstance(first, Tensor) or not first.is_floating_point():
        kind = first.dtype if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(
            f"an ensemble averages logits, got outputs of {kind}: evaluate with inference='mean'"
        )
    stacked = torch.stack([member.float() for member in members])
    values = isinstance(labels, Tensor) and labels.is_floating_point()
    if values or first.dim() == 0 or first.shape[-1] == 1:
        return stacked.mean(dim=0)
    return stacked.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(members))


def ensemble_loss(logits: Any, labels: Any, *, shift: bool) -> Tensor | None:
    """The loss of the ensemble's outputs, where labels and shapes show which one it is.

    Args:
        logits: The ensemble's.
        labels: The labels.
        shift: Whether labels are those of the next position (causal language models).

    Returns:
        Cross-entropy for class labels (-100 left out) of one output tensor, also per token; the
        mean of the two for start and end positions; squared error for real labels with one
        output each; None for anything else.
    """
    pair = isinstance(labels, (tuple, list)) and isinstance(logits, (tuple, list))
    if pair and len(labels) == len(logits) == 2:
        # As the heads for spans do: a position beyond the text counts for nothing.
        parts = [
            F.cross_entropy(scores, label.clamp(0, scores.shape[-1]), ignore_index=scores.shape[-1])
            for scores, label in zip(logits, labels, strict=True)
        ]
        return torch.stack(parts).mean()
    if not isinstance(logits, Tensor) or not isinstance(labels, Tensor):
        return None
    if labels.is_floating_point():
        return F.mse_loss(logits.flatten(), labels.flatten()) if _single(logits, labels) else None
    if logits.dim() != labels.dim() + 1 or logits.shape[:-1] != labels.shape:
        return None
    if shift:
        logits, labels = logits[..., :-1, :], labels[..., 1:]
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _single(logits: Tensor, labels: Tensor) -> bool:
    return logits.numel() == labels.numel() == len(labels)
