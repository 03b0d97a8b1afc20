"""Calibration and proper scores of predictions, with bootstrap intervals over the examples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from lora_dropout.door import (
    MOST,
    Confidence,
    Count,
    Dense,
    Natural,
    check_count,
    check_numbers,
    checked,
    short,
)
from lora_dropout.prediction.calibration import (
    adaptive_calibration_error,
    brier_score,
    check_probabilities,
    expected_calibration_error,
)
from lora_dropout.probes.intervals import Interval


@dataclass(frozen=True)
class Estimate:
    """A measured number with its interval.

    Attributes:
        value: On the examples as they are.
        interval: Percentile bootstrap over examples (Efron 1979): asymptotic. Errors of calibration
            and the parts of the Brier score are biased upwards in small samples, and more so in
            resamples, so their intervals lie high and may leave out the value.
    """

    value: float
    interval: Interval


@dataclass(frozen=True)
class Quality:
    """How good class probabilities are, on one set of examples.

    Attributes:
        accuracy: Share of examples whose top label is right.
        ece: Expected calibration error (see `expected_calibration_error`).
        adaptive_ece: See `adaptive_calibration_error`.
        nll: Negative log-likelihood in nats.
        brier: Brier score.
        reliability: Its part (see `BrierScore`), as are the next three.
        resolution: More is better.
        uncertainty: Of the labels alone.
        within_bins: What the binning leaves out.
    """

    accuracy: Estimate
    ece: Estimate
    adaptive_ece: Estimate
    nll: Estimate
    brier: Estimate
    reliability: Estimate
    resolution: Estimate
    uncertainty: Estimate
    within_bins: Estimate


@checked
def prediction_quality(
    outputs: Annotated[Tensor, partial(check_numbers, dims=2)],
    targets: Dense,
    *,
    n_bins: Count = 15,
    resamples: Annotated[int, partial(check_count, minimum=2, maximum=MOST)] = 1000,
    confidence: Confidence = 0.95,
    seed: Natural = 0,
) -> Quality:
    """Measure predictions of a classifier.

    Args:
        outputs: Logits as `predict` returns them, shape (n, classes): their softmax is the
            prediction.
        targets: Class indices, shape (n,), n at least 2.
        n_bins: Number of bins.
        resamples: Number of bootstrap resamples, at least 2, the same for all numbers.
        confidence: Of the intervals, asymptotically.
        seed: Seed of the resamples.

    Returns:
        Each number with its interval.

    Raises:
        ValueError: If there are fewer than 2 examples, or an argument is out of range.
    """
    logs = outputs.detach().double().log_softmax(dim=-1).cpu()
    if logs.isnan().any():
        raise ValueError(f"outputs must give probabilities, got infinities in {short(outputs)}")
    targets = targets.cpu()
    # Not the exponential of logs, which misses 1/classes, on a bin's edge, where logits are equal.
    probabilities = check_probabilities(outputs.detach().double().softmax(dim=-1).cpu(), targets)
    if len(targets) < 2:
        raise ValueError(f"targets must be at least 2 to be resampled, got {len(targets)}")
    losses = F.nll_loss(logs, targets, reduction="none").numpy()
    right = (probabilities.argmax(dim=1) == targets).double().numpy()

    def measure(chosen: np.ndarray) -> np.ndarray:
        picked = torch.from_numpy(chosen)
        pair = probabilities[picked], targets[picked]
        brier = brier_score(*pair, n_bins=n_bins)
        return np.array(
            [
                right[chosen].mean(),
                expected_calibration_error(*pair, n_bins=n_bins),
                adaptive_calibration_error(*pair, n_bins=n_bins),
                losses[chosen].mean(),
                brier.score,
                brier.reliability,
                brier.resolution,
                brier.uncertainty,
                brier.within_bins,
            ]
        )

    values, intervals = _bootstrap(measure, len(targets), resamples, confidence, seed)
    return Quality(*map(Estimate, values, intervals))


def _bootstrap(
    measure: Callable[[np.ndarray], np.ndarray],
    n: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[list[float], list[Interval]]:
    everything = np.arange(n)
    found = stats.bootstrap(
        (everything,),
        partial(np.apply_along_axis, measure, -1),
        vectorized=False,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    ends = np.stack([np.asarray(found.low), np.asarray(found.high)], axis=-1)
    intervals = [Interval(float(low), float(high), confidence) for low, high in ends]
    return measure(everything).tolist(), intervals
