"""Confidence intervals: exact where the law is known, else stated as asymptotic."""

import math
from typing import Annotated, Literal

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lora_bounds.bounds.held_out import clopper_pearson
from lora_dropout.door import (
    Confidence,
    Count,
    Natural,
    Positive,
    Real,
    by_domain,
    check_array,
    checked,
    trusted,
)

Array = NDArray[np.float64]

# What a measured number is to the true constant.
Direction = Literal["lower", "upper", "exact", "estimate"]


def check_sample(name: str, values: ArrayLike) -> Array:
    """Return `values` as a vector of at least 2 finite numbers."""
    x = check_array(name, values)
    if len(x) < 2:
        raise ValueError(f"{name} must be a vector of at least 2 numbers, got shape {x.shape}")
    return x


Sample = Annotated[ArrayLike, check_sample]


@attrs.frozen(slots=False, field_transformer=by_domain)
class Interval:
    """A two-sided confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        confidence: Probability with which it covers, in (0, 1); exact, at least or asymptotic, as
            its maker says.
    """

    low: Real
    high: Real
    confidence: Confidence

    def __attrs_post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low must be at most high, got low={self.low}, high={self.high}")

    def shift(self, amount: float) -> "Interval":
        """Move both ends.

        Args:
            amount: What to add.

        Returns:
            The interval of the quantity plus `amount`.
        """
        return between(self.low + amount, self.high + amount, self.confidence)


def between(low: float, high: float, confidence: float) -> Interval:
    """An interval of ends that are known to be in order."""
    return trusted(Interval, low=float(low), high=float(high), confidence=confidence)


@checked
def clopper_pearson_interval(
    successes: Natural, trials: Count, *, confidence: Confidence = 0.95
) -> Interval:
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
    return between(low, high, confidence)


@checked
def empirical_bernstein_interval(
    values: Sample, *, span: Positive, confidence: Confidence = 0.95
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
    x = np.asarray(values)
    if np.ptp(x) > span * (1 + 1e-12):
        raise ValueError(f"values must lie within a range of span={span!r}, got {np.ptp(x)!r}")
    n, log = len(x), math.log(4.0 / (1.0 - confidence))
    slack = math.sqrt(2.0 * x.var(ddof=1) * log / n) + 7.0 * span * log / (3.0 * (n - 1))
    slack = slack * (1.0 + 1e-12) + 1e-15 * float(np.abs(x).max())  # rounding, of the mean too
    return between(x.mean() - slack, x.mean() + slack, confidence)


@checked
def t_interval(values: Sample, *, confidence: Confidence = 0.95) -> Interval:
    """Bound a mean by Student's t: exact for normal values, asymptotic for others.

    Args:
        values: Independent values, shape (n,), n at least 2.
        confidence: Probability of covering, asymptotically.

    Returns:
        The interval of the mean.
    """
    x = np.asarray(values)
    slack = student_slack(x, confidence)
    return between(x.mean() - slack, x.mean() + slack, confidence)


def student_slack(values: Array, confidence: float) -> float:
    """Half the length of Student's interval of the mean of 2 or more values."""
    quantile = stats.t.isf((1.0 - confidence) / 2.0, len(values) - 1)
    return float(quantile * (values.std(ddof=1) / np.sqrt(len(values))))


@checked
def percentile_interval(
    resampled: Annotated[ArrayLike, check_array], *, confidence: Confidence = 0.95
) -> Interval:
    """Take the percentile interval of bootstrap values (Efron 1979): asymptotic.

    Args:
        resampled: The statistic of each resample, shape (R,).
        confidence: Probability of covering, asymptotically and for a statistic without bias.

    Returns:
        The interval between the two percentiles.
    """
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.asarray(resampled), [tail, 1.0 - tail])
    return between(low, high, confidence)
