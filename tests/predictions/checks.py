"""The checks behind the predictions: each takes what was measured and raises AssertionError.

They know nothing of where the numbers come from, so exact models, trained adapters and corrupted
bounds all go through the same functions.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from hypothesis import Phase, find, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats

from lora_bounds.trial.frequency import FrequencyResult, judge_frequency
from lora_bounds.trial.trends import (
    RateResult,
    TrendDirection,
    TrendResult,
    page_trend,
    rate_exponent,
)

T = TypeVar("T")
CHANCE = 1e-6  # of rejecting a true prediction, for every check with randomness in it


def check_failure_rate(failures: int, trials: int, delta: float) -> FrequencyResult:
    """A bound that holds with probability 1 - delta failed so often in so many trials."""
    found = judge_frequency(
        name="bound", failures=failures, trials=trials, probability=delta, error_probability=CHANCE
    )
    assert not found.rejected, f"failed in {failures} of {trials} trials: {found}"
    return found


def check_below(values: ArrayLike, bounds: ArrayLike, rounding: float = 1e-9) -> None:
    """Values never exceed their bounds, but for relative rounding."""
    value, bound = np.broadcast_arrays(np.asarray(values, float), np.asarray(bounds, float))
    over = value - bound * (1 + rounding)
    worst = np.unravel_index(int(over.argmax()), over.shape)
    assert over[worst] <= 0, f"{value[worst]!r} exceeds its bound {bound[worst]!r}"


def check_equal(values: ArrayLike, expected: ArrayLike, tolerance: float = 1e-10) -> None:
    """Two exact routes agree, relative to the larger of 1 and the largest entry."""
    left, right = np.asarray(values, float), np.asarray(expected, float)
    scale = max(1.0, float(np.abs(right).max()))
    error = float(np.abs(left - right).max()) / scale
    assert error <= tolerance, f"{left!r} differs from {right!r} by {error!r}"


def check_mean_zero(differences: ArrayLike) -> None:
    """Independent differences have mean 0: Student's interval at 1 - `CHANCE` contains it."""
    values = np.asarray(differences, float)
    found = stats.ttest_1samp(values, 0.0)
    assert found.pvalue > CHANCE, f"mean {values.mean()!r}, p-value {found.pvalue!r}"


def check_monotone(values: ArrayLike, direction: TrendDirection, rounding: float = 1e-10) -> None:
    """Exact values follow a direction at every step, but for rounding."""
    steps = np.diff(np.asarray(values, float)) * (1 if direction == "increasing" else -1)
    room = rounding * float(np.abs(values).max())
    assert np.all(steps >= -room), f"not {direction}: a step of {steps.min()!r} against it"


def check_page_trend(
    table: ArrayLike, direction: TrendDirection, *, least_effect: float = 0.0
) -> TrendResult:
    """The trend is there by Page's test, and at least so strong.

    A prediction that there is a trend is accepted where its absence would give such a table with
    probability at most 1e-4: this check errs by missing trends, not by inventing them.
    """
    found = page_trend(table, direction=direction)
    assert found.p_value <= 1e-4 and found.effect_size >= least_effect, f"no trend: {found}"
    return found


def check_rate(
    sizes: ArrayLike, values: ArrayLike, *, expected: float, tolerance: float
) -> RateResult:
    """The whole interval of the exponent lies within the tolerance of the expected one."""
    found = rate_exponent(sizes, values)
    inside = expected - tolerance <= found.low and found.high <= expected + tolerance
    assert inside, f"not the rate n^{expected}: {found}"
    return found


def caught(check: Callable[[T], Any], problems: st.SearchStrategy[T]) -> T:
    """The first problem on which a check fails; raises NoSuchExample if none is found.

    It is not made smaller: that it is found decides, and shrinking takes ten times as long.
    """

    def fails(problem: T) -> bool:
        try:
            check(problem)
        except AssertionError:
            return True
        return False

    how = settings(max_examples=300, database=None, phases=[Phase.generate])
    return find(problems, fails, settings=how)
