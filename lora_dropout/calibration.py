"""Calibration and proper scores of class probabilities; expected calibration error by torchmetrics.

All take probabilities of shape (n, classes) and class indices of shape (n,). Their intervals are in
`lora_dropout.probes.quality`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_dropout.checks import check_count, check_same_device, check_tensor, short

# torchmetrics puts a confidence of exactly 1 into a bin of its own, beyond the last.
_BELOW_ONE = 1.0 - 2.0**-20
_MOST_BINS = 10**6


def expected_calibration_error(
    probabilities: Tensor, targets: Tensor, *, n_bins: int = 15
) -> float:
    """Expected calibration error of the top label, over equal-width bins.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        targets: Class indices, shape (n,).
        n_bins: Number of bins, each with its lower edge; the last has both.

    Returns:
        The sum over bins of the share of examples times |accuracy - mean confidence|, in [0, 1].
    """
    # Here, not above: torchmetrics imports transformers where it is installed, which takes seconds.
    from torchmetrics.functional.classification import multiclass_calibration_error

    n_bins = check_count("n_bins", n_bins, maximum=_MOST_BINS)
    probabilities = check_probabilities(probabilities, targets).float()
    error = multiclass_calibration_error(
        probabilities.clamp(max=_BELOW_ONE),
        targets,
        probabilities.shape[1],
        n_bins,
        validate_args=False,
    )
    return float(error)


def calibration_terms(probabilities: Tensor, targets: Tensor, *, n_bins: int = 15) -> Tensor:
    """What each example adds to the expected calibration error; the mean of the terms is that.

    A term is the example's surplus of confidence over correctness, with the sign of its bin's. As
    long as no bin's sign changes, the error is a plain mean of these terms, and their scatter that
    of the error over other examples; a bin whose sign is open makes that scatter too large.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        targets: Class indices, shape (n,).
        n_bins: Number of bins, as in `expected_calibration_error`.

    Returns:
        Shape (n,), float64.
    """
    n_bins = check_count("n_bins", n_bins, maximum=_MOST_BINS)
    confidence, label = check_probabilities(probabilities, targets).max(dim=1)
    surplus = confidence.double() - (label == targets).double()
    bins = (confidence.float() * n_bins).long().clamp(max=n_bins - 1)
    total = surplus.new_zeros(n_bins).index_add(0, bins, surplus)
    return surplus * total.sign()[bins]


def adaptive_calibration_error(
    probabilities: Tensor, targets: Tensor, *, n_bins: int = 15
) -> float:
    """Calibration error of the top label over bins of equal mass (Nguyen and O'Connor 2015).

    Sorted by confidence, the examples fall into bins whose sizes differ by at most 1. Examples of
    one confidence that an edge parts share their mean accuracy, so that their order does not count.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        targets: Class indices, shape (n,).
        n_bins: Number of bins; with n or more, every example is a bin.

    Returns:
        The sum over bins of the share of examples times |accuracy - mean confidence|, in [0, 1].
    """
    n_bins = check_count("n_bins", n_bins, maximum=_MOST_BINS)
    probabilities = check_probabilities(probabilities, targets).double()
    confidence, label = probabilities.max(dim=1)
    confidence, order = confidence.sort()
    right = (label == targets)[order].double()
    _, tie, size = confidence.unique_consecutive(return_inverse=True, return_counts=True)
    shared = torch.zeros(len(size), dtype=right.dtype, device=right.device)
    shared = shared.index_add(0, tie, right) / size
    surplus = (shared[tie] - confidence).tensor_split(n_bins)
    return float(torch.stack([part.sum().abs() for part in surplus]).sum() / len(targets))


@dataclass(frozen=True)
class BrierScore:
    """The Brier score and its parts: score = reliability - resolution + uncertainty + within_bins.

    Each part is a sum over classes, of the probability of that class against its occurrence, over
    equal-width bins of the probability.

    Attributes:
        score: Mean of sum_c (p_c - [y = c])^2, in [0, 2].
        reliability: Squared distance of a bin's mean probability from its frequency; 0 is
            calibrated.
        resolution: Squared distance of a bin's frequency from the overall one; more is better.
        uncertainty: Variance of the occurrences, which no forecast changes.
        within_bins: What Murphy's three terms leave out when unequal forecasts share a bin: their
            variance less twice their covariance with the occurrences; 0 for one value a bin.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


def brier_score(probabilities: Tensor, targets: Tensor, *, n_bins: int = 15) -> BrierScore:
    """Brier score with its decomposition (Murphy 1973), exact for binned forecasts.

    The terms within bins are those of Stephenson, Coelho and Jolliffe (2008).

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        targets: Class indices, shape (n,).
        n_bins: Number of bins of each class's probability in [0, 1].

    Returns:
        Score and parts.
    """
    n_bins = check_count("n_bins", n_bins, maximum=_MOST_BINS)
    forecast = check_probabilities(probabilities, targets).double()
    n, classes = forecast.shape
    happened = F.one_hot(targets, classes).to(forecast)
    bins = (forecast * n_bins).long().clamp(max=n_bins - 1)
    cell = (bins + n_bins * torch.arange(classes, device=bins.device)).flatten()

    def mean_of_bin(values: Tensor) -> Tensor:
        total = forecast.new_zeros(classes * n_bins)
        sums, counts = (
            total.index_add(0, cell, values.flatten()),
            cell.bincount(minlength=len(total)),
        )
        return (sums / counts.clamp(min=1))[cell].view(n, classes)

    def total(terms: Tensor) -> float:
        return float(terms.sum() / n)

    expected, frequency, base = mean_of_bin(forecast), mean_of_bin(happened), happened.mean(dim=0)
    spread = forecast - expected
    return BrierScore(
        score=total((forecast - happened).square()),
        reliability=total((expected - frequency).square()),
        resolution=total((frequency - base).square()),
        uncertainty=float((base * (1.0 - base)).sum()),
        within_bins=total(spread.square() - 2.0 * spread * (happened - frequency)),
    )


def negative_log_likelihood(probabilities: Tensor, targets: Tensor) -> float:
    """Mean of -ln p(y), in nats.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        targets: Class indices, shape (n,).

    Returns:
        At least 0; infinite if a target had probability 0.
    """
    return float(F.nll_loss(check_probabilities(probabilities, targets).double().log(), targets))


def check_probabilities(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return probabilities if they are, and fit the targets.

    Args:
        probabilities: Shape (n, classes).
        targets: Class indices, shape (n,).

    Returns:
        The probabilities.

    Raises:
        TypeError: If one is no dense tensor, or the probabilities are no floating-point numbers.
        ValueError: If shapes do not fit, a row is no probability vector or a target no class.
    """
    check_tensor("probabilities", probabilities)
    check_tensor("targets", targets)
    check_same_device(probabilities=probabilities, targets=targets)
    if not probabilities.is_floating_point():
        raise TypeError(f"probabilities must be floating-point, got {short(probabilities)}")
    if probabilities.dim() != 2 or targets.shape != probabilities.shape[:1] or len(targets) == 0:
        raise ValueError(
            "probabilities must have shape (n, classes) and targets (n,) with n > 0, "
            f"got {tuple(probabilities.shape)} and {tuple(targets.shape)}"
        )
    totals = probabilities.float().sum(dim=1)
    if not ((totals - 1).abs() < 1e-3).all() or (probabilities < 0).any():
        raise ValueError(
            f"probabilities must be rows that sum to 1, got sums {totals.tolist()[:5]}"
        )
    classes = probabilities.shape[1]
    whole = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    if not whole or targets.min() < 0 or targets.max() >= classes:
        raise ValueError(
            f"targets must be class indices in [0, {classes}), got {targets.tolist()[:5]}"
        )
    return probabilities
