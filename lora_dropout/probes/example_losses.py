"""Losses of single examples, and losses with a sure upper bound."""

from dataclasses import dataclass

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_dropout.data import LossFn, call_loss
from lora_dropout.door import Dense, Positive, by_domain, check_positive, checked, short


@dataclass(frozen=True)
class ZeroOneLoss:
    """1 where the greatest logit is not the target's, else 0; a tie goes to the first class.

    Called with (outputs, targets) it returns the mean, as every loss here.

    Attributes:
        bound: The largest value, 1.
    """

    bound: float = 1.0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the error rate.

        Args:
            outputs: Logits, shape (b, classes).
            targets: Class indices, shape (b,).

        Returns:
            Scalar tensor.
        """
        return (outputs.argmax(dim=-1) != targets).to(outputs.dtype).mean()


@attrs.frozen(slots=False, field_transformer=by_domain)
class ClippedCrossEntropy:
    """Cross-entropy, each example's cut off at a cap.

    Attributes:
        bound: The cap in nats, positive; with ln(classes) a certain mistake costs as much as a
            uniform guess.
    """

    bound: Positive

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean loss.

        Args:
            outputs: Logits, shape (b, classes).
            targets: Class indices, shape (b,).

        Returns:
            Scalar tensor.
        """
        return F.cross_entropy(outputs, targets, reduction="none").clamp(max=self.bound).mean()


@checked
def sure_bound(loss_fn: LossFn) -> float | None:
    """The value a loss never exceeds, for losses in [0, bound].

    Args:
        loss_fn: Any loss.

    Returns:
        Its `bound`; None for a loss that declares none, such as cross-entropy.
    """
    bound = getattr(loss_fn, "bound", None)
    return None if bound is None else check_positive("loss_fn.bound", bound)


@checked
def example_losses(loss_fn: LossFn, outputs: Dense, targets: Dense) -> Tensor:
    """Evaluate a mean loss on each example alone.

    Args:
        loss_fn: (outputs, targets) -> scalar, a mean over examples.
        outputs: Shape (n, ...).
        targets: Shape (n, ...).

    Returns:
        Shape (n,); their mean is the loss.

    Raises:
        ValueError: If outputs and targets are not of the same examples.
    """
    if outputs.dim() == 0 or outputs.shape[:1] != targets.shape[:1] or len(outputs) == 0:
        raise ValueError(
            "outputs and targets must be of the same examples, at least one, "
            f"got outputs={short(outputs)}, targets={short(targets)}"
        )

    def one(output: Tensor, target: Tensor) -> Tensor:
        return call_loss(loss_fn, output[None], target[None])

    return torch.func.vmap(one)(outputs, targets)
