"""Intervals against other implementations, and their coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lora_bounds.bounds.held_out import clopper_pearson
from lora_dropout.probes.intervals import (
    Interval,
    clopper_pearson_interval,
    empirical_bernstein_interval,
    percentile_interval,
    t_interval,
)


@given(st.integers(1, 300), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_clopper_pearson_against_the_held_out_bound(n: int, data, confidence: float) -> None:
    k = data.draw(st.integers(0, n))
    got = clopper_pearson_interval(k, n, confidence=confidence)
    tail = (1 - confidence) / 2
    upper = clopper_pearson(n=n, delta=tail, errors=k).value
    lower = clopper_pearson(n=n, delta=tail, errors=k, direction="lower").value
    assert (got.low, got.high) == (lower, upper)
    assert 0 <= got.low <= k / n <= got.high <= 1


def test_clopper_pearson_at_a_million_millions() -> None:
    # As for a Poisson count, to 1e-11; SciPy's own interval is 5 % off.
    for count in (1, 2, 7):
        got = clopper_pearson_interval(count, 10**12)
        want = stats.chi2.ppf([0.025, 0.975], [2 * count, 2 * count + 2]) / 2e12
        assert (got.low, got.high) == pytest.approx(tuple(want), rel=1e-10, abs=0)


def test_empirical_bernstein_by_hand() -> None:
    values = np.array([0.0, 0.0, 1.0, 0.5])
    log = np.log(2 / 0.05)  # each side at half of 1 - 0.9
    variance = np.sum((values - 0.375) ** 2) / 3
    slack = np.sqrt(2 * variance * log / 4) + 7 * 2 * log / (3 * 3)
    got = empirical_bernstein_interval(values, span=2.0, confidence=0.9)
    assert (got.low, got.high) == pytest.approx((0.375 - slack, 0.375 + slack))


@pytest.mark.parametrize("method", ["bernstein", "t"])
def test_coverage(method: str) -> None:
    # 400 samples; a method that covers with probability 0.9 misses 75 or more of them with
    # probability below 1e-6, and Bernstein's inequality misses far fewer.
    random, missed = np.random.default_rng(0), 0
    for _ in range(400):
        x = random.beta(0.5, 1.5, size=60)
        if method == "bernstein":
            got = empirical_bernstein_interval(x, span=1.0, confidence=0.9)
        else:
            got = t_interval(x, confidence=0.9)
        missed += not got.low <= 0.25 <= got.high
    assert missed < 75
    assert method != "t" or missed > 10  # nor is it idly wide


def test_t_interval_against_scipy() -> None:
    x = np.random.default_rng(1).normal(size=12)
    want = stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    got = t_interval(x, confidence=0.95)
    assert (got.low, got.high) == pytest.approx((want.low, want.high))
    moved = got.shift(2.0)
    assert (moved.low, moved.high, moved.confidence) == (got.low + 2, got.high + 2, 0.95)


def test_percentiles() -> None:
    got = percentile_interval(np.arange(101.0), confidence=0.9)
    assert (got.low, got.high) == pytest.approx((5.0, 95.0))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), got confidence=1"):
        Interval(0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"low must be at most high, got low=2.0, high=1.0"):
        Interval(2.0, 1.0, 0.9)
    with pytest.raises(ValueError, match="successes must be at most trials=3, got successes=4"):
        clopper_pearson_interval(4, 3)
    with pytest.raises(ValueError, match=r"values must lie within a range of span=1.0, got"):
        empirical_bernstein_interval([0.0, 1.5], span=1.0)
    for values in ([1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="values must be a vector of"):
            t_interval(values)
    with pytest.raises(ValueError, match="values must be finite and at most"):
        t_interval([1.0, float("nan")])
