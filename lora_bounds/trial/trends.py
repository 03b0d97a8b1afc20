"""Tests of a trend: does a measured quantity rise or fall over p, and at which rate over n?

A table has one repetition a row (a seed, a sample) and one setting a column (a rate p, a size n),
in the order of the prediction. Rows are independent; the entries of a row may share their random
numbers, which sharpens both tests.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import exp, factorial, prod
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from scipy import fft, optimize, stats

from lora_bounds.domains import (
    Call,
    Matrix,
    Real,
    Repetitions,
    Seed,
    Vector,
    checked,
    representable,
)
from lora_bounds.rounding import Array, quiet
from lora_bounds.trial.effects import crossed, slope

TrendDirection: TypeAlias = Literal["increasing", "decreasing"]
TrendMethod: TypeAlias = Literal["exact", "normal approximation"]

# What the exact distribution may cost: some seconds and 200 MB.
_MOST_STATES = 2**14  # sets of ranks that the first columns may have had
_MOST_STATES_IN_ALL = 2**17  # over all patterns of ties
_MOST_SUMS = 2**22  # values of the statistic
_STEEPEST = 60.0  # of the tilt: exp(-60) is nothing beside 1/14!, the least chance of an order


@dataclass(frozen=True)
class TrendResult:
    """What Page's test says of a trend.

    Attributes:
        direction: the trend that was predicted.
        statistic: Page's L of the columns in the predicted order.
        p_value: the chance of an L so large if every order of a row's entries were equally likely
            (no trend), the row's ties included. It errs on the large side, by a relative 1e-8 at
            most where the method is exact.
        effect_size: mean over rows of Spearman's correlation between the entries and the predicted
            order: 1 if every row follows it, 0 on average without a trend, -1 if every row
            reverses it. Ties bring it towards 0.
        rows: number of repetitions.
        columns: number of settings.
        method: how the p-value was computed: ``"exact"``, or ``"normal approximation"``, whose
            small p-values may be far too large or too small.
    """

    direction: TrendDirection
    statistic: float
    p_value: float
    effect_size: float
    rows: int
    columns: int
    method: TrendMethod


@dataclass(frozen=True)
class RateResult:
    """The exponent a of a power law, value proportional to size^a.

    Attributes:
        exponent: least-squares slope of the log of the mean value over the log of the size.
        low: lower end of the interval.
        high: upper end.
        confidence: coverage of [low, high], see `rate_exponent`.
        rows: number of repetitions.
        columns: number of sizes.
    """

    exponent: float
    low: float
    high: float
    confidence: float
    rows: int
    columns: int


class _Table(Matrix):
    """One repetition a row, at least 2; one setting a column, at least ``least`` of them."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least

    def _read(self, name: str, value: Any, call: Call) -> Any:
        table = super()._read(name, value, call)
        if table.shape[0] < 2 or table.shape[1] < self.least:
            raise ValueError(
                f"{name} must have at least 2 rows and {self.least} columns, got {name} of "
                f"{table.shape}"
            )
        return table


@checked
def page_trend(table: Annotated[Any, _Table(3)], *, direction: TrendDirection) -> TrendResult:
    """Test for a trend over the columns by Page's test, with its effect size.

    The null hypothesis is that within each row every order is equally likely; the alternative,
    that the entries follow ``direction`` (not strictly). A small p-value says that there is such
    a trend on the whole, not that every step follows it. Page 1963, "Ordered hypotheses for
    multiple treatments". Its exact distribution comes from one row's, found by dynamic
    programming over sets of ranks. Beyond 14 columns (a few more where all rows have ties), or
    4,600 rows of 14 columns, the p-value is a normal approximation, and the result says so.

    Args:
        table: shape (repetitions, settings), at least 2 x 3, settings in the predicted order.
        direction: ``"increasing"`` or ``"decreasing"``.

    Returns:
        The result.

    >>> result = page_trend([[3.0, 2.0, 1.0]] * 5, direction="decreasing")
    >>> result.effect_size, round(result.p_value * 6**5, 9)  # one of 3! orders, in each of 5 rows
    (1.0, 1.0)
    """
    rows, columns = table.shape
    ranks = stats.rankdata(table if direction == "increasing" else -table, axis=1)
    order = np.arange(1, columns + 1)
    statistic = float(np.sum(ranks @ order))
    # L is the sum over rows of the products of ranks, a linear function of Spearman's mean rho.
    scale = rows * columns * (columns**2 - 1) / 12.0
    excess = statistic - rows * columns * (columns + 1) ** 2 / 4.0
    sorts, often = np.unique(np.sort(ranks, axis=1), axis=0, return_counts=True)
    kinds = {_tie_sizes(row): int(count) for row, count in zip(sorts, often, strict=True)}
    width = columns * (columns**2 - 1) // 3  # of twice L, of one row
    states = [prod(size + 1 for size in sizes) for sizes in kinds]
    cheap = max(states) <= _MOST_STATES and sum(states) <= _MOST_STATES_IN_ALL
    if cheap and rows * width <= _MOST_SUMS:
        method: TrendMethod = "exact"
        p_value = _exact_tail(kinds, round(2.0 * excess))
    else:
        method = "normal approximation"
        spread = np.sum((order - order.mean()) ** 2) * np.sum((ranks - order.mean()) ** 2)
        deviation = np.sqrt(spread / (columns - 1))
        p_value = float(stats.norm.sf(excess / deviation)) if deviation > 0.0 else 1.0
    return TrendResult(direction, statistic, p_value, excess / scale, rows, columns, method)


def _tie_sizes(ranks: Array) -> tuple[int, ...]:
    # How often each rank comes up, from the least rank on.
    return tuple(np.unique(ranks, return_counts=True)[1].tolist())


@lru_cache(maxsize=64)
def _row_distribution(sizes: tuple[int, ...]) -> Array:
    # The chance of each value of 2 (L - mean) from -w to w in a row with ties of these sizes.
    columns, groups = sum(sizes), len(sizes)
    after = np.cumsum(sizes)
    doubled = [2 * int(last) - size + 1 for last, size in zip(after, sizes, strict=True)]
    length = columns * (columns + 1) * (2 * columns + 1) // 3 + 1
    # From how often each rank was given to the first columns, to the number of ways to each sum.
    ways = {sizes: np.eye(1, length)[0]}
    for column in range(1, columns + 1):
        following: dict[tuple[int, ...], Array] = {}
        for left, counts in ways.items():
            for group in range(groups):
                if left[group]:
                    state = (*left[:group], left[group] - 1, *left[group + 1 :])
                    shift = column * doubled[group]
                    into = following.setdefault(state, np.zeros(length))
                    into[shift:] += left[group] * counts[: length - shift]
        ways = following
    (counts,) = ways.values()
    mean, width = columns * (columns + 1) ** 2 // 2, columns * (columns**2 - 1) // 6
    return np.asarray(counts[mean - width : mean + width + 1] / factorial(columns))


def _exact_tail(kinds: dict[tuple[int, ...], int], excess: int) -> float:
    # The chance that 2 (L - mean) is at least the excess over independent rows of these kinds. Each
    # row's distribution is tilted by exp(t value) such that the mean of the sum is where the tail
    # begins; then rounding errors of the Fourier transform are small beside what is summed.
    rows = sum(kinds.values())
    laws = {sizes: _row_distribution(sizes) for sizes in kinds}
    points = max(law.size for law in laws.values())
    half = points // 2
    value = np.arange(-half, half + 1)
    most = {sizes: int(value[law > 0.0].max()) for sizes, law in laws.items()}

    def tilted(tilt: float) -> dict[tuple[int, ...], Array]:
        return {
            sizes: law * np.exp(tilt * np.minimum(value - most[sizes], 0.0))
            for sizes, law in laws.items()
        }

    def mean(tilt: float) -> float:
        return sum(
            kinds[sizes] * float(value @ law / law.sum()) for sizes, law in tilted(tilt).items()
        )

    tilt = 0.0
    if excess > 0:
        tilt = _STEEPEST
        if mean(tilt) > excess:
            tilt = float(optimize.brentq(lambda t: mean(t) - excess, 0.0, _STEEPEST))
    size = fft.next_fast_len(rows * (points - 1) + 1, real=True)
    transform, log_mass, top = np.ones(size // 2 + 1, dtype=complex), 0.0, 0
    for sizes, law in tilted(tilt).items():
        transform *= fft.rfft(law / law.sum(), size) ** kinds[sizes]
        log_mass += kinds[sizes] * float(np.log(law.sum()))
        top += kinds[sizes] * most[sizes]
    chances = fft.irfft(transform, size)[excess + rows * half : top + rows * half + 1]
    tail = float(chances @ np.exp(-tilt * np.arange(chances.size)))
    # Rounding: some 10 eps a row in the transform, eps times the logarithm, and what underflows.
    error = (50.0 + 10.0 * rows + 2.0 * abs(log_mass)) * float(np.finfo(float).eps)
    p_value = tail * exp(log_mass + tilt * (top - excess)) * (1.0 + error)
    return min(1.0, p_value + float(np.finfo(float).tiny))


@checked
def rate_exponent(
    sizes: Annotated[Any, Vector("", "(0, inf)")],
    values: Annotated[Any, _Table(2)],
    *,
    confidence: Annotated[float, Real("(0, 1)")] = 0.99,
    resamples: Repetitions = 2000,
    seed: Seed = 0,
) -> RateResult:
    """Measure the exponent at which a mean changes with the sample size.

    The mean over the rows is taken before the log: the claim "beta ~ 1/n" is about an
    expectation. Rows are resampled whole, so common random numbers within a row count.

    The interval holds that of Student's t on the jackknife's values (at a third of the error, see
    `trial.effects`): with few rows percentiles of the bootstrap are too narrow. Each end is
    wrong with at most (1 - confidence) / 2 from 5 rows on where the entries of a column scatter
    like a gamma law of shape 1, or a lognormal one of sigma up to 1, or up to 0.6 if it grows with
    n (`claims.measured.error_rates` counts); no interval can promise it for a mean of any law.

    Args:
        sizes: n, of shape (columns,), positive and not all equal; at least 2.
        values: shape (repetitions, columns), with positive means.
        confidence: coverage of the interval, in (0, 1).
        resamples: number of bootstrap resamples, at least 1.
        seed: seed of the bootstrap.

    Returns:
        The exponent with its interval.

    Raises:
        ValueError: if the sizes are all equal, or a mean (of a resample, too) is not positive.

    >>> rate = rate_exponent([10, 20, 40], [[4.0, 2.0, 1.0], [8.0, 4.0, 2.0]])
    >>> round(rate.exponent, 9)
    -1.0
    """
    table = values
    if table.shape[1] != sizes.size:
        raise ValueError(f"values must have {sizes.size} columns, got values of {table.shape}")
    with quiet():
        representable(len(table) * np.abs(table).max(axis=0), "values")
    if np.any(table.mean(axis=0) <= 0.0):
        raise ValueError(f"values must have positive means, got {table.mean(axis=0).min()!r}")
    weights = slope(sizes)

    def slopes(means: Array) -> Array:
        return np.asarray(np.log(means) @ weights)

    rng = np.random.default_rng(seed)
    picks = rng.integers(len(table), size=(resamples, len(table)))
    means = np.stack([table[pick].mean(axis=0) for pick in picks])
    if np.any(means <= 0.0):
        raise ValueError(f"values must have positive means, got {means.min()!r} in a resample")
    error = (1.0 - confidence) / 2.0
    low, high = np.quantile(slopes(means), [error, 1.0 - error])
    exponent = float(slopes(table.mean(axis=0)))
    others = (table.sum(axis=0) - table) / (len(table) - 1.0)  # means without each row in turn
    if np.any(others <= 0.0):
        raise ValueError(f"values must have positive means, got {others.min()!r} without a row")
    pseudo = len(table) * exponent - (len(table) - 1.0) * slopes(others)
    spread = crossed(pseudo)
    reach = spread.high(error) - spread.mean
    low, high = min(float(low), exponent - reach), max(float(high), exponent + reach)
    return RateResult(exponent, low, high, confidence, *table.shape)
