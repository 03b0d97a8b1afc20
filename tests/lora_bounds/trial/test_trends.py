"""Page's test against enumeration of all rankings; the exponent against exact power laws."""

from collections import Counter
from fractions import Fraction
from itertools import permutations, product
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, page_trend_test, rankdata, spearmanr

from lora_bounds.trial.trends import page_trend, rate_exponent

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


def exact_chance(table):
    """The share of all orders within rows with so large a statistic, in whole numbers."""
    ranks = rankdata(table, axis=1)
    columns = ranks.shape[1]
    totals = {0: 1}
    for row in ranks:
        scores = Counter(
            sum(j * r for j, r in enumerate(order, 1))
            for order in permutations([round(2 * rank) for rank in row])
        )
        following = Counter()
        for total, ways in totals.items():
            for score, more in scores.items():
                following[total + score] += ways * more
        totals = following
    least = round(2 * np.sum(ranks @ np.arange(1, columns + 1)))
    favourable = sum(ways for total, ways in totals.items() if total >= least)
    return Fraction(favourable, factorial(columns) ** len(ranks))


def check_exact(table):
    found = page_trend(table, direction="increasing")
    want = exact_chance(table)
    assert found.method == "exact"
    assert 0 <= Fraction(found.p_value) / want - 1 <= 1e-11 or found.p_value == want == 1


@given(
    seeds, st.integers(2, 25), st.integers(3, 5), st.floats(0, 2), st.sampled_from([2, 4, 10**9])
)
def test_p_values_of_many_rows_with_and_without_ties(seed, rows, columns, slope, levels):
    noise = np.random.default_rng(seed).integers(levels, size=(rows, columns))
    check_exact(noise / levels + slope * np.arange(columns))


@pytest.mark.parametrize(
    "last", [(0, 1, 2, 3), (0, 1, 3, 2), (0, 1, 1, 3), (1, 1, 1, 1), (3, 2, 1, 0)]
)
def test_the_ends_of_the_distribution(last):
    check_exact(np.array([[0, 1, 2, 3]] * 20 + [last]))


def test_beyond_20_rows():
    """21 rows of 3 columns with L = 265."""
    table = np.array([[1, 2, 3]] * 12 + [[3, 2, 1]] * 6 + [[1, 3, 2]] * 2 + [[2, 3, 1]])
    found = page_trend(table, direction="increasing")
    assert found.statistic == 265
    assert found.p_value == pytest.approx(0.0265, abs=5e-5)
    check_exact(table)


def test_beyond_8_columns():
    """Two rows of 9 columns, each with one swap next to its end: p is near 1e-10."""
    table = np.tile(np.arange(9.0), (2, 1))
    table[1, :2] = [1, 0]
    found = page_trend(table, direction="increasing")
    # All in order, or one of the 8 swaps of neighbours in either row.
    assert found.p_value == pytest.approx(17 / factorial(9) ** 2, rel=1e-11)
    table[0] = [0, 2, 1, 4, 3, 6, 5, 8, 7]
    want = page_trend_test(table, method="exact").pvalue
    assert page_trend(table, direction="increasing").p_value == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(300, 12), (2, 13), (2000, 6)])
def test_large_tables_are_exact_and_mirror(rows, columns):
    """P(L >= l) + P(L >= mirror of l) - P(L = l) = 1; the mirror is the reversed direction."""
    table = np.random.default_rng(rows).normal(size=(rows, columns))
    up, down = (page_trend(table, direction=d) for d in ("increasing", "decreasing"))
    assert up.method == down.method == "exact"
    assert 1 <= up.p_value + down.p_value < 1.2
    deviation = np.sqrt(rows * columns**2 * (columns + 1) ** 2 * (columns - 1) / 144)
    z = up.effect_size * rows * columns * (columns**2 - 1) / 12 / deviation
    # Against the normal law, corrected for continuity: to 1/rows, far from what 117 times is.
    assert up.p_value == pytest.approx(norm.sf(z - 0.5 / deviation), rel=1 / rows)


def test_a_perfect_trend_of_many_rows_is_the_product_of_its_rows():
    for rows, columns in ((50, 8), (30, 12), (100, 3)):
        table = np.tile(np.arange(columns), (rows, 1))
        found = page_trend(table, direction="increasing")
        assert found.p_value == pytest.approx(float(Fraction(1, factorial(columns) ** rows)))
    table = np.tile(np.arange(3), (1000, 1))  # 6^-1000 is below every number
    assert 0 < page_trend(table, direction="increasing").p_value < 1e-300


def test_the_method_is_named_where_it_is_the_normal_approximation():
    table = np.random.default_rng(0).normal(size=(3, 30))
    found = page_trend(table, direction="increasing")
    assert found.method == "normal approximation"
    want = page_trend_test(table, method="asymptotic").pvalue
    assert found.p_value == pytest.approx(want, rel=1e-9)
    assert page_trend(np.zeros((3, 30)), direction="increasing").p_value == 1.0
    # Ties of two values only have few states.
    table = np.array([[0.0] * 15 + [1.0] * 15] * 3)
    found = page_trend(table, direction="increasing")
    assert found.method == "exact"
    assert found.p_value == pytest.approx((factorial(15) ** 2 / factorial(30)) ** 3)


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
