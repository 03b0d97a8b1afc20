"""The range C of a loss: what was seen, and what is sure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lora_dropout.data import LossFn
from lora_dropout.door import check_sequence
from lora_dropout.probes.example_losses import example_losses, sure_bound
from lora_dropout.probes.intervals import Direction


@dataclass(frozen=True)
class LossRange:
    """Losses of examples lie within C of each other.

    Attributes:
        least: Smallest loss seen.
        largest: Largest loss seen.
        seen: Their difference, a lower bound on C.
        bound: The loss is in [0, bound] whatever the data and the model; None where it has no such
            bound, as cross-entropy.
    """

    least: float
    largest: float
    seen: float
    bound: float | None

    @property
    def value(self) -> float:
        """C as far as known: the sure bound, or else the difference seen."""
        return self.seen if self.bound is None else self.bound

    @property
    def direction(self) -> Direction:
        """What `value` is to the true C: a sure `upper` bound, or a mere `lower` one."""
        return "lower" if self.bound is None else "upper"


def loss_range(outputs: Sequence[Tensor], targets: Sequence[Tensor], loss_fn: LossFn) -> LossRange:
    """Measure the range of a loss over data sets and models.

    Args:
        outputs: One tensor of logits a data set (or a model), each of shape (n, ...).
        targets: Its targets, each of shape (n, ...).
        loss_fn: (outputs, targets) -> scalar, a mean over examples. One with a `bound` (such as
            `ZeroOneLoss`, `ClippedCrossEntropy`) is taken at its word, and checked on the data.

    Returns:
        The range.

    Raises:
        ValueError: If nothing is given, a loss is not finite, or one is outside [0, bound].
    """
    outputs = check_sequence("outputs", outputs, Tensor)
    targets = check_sequence("targets", targets, Tensor)
    if len(outputs) == 0 or len(outputs) != len(targets):
        raise ValueError(
            f"outputs and targets must pair up, got {len(outputs)} and {len(targets)} tensors"
        )
    losses = np.concatenate(
        [
            example_losses(loss_fn, out, target).detach().double().cpu().numpy().ravel()
            for out, target in zip(outputs, targets, strict=True)
        ]
    )
    if not np.isfinite(losses).all():
        raise ValueError(
            f"outputs must give finite losses, got {losses[~np.isfinite(losses)][0]!r}"
        )
    least, largest, bound = float(losses.min()), float(losses.max()), sure_bound(loss_fn)
    if bound is not None and not 0.0 <= least <= largest <= bound * (1 + 1e-6):
        raise ValueError(
            f"outputs must give losses in [0, {bound}], got some in [{least}, {largest}]"
        )
    return LossRange(least, largest, largest - least, bound)
