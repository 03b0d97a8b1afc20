"""The side-by-side comparison: each row is the bound itself, and its n is the first useful one."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bounds import (
    bousquet_klochkov_zhivotovskiy,
    clopper_pearson,
    compare_bounds,
    feldman_vondrak,
    feldman_vondrak_2018,
    first_nonvacuous,
    hoeffding,
    lemma_4_3,
    pac_bayes_kl_bound,
    self_consistent_stability,
    theorem_4_4,
    uniform_stability,
    uniform_stability_bound,
)

PENALTY = {"lipschitz": 0.8, "regularization": 0.9, "dropout": 0.5}
COMMON = {"delta": 0.05, "loss_range": 1.0, "empirical_risk": 0.1}
PROBLEM = {
    **PENALTY, **COMMON, "curvature": 0.1, "squared_norm": 4.0, "width": 0.3,
    "feldman_vondrak_constant": 1.0,
}  # fmt: skip


def direct(name, n):
    """The row's bound, called by hand."""
    uniform = uniform_stability(n=n, **PENALTY).value
    consistent = self_consistent_stability(n=n, curvature=0.1, **PENALTY).value
    common = {"n": n, **COMMON}
    return {
        "Thm 4.4 as printed": lambda: theorem_4_4(curvature=0.1, **PENALTY, **common),
        "Lemma 4.3, self-consistent stability": lambda: lemma_4_3(stability=consistent, **common),
        "Lemma 4.3, uniform stability": lambda: lemma_4_3(stability=uniform, **common),
        "Bousquet-Elisseeff 2002": lambda: uniform_stability_bound(stability=uniform, **common),
        "Feldman-Vondrak 2018": lambda: feldman_vondrak_2018(stability=uniform, **common),
        "Bousquet-Klochkov-Zhivotovskiy 2020": lambda: bousquet_klochkov_zhivotovskiy(
            stability=uniform, **common
        ),
        "Feldman-Vondrak 2019": lambda: feldman_vondrak(stability=uniform, constant=1.0, **common),
        "PAC-Bayes dropout": lambda: pac_bayes_kl_bound(kl=1.0 / 0.09, **common),
        "held-out, Hoeffding": lambda: hoeffding(**common),
        "held-out, Clopper-Pearson": lambda: clopper_pearson(
            n=n, delta=0.05, errors=np.ceil(0.1 * n)
        ),
    }[name]()


ROWS = {row.name: row for row in compare_bounds(n=3000, **PROBLEM)}


@pytest.mark.parametrize("name", ROWS)
def test_each_row_is_the_bound_itself(name):
    row, expected = ROWS[name], direct(name, 3000)
    assert row.result.value == pytest.approx(expected.value, rel=1e-12)
    assert row.result.vacuous == expected.vacuous
    assert set(expected.unchecked) <= set(row.unchecked)
    assert len(set(row.unchecked)) == len(row.unchecked)


@pytest.mark.parametrize("name", ROWS)
def test_nonvacuous_from_is_the_first(name):
    first = int(ROWS[name].nonvacuous_from)
    assert not direct(name, first).vacuous
    least = 2 if name == "Feldman-Vondrak 2019" else 1
    before = range(max(least, first - 200), first)
    assert all(direct(name, n).vacuous for n in before)
    if first > 400:
        assert all(direct(name, n).vacuous for n in range(least, first, first // 300))


def test_rows_that_need_more_are_left_out():
    small = {k: v for k, v in PROBLEM.items() if k not in ("squared_norm", "width")}
    del small["feldman_vondrak_constant"]
    names = [row.name for row in compare_bounds(n=10, **small)]
    assert "PAC-Bayes dropout" not in names
    assert "Feldman-Vondrak 2019" not in names
    assert len(names) == 8
    names = [row.name for row in compare_bounds(n=10, **{**small, "loss_range": 2.0})]
    assert "held-out, Clopper-Pearson" not in names
    names = [row.name for row in compare_bounds(n=1, **PROBLEM)]
    assert "Feldman-Vondrak 2019" not in names


def test_a_bound_that_never_helps_says_so():
    rows = compare_bounds(n=10, **{**PROBLEM, "dropout": 0.0})
    by_name = {row.name: row for row in rows}
    assert by_name["Bousquet-Elisseeff 2002"].nonvacuous_from == np.inf
    assert by_name["Bousquet-Elisseeff 2002"].result.vacuous
    assert by_name["held-out, Hoeffding"].nonvacuous_from < 10


def test_stability_assumptions_travel_with_the_row():
    assert "convex loss" in ROWS["Bousquet-Elisseeff 2002"].unchecked
    assert "close solutions" in ROWS["Lemma 4.3, self-consistent stability"].unchecked
    assert "0-1 loss" in ROWS["held-out, Clopper-Pearson"].unchecked


@given(st.integers(1, 10**12))
def test_first_nonvacuous_finds_a_threshold(edge):
    class Step:
        def __init__(self, size):
            self.vacuous = np.asarray(size < edge)

    assert first_nonvacuous(Step) == edge


def test_both_or_neither_of_norm_and_width():
    with pytest.raises(ValueError, match="width=None"):
        compare_bounds(n=10, **{**PROBLEM, "width": None})
    with pytest.raises(ValueError, match="squared_norm=None"):
        compare_bounds(n=10, **{**PROBLEM, "squared_norm": None})
    with pytest.raises(ValueError, match=r"delta=2\.0"):
        compare_bounds(n=10, **{**PROBLEM, "delta": 2.0})


def test_a_million_grid_points():
    """About a second each on one core; the limit leaves room for a busy machine."""
    p = np.linspace(0.01, 1, 1000)[:, None]
    n = np.arange(1.0, 1001.0)
    start = time.perf_counter()
    grid = theorem_4_4(n=n, curvature=0.1, **{**PENALTY, "dropout": p}, **COMMON)
    assert grid.value.shape == (1000, 1000)
    assert pac_bayes_kl_bound(kl=p, n=n, **COMMON).value.shape == (1000, 1000)
    assert time.perf_counter() - start < 20
