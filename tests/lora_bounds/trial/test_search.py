"""The falsifier finds planted violations, shrinks them, and lets true claims pass."""

from fractions import Fraction
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bounds.trial.search import Inequality, search, shrink, violates


def planted(bound):
    """The sum of squares of numbers in [-1, 1] is at most `bound`."""
    return Inequality(
        "planted",
        "sum of squares",
        lambda rng: {"x": rng.uniform(-1, 1, rng.integers(1, 6)).tolist(), "n": 3},
        lambda s: (sum(v * v for v in s["x"]), bound),
        lambda s: len(s["x"]) >= 1 and all(abs(v) <= 1 for v in s["x"]),
    )


def test_a_violation_is_found_and_shrunk_to_the_smallest():
    result = search(planted(0.5), trials=200, seed=1)
    assert result.refuted
    assert result.violations > 10
    assert result.problem == {"x": [1], "n": 0}
    assert (result.lhs, result.rhs, result.margin) == (1.0, 0.5, -0.5)


def test_a_true_claim_passes_and_keeps_its_worst_problem():
    result = search(planted(5), trials=200, seed=1)
    assert not result.refuted
    assert result.violations == 0
    assert result.trials == 200
    assert 0 < result.margin == 5 - result.lhs


def test_the_search_is_reproducible():
    assert search(planted(2), trials=50, seed=4) == search(planted(2), trials=50, seed=4)
    first, second = (search(planted(9), trials=50, seed=s).lhs for s in (4, 5))
    assert first != second


@pytest.mark.parametrize(
    ("lhs", "rhs", "expected"),
    [
        (1.0, 1.0, False),
        (1.0 + 1e-13, 1.0, False),  # rounding
        (1.0 + 1e-11, 1.0, True),
        (1e-300, 0.0, True),  # the allowance is relative: tiny is not zero
        (1.0, inf, False),
        (inf, 1.0, True),
        (inf, inf, False),
    ],
)
def test_what_counts_as_a_violation(lhs, rhs, expected):
    claim = Inequality("c", "", lambda rng: {}, lambda s: (lhs, rhs))
    assert violates(claim, {}) is expected


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.floats(0.01, 3))
def test_shrinking_keeps_the_violation(values, bound):
    claim = planted(bound)
    problem = {"x": values, "n": 7}
    if not violates(claim, problem):
        with pytest.raises(ValueError, match="only a violation can be shrunk"):
            shrink(claim, problem)
        return
    small = shrink(claim, problem)
    assert violates(claim, small)
    assert len(small["x"]) <= len(values)
    assert small["n"] == 0
    assert shrink(claim, small) == small


def test_records_keep_their_length():
    claim = Inequality(
        "pairs",
        "",
        lambda rng: {"points": [(2.5, 3.5)]},
        lambda s: (s["points"][0][0] + s["points"][0][1], 0),
        lambda s: len(s["points"]) >= 1,
    )
    small = shrink(claim, {"points": [(2.5, 3.5), (1.0, 1.0)]})
    assert len(small["points"]) == 1
    assert len(small["points"][0]) == 2
    assert sum(small["points"][0]) > 0


def test_steps_that_break_the_problem_are_skipped():
    """1/x > 1 shrinks towards 0 without dividing by it."""
    claim = Inequality("inverse", "", lambda rng: {}, lambda s: (1 / s["x"], 1))
    small = shrink(claim, {"x": 0.123})
    assert small == {"x": Fraction(1, 2)}


def test_bad_arguments_are_rejected():
    with pytest.raises(ValueError, match="trials=0"):
        search(planted(1), trials=0, seed=0)
    with pytest.raises(ValueError, match="only 0 of 2 problems"):
        search(
            Inequality("empty", "", lambda rng: {}, lambda s: (0, 0), lambda s: False),
            trials=2,
            seed=0,
        )
    with pytest.raises(ValueError, match="not a number, got lhs=nan"):
        search(Inequality("nan", "", lambda rng: {}, lambda s: (nan, 0)), trials=1, seed=0)


def test_draws_outside_the_domain_do_not_count_as_trials():
    claim = Inequality(
        "half", "", lambda rng: {"x": rng.uniform(-1, 1)}, lambda s: (s["x"], 2),
        lambda s: s["x"] > 0,
    )  # fmt: skip
    drawn = []
    spy = Inequality(
        "half", "", claim.draw, lambda s: (drawn.append(s["x"]) or s["x"], 2), claim.in_domain
    )
    search(spy, trials=30, seed=0)
    assert len(drawn) == 31  # each trial once, and the worst once more for the report
    assert np.min(drawn) > 0
