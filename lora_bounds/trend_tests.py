"""Tests of a trend: does a measured quantity rise or fall over p, and at which rate over n?

A table has one repetition a row (a seed, a sample) and one setting a column (a rate p, a size n),
in the order of the prediction. Rows are independent; the entries of a row may share their random
numbers, which sharpens both tests.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lora_bounds import checks
from lora_bounds.effects import crossed, slope
from lora_bounds.rounding import Array, quiet

TrendDirection: TypeAlias = Literal["increasing", "decreasing"]


@dataclass(frozen=True)
class TrendResult:
    """What Page's test says of a trend.

    Attributes:
        direction: the trend that was predicted.
        statistic: Page's L of the columns in the predicted order.
        p_value: the chance of an L so large if every order of a row's entries were equally likely
            (no trend). With ties inside a row it errs on the large side.
        effect_size: mean over rows of Spearman's correlation between the entries and the predicted
            order: 1 if every row follows it, 0 on average without a trend, -1 if every row
            reverses it. Ties bring it towards 0.
        rows: number of repetitions.
        columns: number of settings.
    """

    direction: TrendDirection
    statistic: float
    p_value: float
    effect_size: float
    rows: int
    columns: int


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


def _table(name: str, value: ArrayLike, *, columns: int) -> Array:
    table = checks.matrix(name, value)
    if table.shape[0] < 2 or table.shape[1] < columns:
        raise ValueError(
            f"{name} must have at least 2 rows and {columns} columns, got {name} of {table.shape}"
        )
    return table


def page_trend(table: ArrayLike, *, direction: TrendDirection) -> TrendResult:
    """Test for a trend over the columns by Page's test, with its effect size.

    The null hypothesis is that within each row every order is equally likely; the alternative,
    that the entries follow ``direction`` (not strictly). A small p-value says that there is such
    a trend on the whole, not that every step follows it. Page 1963, "Ordered hypotheses for
    multiple treatments".

    Args:
        table: shape (repetitions, settings), at least 2 x 3, settings in the predicted order.
        direction: ``"increasing"`` or ``"decreasing"``.

    Returns:
        The result.

    >>> result = page_trend([[3.0, 2.0, 1.0]] * 5, direction="decreasing")
    >>> result.effect_size, round(result.p_value * 6**5, 9)  # one of 3! orders, in each of 5 rows
    (1.0, 1.0)
    """
    values = _table("table", table, columns=3)
    checks.choice("direction", direction, ("increasing", "decreasing"))
    rows, columns = values.shape
    signed = values if direction == "increasing" else -values
    found = stats.page_trend_test(signed)
    # L is the sum over rows of the products of ranks, a linear function of Spearman's mean rho.
    scale = rows * columns * (columns**2 - 1) / 12.0
    effect = (float(found.statistic) - rows * columns * (columns + 1) ** 2 / 4.0) / scale
    return TrendResult(
        direction, float(found.statistic), float(found.pvalue), effect, rows, columns
    )


def rate_exponent(
    sizes: ArrayLike,
    values: ArrayLike,
    *,
    confidence: float = 0.99,
    resamples: int = 2000,
    seed: int = 0,
) -> RateResult:
    """Measure the exponent at which a mean changes with the sample size.

    The mean over the rows is taken before the log: the claim "beta ~ 1/n" is about an
    expectation. Rows are resampled whole, so common random numbers within a row count.

    The interval holds that of Student's t on the jackknife's values (at a third of the error, see
    `lora_bounds.effects`): with few rows percentiles of the bootstrap are too narrow. Each end is
    wrong with at most (1 - confidence) / 2 from 5 rows on where the entries of a column scatter
    like a gamma law of shape 1, or a lognormal one of sigma up to 1, or up to 0.6 if it grows with
    n (`lora_bounds.ledger.error_rates` counts); no interval can promise it for a mean of any law.

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
    n = checks.vector("sizes", sizes)
    checks.numbers("sizes", n, "(0, inf)")
    table = _table("values", values, columns=2)
    if table.shape[1] != n.size:
        raise ValueError(f"values must have {n.size} columns, got values of {table.shape}")
    level = checks.number("confidence", confidence, "(0, 1)")
    draws = checks.whole_number("resamples", resamples, most=10**9)
    start = checks.seed("seed", seed)
    with quiet():
        checks.representable(len(table) * np.abs(table).max(axis=0), values=values)
    if np.any(table.mean(axis=0) <= 0.0):
        raise ValueError(f"values must have positive means, got {table.mean(axis=0).min()!r}")
    weights = slope(n)

    def slopes(means: Array) -> Array:
        return np.asarray(np.log(means) @ weights)

    rng = np.random.default_rng(start)
    picks = rng.integers(len(table), size=(draws, len(table)))
    means = np.stack([table[pick].mean(axis=0) for pick in picks])
    if np.any(means <= 0.0):
        raise ValueError(f"values must have positive means, got {means.min()!r} in a resample")
    error = (1.0 - level) / 2.0
    low, high = np.quantile(slopes(means), [error, 1.0 - error])
    exponent = float(slopes(table.mean(axis=0)))
    others = (table.sum(axis=0) - table) / (len(table) - 1.0)  # means without each row in turn
    if np.any(others <= 0.0):
        raise ValueError(f"values must have positive means, got {others.min()!r} without a row")
    pseudo = len(table) * exponent - (len(table) - 1.0) * slopes(others)
    spread = crossed(pseudo)
    reach = spread.high(error) - spread.mean
    low, high = min(float(low), exponent - reach), max(float(high), exponent + reach)
    return RateResult(exponent, low, high, level, *table.shape)
