"""The test-time ensemble: arXiv 2404.09610 v1, Eq. 8 and Thm 4.5, and what a finite ensemble does.

Thm 4.5 (for a loss that is convex in the output) is Jensen's inequality: the loss of the mean
output is at most the mean loss of the members. The difference is the Jensen gap, computed here for
three losses. Nothing is said of the mask-free network, nor of the 0-1 error.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from lora_bounds.domains import (
    Call,
    Count,
    NonNegative,
    Number,
    Reals,
    Signs,
    Stacked,
    Wholes,
    checked,
    formula,
    kernel_of,
    representable,
    together,
)
from lora_bounds.rounding import Array, Numbers, plain

Averaging: TypeAlias = Literal["probabilities", "logits"]


class _Members(Reals):
    """Whole numbers from 1 on, or infinity."""

    def _read(self, name: str, value: Any, call: Call) -> Any:
        members = super()._read(name, value, call)
        Wholes(1)(name, np.where(np.isinf(members), 1.0, members))
        return members


Members: TypeAlias = Annotated[Any, _Members("[1, inf]")]
Outputs: TypeAlias = Annotated[Any, Stacked()]  # members first


@dataclass(frozen=True, eq=False)
class EnsembleLosses:
    """The two sides of Thm 4.5 for one ensemble.

    Attributes:
        ensemble: the loss of the averaged output.
        mean_member: the average of the members' losses.
        gap: ``mean_member - ensemble``, the Jensen gap; at least 0, up to rounding.
    """

    ensemble: Numbers
    mean_member: Numbers
    gap: Numbers


def _members(name: str, array: Array, least_axes: int) -> Array:
    if array.ndim < least_axes or array.shape[0] == 0:
        axes = "members first" if least_axes == 1 else "members first and classes last"
        raise ValueError(f"{name} must have axes, {axes}; got {name} of shape {array.shape}")
    return array


def _aligned(name: str, outputs: Array, target: Array) -> Array:
    # A target of more axes than one member must not be dealt out over the members.
    members = _members(name, outputs, 1)
    together(**{name: members[0], "target": target})
    extra = max(target.ndim - (members.ndim - 1), 0)
    return members.reshape(len(members), *(1,) * extra, *members.shape[1:])


@checked
def ensemble_excess(*, variance: NonNegative, n_instances: Members) -> Numbers:
    """Compute V/N: the expected squared error of N averaged members over that of infinitely many.

    Exact for members that are independent draws with mean h and E‖member - h‖² = V, and for the
    loss ‖output - y‖². Under (1/2)‖output - y‖² the excess is half of it.

    Args:
        variance: V, at least 0.
        n_instances: N, at least 1; may be infinite.

    Returns:
        V/N.

    >>> ensemble_excess(variance=2.0, n_instances=4)
    0.5
    """
    return np.asarray(variance / n_instances)


@checked
def ensemble_loss(
    *, infinite_loss: NonNegative, variance: NonNegative, n_instances: Members
) -> Numbers:
    """Compute the expected squared error of an ensemble of N: that of the mean output, plus V/N.

    Args:
        infinite_loss: ‖h - y‖² for the mean output h, at least 0.
        variance: V = E‖member - h‖², at least 0.
        n_instances: N, at least 1; may be infinite.

    Returns:
        The expected loss; at N = 1 that of one member.

    >>> ensemble_loss(infinite_loss=1.0, variance=2.0, n_instances=1)
    3.0
    """
    excess = kernel_of(ensemble_excess)(variance=variance, n_instances=n_instances)
    return np.asarray(infinite_loss + excess)


@formula
def squared_losses(*, outputs: Outputs, target: Number) -> EnsembleLosses:
    """Compute both sides of Thm 4.5 for the squared error (output - y)².

    The gap is the variance of the members, whatever the target.

    Args:
        outputs: real outputs of shape (N, ...).
        target: y, of a shape that broadcasts with ``outputs[0]``.

    Returns:
        The losses, one for each output.

    >>> squared_losses(outputs=[0.0, 2.0], target=1.0)
    EnsembleLosses(ensemble=0.0, mean_member=1.0, gap=1.0)
    """
    members = _aligned("outputs", outputs, target)
    average = members.mean(axis=0)
    ensemble = np.asarray((average - target) ** 2)
    mean_member = np.asarray(((members - target) ** 2).mean(axis=0))
    gap = np.broadcast_to(((members - average) ** 2).mean(axis=0), ensemble.shape)
    representable(mean_member + gap + ensemble, "outputs", "target")
    return EnsembleLosses(plain(ensemble), plain(mean_member), plain(np.array(gap)))


@formula
def logistic_losses(*, logits: Outputs, target: Annotated[Any, Signs(Reals())]) -> EnsembleLosses:
    """Compute both sides of Thm 4.5 for the logistic loss ln(1 + exp(-y f)), averaging logits.

    Args:
        logits: f, of shape (N, ...).
        target: y in {-1, 1}, of a shape that broadcasts with ``logits[0]``.

    Returns:
        The losses in nats.
    """
    members = _aligned("logits", logits, target)
    ensemble = np.logaddexp(0.0, -target * members.mean(axis=0))
    mean_member = np.logaddexp(0.0, -target * members).mean(axis=0)
    return _losses(ensemble, mean_member)


@formula
def cross_entropy_losses(*, logits: Outputs, label: Count, average: Averaging) -> EnsembleLosses:
    """Compute both sides of Thm 4.5 for the cross-entropy of K classes.

    It is convex in the probabilities and in the logits, so Thm 4.5 holds for both ways of
    averaging (Eq. 8 averages the model's output, whichever that is). The two ensembles differ.

    Args:
        logits: of shape (N, ..., K).
        label: the classes, whole numbers below K, of shape ``logits.shape[1:-1]``.
        average: ``"probabilities"`` or ``"logits"``.

    Returns:
        The losses in nats, computed in log space.

    Raises:
        ValueError: if a label is not below K, or the labels have another shape.
    """
    members = _members("logits", logits, 2)
    if label.shape != members.shape[1:-1]:
        raise ValueError(
            f"label must have shape {members.shape[1:-1]}, got label of shape {label.shape}"
        )
    if np.any(label >= members.shape[-1]):
        raise ValueError(
            f"label must be below the number of classes {members.shape[-1]}, "
            f"got label={float(label.max())!r}"
        )
    classes = label.astype(np.intp)
    log_probabilities = _log_softmax(members)
    if average == "probabilities":
        joint = np.logaddexp.reduce(log_probabilities, axis=0) - np.log(len(members))
    else:
        joint = _log_softmax(members.mean(axis=0))
    ensemble = -np.take_along_axis(joint, classes[..., None], -1)[..., 0]
    picked = np.take_along_axis(log_probabilities, classes[None, ..., None], -1)
    return _losses(ensemble, -picked[..., 0].mean(axis=0))


def _log_softmax(logits: Array) -> Array:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def _losses(ensemble: Array, mean_member: Array) -> EnsembleLosses:
    gap = np.asarray(mean_member - ensemble)
    representable(gap, "logits")
    return EnsembleLosses(plain(np.asarray(ensemble)), plain(np.asarray(mean_member)), plain(gap))
