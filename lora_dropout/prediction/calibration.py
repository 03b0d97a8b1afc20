"""Calibration and proper scores of class probabilities.

All take probabilities of shape (n, classes), of any floating-point dtype, and class indices of
shape (n,), and compute in float64. Their intervals are in `lora_dropout.probes.quality`.

Bins are our own: torchmetrics puts a confidence of 1 into a bin beyond the last, and one on an
edge into the bin below where its float32 edges are rounded up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_dropout.door import check_count, check_same_device, check_tensor, short

_MOST_BINS = 10**6
_LEAST_TOLERANCE = 1e-3  # of a row's sum, in dtypes that are finer


def expected_calibration_error(
    probabilities: Tensor, targets: Tensor, *, n_bins: int = 15
) -> float:
    """Expected calibration error of the top label, over equal-width bins.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        targets: Class indices, shape (n,).
        n_bins: Number of bins, each with its lower edge; the last has both. On the edge k/n_bins
            is the number of the probabilities' dtype next to it.

    Returns:
        The sum over bins of the share of examples times |accuracy - mean confidence|, in [0, 1].
    """
    return float(calibration_terms(probabilities, targets, n_bins=n_bins).mean())


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
    bins = _bins(confidence, n_bins)
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
        n_bins: Number of bins of each class's probability, as in `expected_calibration_error`.

    Returns:
        Score and parts.
    """
    n_bins = check_count("n_bins", n_bins, maximum=_MOST_BINS)
    bins = _bins(check_probabilities(probabilities, targets), n_bins)
    forecast = probabilities.double()
    n, classes = forecast.shape
    happened = F.one_hot(targets, classes).to(forecast)
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


def _bins(values: Tensor, n_bins: int) -> Tensor:
    # The index of each value's bin; edges are rounded to the values' dtype, as the values were.
    edges = torch.arange(1, n_bins, dtype=torch.float64, device=values.device) / n_bins
    return torch.bucketize(values.double(), edges.to(values.dtype).double(), right=True)


def check_probabilities(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return probabilities if they are, and fit the targets.

    Args:
        probabilities: Shape (n, classes).
        targets: Class indices, shape (n,).

    Returns:
        The probabilities. Their sums may be off by what rounding to their dtype explains, and by
        1e-3 in every dtype.

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
    totals = probabilities.double().sum(dim=1)
    off = (totals - 1).abs()
    if not (off < _tolerance(probabilities)).all() or (probabilities < 0).any():
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


def _tolerance(probabilities: Tensor) -> float:
    # Softmax and a mean round each entry by eps relative to it at most; below the least normal
    # number the steps are absolute.
    kind = torch.finfo(probabilities.dtype)
    steps = probabilities.shape[1] * kind.smallest_normal * kind.eps
    return max(_LEAST_TOLERANCE, 4.0 * kind.eps + steps)
