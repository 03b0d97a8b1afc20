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
SLOPES = {"regularized_lipschitz": 0.8, "held_out_n": 3000, "held_out_errors": 300}
PROBLEM = {
    **PENALTY, **COMMON, **SLOPES, "curvature": 0.1, "squared_norm": 4.0, "width": 0.3,
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
            n=n, delta=0.05, errors=-(-int(n) // 10)
        ),
    }[name]()


ROWS = {row.name: row for row in compare_bounds(n=3000, **PROBLEM)}


@pytest.mark.claim("Held-out yardstick")
@pytest.mark.parametrize("name", ROWS)
def test_each_row_is_the_bound_itself(name):
    row, expected = ROWS[name], direct(name, 3000)
    assert row.result.value == pytest.approx(expected.value, rel=1e-12)
    assert row.result.vacuous == expected.vacuous
    assert set(expected.unchecked) <= set(row.unchecked)
    assert len(set(row.unchecked)) == len(row.unchecked)


@pytest.mark.claim("Held-out yardstick")
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
    few = compare_bounds(n=10, delta=0.05, dropout=0.5, curvature=0.0, regularization=1.0,
                         loss_range=1.0, empirical_risk=0.1)  # fmt: skip
    assert not few
    assert len(few.left_out) == 10
    assert few.left_out["Thm 4.4 as printed"] == "needs regularized_lipschitz"
    assert few.left_out["Bousquet-Elisseeff 2002"] == "needs lipschitz"
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


def test_held_out_rows_come_from_unseen_examples_alone():
    """No training number moves them; 7 errors of 25 are 7, whatever the float of 7/25 times 25."""
    base = {
        "delta": 0.05,
        "loss_range": 1.0,
        "dropout": 0.5,
        "curvature": 0.0,
        "regularization": 1.0,
    }
    found = set()
    for n, risk in ((25, 7 / 25), (10**6, 0.0), (1, 1.0)):
        rows = compare_bounds(
            n=n, empirical_risk=risk, lipschitz=1.0, held_out_n=25, held_out_errors=7, **base
        )
        named = {row.name: row.result.value for row in rows if "held-out" in row.name}
        found.add(tuple(named.values()))
        assert len(named) == 2
    assert found == {(
        hoeffding(n=25, delta=0.05, empirical_risk=7 / 25, loss_range=1.0).value,
        clopper_pearson(n=25, delta=0.05, errors=7).value,
    )}  # fmt: skip
    rows = compare_bounds(n=25, empirical_risk=7 / 25, lipschitz=1.0, **base)
    assert not [row for row in rows if "held-out" in row.name]
    assert rows.left_out["held-out, Clopper-Pearson"] == "needs held_out_n and held_out_errors"
    losses = compare_bounds(n=25, empirical_risk=0.0, held_out_n=9, held_out_risk=0.3, **base)
    assert [row.name for row in losses] == ["held-out, Hoeffding"]
    assert losses.left_out["held-out, Clopper-Pearson"] == "needs held_out_errors"


def test_each_row_takes_the_slope_of_its_own_loss():
    """lipschitz moves every stability row but Thm 4.4's; regularized_lipschitz that one alone."""
    base = {row.name: row.result.value for row in compare_bounds(n=3000, **PROBLEM)}
    for name, moved in (("lipschitz", False), ("regularized_lipschitz", True)):
        rows = compare_bounds(n=3000, **{**PROBLEM, name: 0.4})
        changed = {row.name for row in rows if row.result.value != base[row.name]}
        stable = {name for name in base if "PAC" not in name and "held" not in name}
        printed = {"Thm 4.4 as printed"}
        assert changed == (printed if moved else stable - printed)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"held_out_n": None},
            "held_out_errors must come with held_out_n, got held_out_errors=300",
        ),
        ({"held_out_errors": None}, "held_out_n must come with held_out_errors or held_out_risk"),
        ({"held_out_errors": 3001}, r"held_out_errors must be in \[0, 3000\]"),
        ({"held_out_errors": 2.5}, "held_out_errors must be a whole number"),
        ({"loss_range": 2.0}, "held_out_errors must come with loss_range=1"),
        ({"held_out_risk": 1.5}, "held_out_risk must be in"),
    ],
)
def test_held_out_numbers_must_fit_together(wrong, message):
    with pytest.raises(ValueError, match=message):
        compare_bounds(n=10, **{**PROBLEM, **wrong})
