"""The test-time ensemble against its size N, from one set of drawn members.

Everything here is for one trained model and one set of examples, both fixed: the errors are those
of the mask draws alone (Monte Carlo), not of the examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.adapters.use_masks import Masks
from lora_dropout.data import Inputs, LossFn, call_loss
from lora_dropout.door import (
    Count,
    Held,
    check_count,
    check_numbers,
    check_same_device,
    check_sequence,
    check_tensor,
    checked,
    short,
)
from lora_dropout.prediction.averaging import Average, Averaging, average_members, check_averaging
from lora_dropout.prediction.calibration import expected_calibration_error
from lora_dropout.prediction.ensemble import ensemble_predict
from lora_dropout.probes.intervals import Array
from lora_dropout.seeds import Seed, seeded_generator

_LARGEST = 1e100  # their squares are summed, in float64


@dataclass(frozen=True, eq=False)
class EnsembleCurve:
    """Means over ensembles of each size with Monte Carlo standard errors; shapes (sizes,).

    An error is estimated from ensembles that share no member, averaged over several partitions of
    the members. The means are averaged over these too, so the true error is at most as large.

    Attributes:
        sizes: The sizes N.
        loss: Expected loss of an ensemble of N members.
        loss_error: Its standard error.
        accuracy: Expected accuracy; None without class targets.
        accuracy_error: Its standard error.
        ece: Expected calibration error of the averaged prediction, in expectation; None likewise.
        ece_error: Its standard error.
    """

    sizes: tuple[int, ...]
    loss: Array
    loss_error: Array
    accuracy: Array | None
    accuracy_error: Array | None
    ece: Array | None
    ece_error: Array | None


@dataclass(frozen=True)
class SquaredLossLaw:
    """Expected squared loss of N averaged outputs: `limit` + `variance` / N, exactly.

    Attributes:
        limit: Squared loss of the infinite ensemble, estimated without bias (it can fall below 0
            by its error).
        variance: V, the variance of a member's output summed as the loss sums, without bias.
        limit_error: Standard error of the limit, by the jackknife over members.
        variance_error: That of V.
    """

    limit: float
    variance: float
    limit_error: float
    variance_error: float

    @checked
    def loss(self, n_instances: Count) -> float:
        """Expected loss of an ensemble.

        Args:
            n_instances: N.

        Returns:
            limit + V / N.
        """
        return self.limit + self.variance / n_instances


@checked
def member_outputs(model: nn.Module, inputs: Inputs, masks: Masks) -> Tensor:
    """Run every member alone.

    Args:
        model: An adapted model.
        inputs: b examples.
        masks: M draws.

    Returns:
        Raw outputs, shape (M, b, ...).
    """
    members = (masks.select(i) for i in range(masks.n_instances))
    return torch.stack(
        [ensemble_predict(model, inputs, masks=member, average="logits") for member in members]
    )


@checked
def ensemble_curve(
    members: Tensor,
    targets: Tensor,
    *,
    sizes: Sequence[int],
    loss_fn: LossFn = F.cross_entropy,
    average: Average | Averaging = "probabilities",
    partitions: Held = 8,
    seed: Seed = 0,
) -> EnsembleCurve:
    """Measure loss, accuracy and calibration of ensembles of several sizes.

    Args:
        members: Raw outputs of M independent draws, shape (M, b, ...) (see `member_outputs`).
        targets: Shape (b, ...); class indices of shape (b,) bring accuracy and calibration.
        sizes: Sizes N, each at most M / 2, so that there are two ensembles to compare.
        loss_fn: (outputs, targets) -> scalar; it gets the ensemble's outputs.
        average: What an ensemble averages (see `ensemble_predict`).
        partitions: How often the members are dealt out anew.
        seed: Seed of that.

    Returns:
        The curve.

    Raises:
        ValueError: If a size is above M / 2, or shapes do not fit.
    """
    averaging = check_averaging(average, None)
    sizes = check_sequence("sizes", sizes, object)
    generator = seeded_generator(seed)
    members = _check_members(members, targets)
    for n in sizes:
        if check_count("sizes", n) > len(members) // 2:
            raise ValueError(
                f"sizes must be at most half of the {len(members)} members, "
                f"got sizes={short(sizes)}"
            )
    if not sizes:
        raise ValueError("sizes must not be empty, got sizes=()")
    classes = not targets.is_floating_point() and targets.dim() == 1 and members.dim() == 3
    orders = [torch.randperm(len(members), generator=generator) for _ in range(partitions)]
    means, errors = [], []
    for n in sizes:
        blocks = len(members) // n
        found = []
        for order in orders:
            dealt = members[order[: blocks * n].to(members.device)].unflatten(0, (blocks, n))
            outputs = [average_members(block, averaging) for block in dealt]
            found.append([_measure(o, targets, loss_fn, classes) for o in outputs])
        values = np.array(found)  # (partitions, blocks, measures)
        means.append(values.mean(axis=(0, 1)))
        errors.append(np.sqrt(values.var(axis=1, ddof=1).mean(axis=0) / blocks))
    columns = [
        column
        for pair in zip(np.array(means).T, np.array(errors).T, strict=True)
        for column in pair
    ]
    columns += [None] * (6 - len(columns))
    return EnsembleCurve(tuple(sizes), *columns)


def squared_loss_law(members: Tensor, targets: Tensor) -> SquaredLossLaw:
    """Estimate loss(N) = loss(mean) + V / N of the mean squared error, from all members at once.

    Args:
        members: Outputs of M independent draws, shape (M, b, ...), M at least 3.
        targets: Shape (b, ...).

    Returns:
        Both constants, for the mean over all entries (`torch.nn.functional.mse_loss`).

    Raises:
        ValueError: If there are fewer than 3 members, or shapes do not fit.
        TypeError: If targets are complex or booleans.
    """
    members = _check_members(members, targets)
    if members.shape[1:] != targets.shape:
        raise ValueError(
            f"targets must have shape {tuple(members.shape[1:])}, got {tuple(targets.shape)}"
        )
    if targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"targets must hold real numbers, got {short(targets)}")
    for name, tensor in (("members", members), ("targets", targets)):
        if not float(tensor.abs().max()) <= _LARGEST:  # NaN is not
            raise ValueError(f"{name} must be at most {_LARGEST:g} in size, got {short(tensor)}")
    count = len(members)
    if count < 3:
        raise ValueError(f"members must be at least 3, got {count}")
    outputs = members.double().flatten(1)
    residuals = outputs - targets.double().flatten()
    losses = residuals.square().mean(dim=1)
    center = outputs.mean(dim=0)
    apart = (outputs - center).square().mean(dim=1)  # of member i from the mean

    def law(loss: Tensor, spread: Tensor, m: int) -> tuple[Tensor, Tensor]:
        variance = spread / (m - 1)
        return loss / m - variance, variance

    limit, variance = law(losses.sum(), apart.sum(), count)
    # Without member i the squares about the new mean fall by apart_i * M / (M - 1).
    left_out = law(losses.sum() - losses, apart.sum() - apart * (count / (count - 1)), count - 1)
    errors = [float(((count - 1) * part.var(correction=0)).sqrt()) for part in left_out]
    return SquaredLossLaw(float(limit), float(variance), *errors)


def _check_members(members: Tensor, targets: Tensor) -> Tensor:
    check_numbers("members", members)
    check_tensor("targets", targets)
    check_same_device(members=members, targets=targets)
    if members.dim() < 2 or members.shape[1:2] != targets.shape[:1] or members.shape[1] == 0:
        raise ValueError(
            "members must have shape (M, b, ...) and targets (b, ...) with b > 0, "
            f"got {tuple(members.shape)} and {tuple(targets.shape)}"
        )
    return members.detach()


def _measure(outputs: Tensor, targets: Tensor, loss_fn: LossFn, classes: bool) -> list[float]:
    found = [float(call_loss(loss_fn, outputs, targets))]
    if classes:
        found.append(float((outputs.argmax(dim=-1) == targets).double().mean()))
        found.append(expected_calibration_error(outputs.softmax(dim=-1), targets))
    return found
