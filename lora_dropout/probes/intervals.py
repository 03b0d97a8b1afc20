"""Confidence intervals: exact where the law is known, else stated as asymptotic."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lora_bounds.bounds.held_out import clopper_pearson
from lora_dropout.checks import check_array, check_count, check_positive, check_real, short

Array = NDArray[np.float64]

# What a measured number is to the true constant.
Direction = Literal["lower", "upper", "exact", "estimate"]


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        confidence: Probability with which it covers, in (0, 1); exact, at least or asymptotic, as
            its maker says.
    """

    low: float
    high: float
    confidence: float

    def __post_init__(self) -> None:
        for end in ("low", "high", "confidence"):
            object.__setattr__(self, end, check_real(end, getattr(self, end)))
        check_confidence(self.confidence)
        if not self.low <= self.high:
            raise ValueError(f"low must be at most high, got low={self.low}, high={self.high}")

    def shift(self, amount: float) -> "Interval":
        """Move both ends.

        Args:
            amount: What to add.

        Returns:
            The interval of the quantity plus `amount`.
        """
        return Interval(self.low + amount, self.high + amount, self.confidence)


def check_confidence(value: float) -> float:
    """Return a confidence if it lies strictly between 0 and 1.

    Args:
        value: The confidence.

    Returns:
        It, as a float.

    Raises:
        ValueError: If it is 0, 1 or outside.
    """
    number = check_real("confidence", value)
    if not 0.0 < number < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got confidence={short(value)}")
    return number


def clopper_pearson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Bound a probability by the exact binomial tails (Clopper and Pearson 1934).

    Args:
        successes: Number of successes.
        trials: Number of independent trials, at least 1.
        confidence: Probability of covering, at least.

    Returns:
        The interval, in [0, 1].

    Raises:
        ValueError: If there are more successes than trials.

    >>> clopper_pearson_interval(0, 10, confidence=0.95).low
    0.0
    """
    trials = check_count("trials", trials)
    successes = check_count("successes", successes, minimum=0)
    confidence = check_confidence(confidence)
    if successes > trials:
        raise ValueError(f"successes must be at most trials={trials}, got successes={successes}")
    low, high = (
        float(
            clopper_pearson(
                n=trials, delta=(1.0 - confidence) / 2.0, errors=successes, direction=d
            ).value
        )
        for d in ("lower", "upper")
    )
    return Interval(low, high, confidence)


def empirical_bernstein_interval(
    values: ArrayLike, *, span: float, confidence: float = 0.95
) -> Interval:
    """Bound a mean of bounded independent values: holds at every n, not just for large ones.

    Each side is mean +- (sqrt(2 V ln(2/d) / n) + 7 C ln(2/d) / (3 (n-1))) with V the unbiased
    variance and d = (1 - confidence) / 2 (Maurer and Pontil 2009, Theorem 4), rounded outward.

    Args:
        values: Independent values, identically distributed, shape (n,), n at least 2.
        span: C, a sure upper bound on their range.
        confidence: Probability of covering, at least.

    Returns:
        The interval of the mean.

    Raises:
        ValueError: If the values span more than `span`.
    """
    x = _sample("values", values)
    span = check_positive("span", span)
    if np.ptp(x) > span * (1 + 1e-12):
        raise ValueError(f"values must lie within a range of span={span!r}, got {np.ptp(x)!r}")
    n, log = len(x), math.log(4.0 / (1.0 - check_confidence(confidence)))
    slack = math.sqrt(2.0 * x.var(ddof=1) * log / n) + 7.0 * span * log / (3.0 * (n - 1))
    slack = slack * (1.0 + 1e-12) + 1e-15 * float(np.abs(x).max())  # rounding, of the mean too
    return Interval(float(x.mean() - slack), float(x.mean() + slack), confidence)


def t_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Bound a mean by Student's t: exact for normal values, asymptotic for others.

    Args:
        values: Independent values, shape (n,), n at least 2.
        confidence: Probability of covering, asymptotically.

    Returns:
        The interval of the mean.
    """
    x = _sample("values", values)
    confidence = check_confidence(confidence)
    error = x.std(ddof=1) / np.sqrt(len(x))
    slack = float(stats.t.isf((1.0 - confidence) / 2.0, len(x) - 1) * error)
    return Interval(float(x.mean() - slack), float(x.mean() + slack), confidence)


def percentile_interval(resampled: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Take the percentile interval of bootstrap values (Efron 1979): asymptotic.

    Args:
        resampled: The statistic of each resample, shape (R,).
        confidence: Probability of covering, asymptotically and for a statistic without bias.

    Returns:
        The interval between the two percentiles.
    """
    tail = (1.0 - check_confidence(confidence)) / 2.0
    low, high = np.quantile(check_array("resampled", resampled), [tail, 1.0 - tail])
    return Interval(float(low), float(high), confidence)


def _sample(name: str, values: ArrayLike) -> Array:
    x = check_array(name, values)
    if len(x) < 2:
        raise ValueError(f"{name} must be a vector of at least 2 numbers, got shape {x.shape}")
    return x
