"""Page's test against enumeration of all rankings; the exponent against exact power laws."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, spearmanr

from lora_bounds.trend_tests import page_trend, rate_exponent

seeds = st.integers(0, 10**6)


@given(seeds, st.integers(2, 3), st.integers(3, 4))
def test_p_value_is_the_share_of_rankings_with_so_large_a_statistic(seed, rows, columns):
    table = np.random.default_rng(seed).normal(size=(rows, columns))
    found = page_trend(table, direction="increasing")
    order = np.arange(1, columns + 1)
    ranks = table.argsort(axis=1).argsort(axis=1) + 1
    assert found.statistic == float(np.sum(ranks * order))
    scores = [int(np.dot(perm, order)) for perm in permutations(order)]
    totals = [sum(pick) for pick in product(scores, repeat=rows)]
    assert found.p_value == pytest.approx(np.mean(np.array(totals) >= found.statistic), rel=1e-9)


@given(seeds)
def test_effect_size_is_the_mean_rank_correlation_and_directions_mirror(seed):
    table = np.random.default_rng(seed).normal(size=(6, 5))
    found = page_trend(table, direction="increasing")
    rho = np.mean([spearmanr(row, np.arange(5)).statistic for row in table])
    assert found.effect_size == pytest.approx(rho, abs=1e-12)
    assert page_trend(table, direction="decreasing").effect_size == pytest.approx(-rho, abs=1e-12)
    assert page_trend(-table, direction="decreasing").p_value == found.p_value


def test_without_a_trend_it_rejects_as_rarely_as_stated():
    rng = np.random.default_rng(0)
    hits = sum(
        page_trend(rng.normal(size=(5, 4)), direction="increasing").p_value <= 0.05
        for _ in range(1000)
    )
    assert binomtest(hits, 1000, 0.05, alternative="greater").pvalue > 1e-6


def test_ties_err_on_the_large_side():
    """Entries of two values only: the exact null keeps each row's ties and permutes the rest."""
    table = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    found = page_trend(table, direction="increasing")
    rows = [list(permutations(row)) for row in ([1.5, 1.5, 3.0], [1.0, 2.5, 2.5])]
    totals = [np.dot(a, [1, 2, 3]) + np.dot(b, [1, 2, 3]) for a, b in product(*rows)]
    assert found.p_value >= np.mean(np.array(totals) >= found.statistic - 1e-9)


@given(st.floats(-2, 2), st.floats(0.1, 10), seeds)
def test_power_laws_are_found_exactly(exponent, scale, seed):
    sizes = np.array([8.0, 16.0, 50.0, 90.0])
    factors = np.random.default_rng(seed).uniform(0.5, 2, size=(5, 1))
    rate = rate_exponent(sizes, scale * factors * sizes**exponent)
    assert rate.exponent == pytest.approx(exponent, abs=1e-9)
    assert rate.low == pytest.approx(exponent, abs=1e-9)
    assert rate.high == pytest.approx(exponent, abs=1e-9)


def test_interval_covers_about_as_often_as_stated():
    rng, sizes, covered = np.random.default_rng(1), np.array([10.0, 20.0, 40.0]), 0
    for _ in range(300):
        rate = rate_exponent(
            sizes, sizes**-1.0 * rng.gamma(2.0, size=(40, 3)), confidence=0.9, resamples=300
        )
        covered += rate.low <= -1.0 <= rate.high
    assert 0.8 < covered / 300 < 0.97


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: page_trend([[1.0, 2.0, 3.0]], direction="increasing"), "at least 2 rows and 3"),
        (lambda: page_trend([[1.0, 2.0]] * 3, direction="increasing"), r"got table of \(3, 2\)"),
        (lambda: page_trend([[1.0, np.nan, 2.0]] * 3, direction="increasing"), "table=nan"),
        (lambda: page_trend([[1.0, 2.0, 3.0]] * 3, direction="up"), "direction='up'"),
        (lambda: rate_exponent([1, 2], [[1.0, 2.0, 3.0]] * 2), "values must have 2 columns"),
        (lambda: rate_exponent([2, 2], [[1.0, 2.0]] * 2), "sizes must differ"),
        (lambda: rate_exponent([0, 2], [[1.0, 2.0]] * 2), r"sizes=0\.0"),
        (lambda: rate_exponent([1, 2], [[1.0, -2.0]] * 2), "positive means"),
        (lambda: rate_exponent([1, 2], [[1.0, 9.0], [1.0, -8.0]]), "in a resample"),
        (lambda: rate_exponent([1, 2], [[1.0, 2.0]] * 2, confidence=1.0), r"confidence=1\.0"),
        (lambda: rate_exponent([1, 2], [[1.0, 2.0]] * 2, resamples=0), r"resamples=0\.0"),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()
