"""Effects over runs crossed with examples: by hand, and how often their limits are wrong."""

import numpy as np
import pytest
from scipy import stats

from lora_bounds.claims.measured.error_rates import LAWS, TABLES, try_crossed, try_rate
from lora_bounds.trial.effects import MeanEffect, crossed, near, slope, strongest, weakest
from lora_bounds.trial.frequency import judge_frequency

FIRST, SECOND = MeanEffect(1.0, 0.5, 9), MeanEffect(2.0, 3.0, 9)


def _reach(level: float, error: float) -> float:
    return float(stats.t.isf(level / 3.0, 9)) * error  # two thirds are kept for skewness


def test_weakest_and_strongest_share_the_level_where_they_must() -> None:
    least, most = weakest([FIRST, SECOND]), strongest([FIRST, SECOND])
    assert least.low(0.01) == pytest.approx(2.0 - _reach(0.01, 3.0))
    assert least.high(0.01) == pytest.approx(1.0 + _reach(0.005, 0.5))
    assert most.low(0.01) == pytest.approx(1.0 - _reach(0.005, 0.5))
    assert most.high(0.01) == pytest.approx(2.0 + _reach(0.01, 3.0))


def test_near_is_positive_within_the_tolerance() -> None:
    close = MeanEffect(-0.52, 0.001, 9)
    assert near(close, -0.5, tolerance=0.1).low(0.01) == pytest.approx(0.08 - _reach(0.01, 0.001))
    assert (
        near(close, -0.3, tolerance=0.1).high(0.01) < 0 < near(FIRST, 1.2, tolerance=2.0).low(0.01)
    )


def test_slope_is_least_squares() -> None:
    sizes, values = np.array([8.0, 16.0, 50.0]), np.array([0.3, -1.0, 2.0])
    assert values @ slope(sizes) == pytest.approx(np.polyfit(np.log(sizes), values, 1)[0])


@pytest.mark.parametrize(("run", "example", "interaction"), TABLES)
def test_limits_of_a_crossed_mean_are_wrong_as_rarely_as_stated(
    run: float, example: float, interaction: float
) -> None:
    for rate in try_crossed(run=run, example=example, interaction=interaction, repeats=500):
        assert rate.kept, rate


def test_scatter_of_runs_alone_misses_other_examples_often() -> None:
    """The control: the same tables, with the examples taken for all there are."""
    rng, repeats, misses = np.random.default_rng(0), 300, 0
    for _ in range(repeats):
        table = 0.2 * rng.standard_normal((12, 1)) + rng.standard_normal((1, 100))
        table = table + rng.standard_normal((12, 100))
        misses += crossed(table.mean(axis=1)).low(0.01) > 0.0
    found = judge_frequency(name="", failures=int(misses), trials=repeats, probability=0.01)
    assert found.rejected


@pytest.mark.parametrize("law", LAWS)
def test_few_rows_do_not_cost_an_exponent_its_error(law: str) -> None:
    for rate in try_rate(law, rows=9, repeats=300):
        assert rate.kept, rate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": [1.0]}, "runs must be at least 2, got 1"),
        ({"runs": [1.0, 2.0], "examples": 1}, r"examples must be .*examples=1"),
        ({"runs": [1.0, 2.0], "example_variance": 1.0}, "needs examples, got examples=None"),
        ({"runs": [1.0, 2.0], "example_variance": -1.0, "examples": 3}, "example_variance=-1.0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crossed(**arguments)  # type: ignore[arg-type]


def test_nothing_to_put_together_and_equal_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one effect"):
        weakest([])
    with pytest.raises(ValueError, match="sizes must differ"):
        slope([3, 3])
