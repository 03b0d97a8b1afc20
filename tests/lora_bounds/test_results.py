"""Frozen results, input checks and outward rounding."""

import dataclasses
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bounds import rounding
from lora_bounds.domains import AtMost, Call, Matrix, Reals, SecondMoment, Vector, Wholes, Words
from lora_bounds.results import Assumption, BoundResult, conclude, confidence_of

NOTED = Assumption("noted", "somebody looked", True)
OPEN = Assumption("open", "nobody looked")


def result(value, **changes):
    settings = {"name": "n", "source": "s", "assumptions": (NOTED, OPEN), **changes}
    return conclude(np.asarray(value, float), **settings)


def test_results_are_frozen_all_through():
    one = result([1.0, 2.0], trivial=np.array([5.0, 1.0]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.value = 0.0
    with pytest.raises(ValueError, match="read-only"):
        one.value[0] = 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        NOTED.checked = False
    assert one.vacuous.tolist() == [False, True]
    assert one.unchecked == ("open",)


def test_vacuity_by_direction():
    assert result(1.0, trivial=np.array(1.0)).vacuous is True
    assert result(0.5, trivial=np.array(1.0)).vacuous is False
    assert result(np.inf).vacuous is True
    assert result(1e300).vacuous is False
    lower = result(0.5, direction="lower", trivial=np.array(0.0))
    assert lower.vacuous is False
    assert lower.value < 0.5
    assert result(0.0, direction="lower").vacuous is True
    assert result(0.1, direction="lower").vacuous is False


def test_defaults_and_plain_types():
    one = result(0.5)
    assert type(one.value) is float
    assert one.confidence == 1.0
    assert one.trivial is None
    assert result(0.25, exact=True).value == 0.25
    assert result(0.25).value > 0.25
    assert result(0.25, confidence=np.array(0.9)).confidence == 0.9


def test_confidence_is_never_one_for_a_positive_delta():
    got = confidence_of(np.array([0.0, 1e-300, 0.05, 1.0]))
    assert got[0] == 1.0
    assert got[1] < 1.0
    assert got[2:].tolist() == [0.95, 0.0]


def test_nan_is_no_bound():
    with pytest.raises(ArithmeticError, match="n must be a number, got value="):
        result([1.0, np.nan])


def test_direction_is_checked():
    with pytest.raises(ValueError, match="direction='sideways'"):
        BoundResult(1.0, "sideways", 1.0, "s", (), False, "n", None)


@given(st.floats(0.0, 1e308))
def test_rounding_goes_outward(value):
    array = np.asarray(value)
    high, low = Fraction(float(rounding.up(array))), Fraction(float(rounding.down(array)))
    assert low <= Fraction(value) < high
    assert high - low <= Fraction(value) * Fraction(1, 2**46) + Fraction(1, 10**307)
    # Past the error of 16 operations of two units each.
    assert high >= Fraction(value) * (1 + Fraction(31, 2**53))
    if value > 1e-300:
        assert low <= Fraction(value) * (1 - Fraction(31, 2**53))


def test_rounding_at_the_ends():
    assert rounding.up(np.array(np.inf)) == np.inf
    assert rounding.down(np.array(0.0)) == 0.0
    assert rounding.up(np.array(1.7e308)) < np.inf


@pytest.mark.parametrize(
    ("value", "interval"),
    [(0.0, "(0, 1]"), (1.0, "[0, 1)"), (np.nan, "[0, inf]"), (np.inf, "[0, inf)"), (-1, "[0, 1]")],
)
def test_numbers_outside(value, interval):
    message = f"x must be in {interval}, got x={float(value)!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        Reals(interval)("x", value)


def test_numbers_echo_the_offending_entry_and_copy():
    with pytest.raises(ValueError, match=r"got x=3\.0"):
        Reals("[0, 1]")("x", [0.5, 3.0, 0.1])
    source = np.array([0.25])
    checked = Reals("[0, 1]")("x", source)
    source[0] = 9.0
    assert checked[0] == 0.25
    assert Reals("[0, inf]")("x", np.inf) == np.inf


@pytest.mark.parametrize("value", ["a", None, 1j, True, [object()]])
def test_only_real_numbers(value):
    with pytest.raises(TypeError, match="x must hold real numbers, got x="):
        Reals()("x", value)


def test_counts():
    assert Wholes(1)("n", 1e12) == 1e12
    assert Wholes(0)("k", 0) == 0.0
    with pytest.raises(ValueError, match=r"n must be a whole number, got n=1\.5"):
        Wholes(1)("n", [1, 1.5])
    with pytest.raises(ValueError, match=r"n must be in \[2, inf\), got n=1.0"):
        Wholes(2)("n", 1)


def test_at_most_names_both():
    AtMost("b")("a", np.array([1.0, 2.0]), Call({"b": np.array(2.0)}))
    with pytest.raises(ValueError, match=r"a must be at most b, got a=3\.0"):
        AtMost("b")("a", np.array(3.0), Call({"b": np.array([4.0, 2.0])}))


def test_matrix_vector_and_moment():
    def sized(size):
        return Call(sizes={"d": size})

    assert Matrix(columns="d")("A", [[1, 2]], sized(2)).shape == (1, 2)
    assert Vector("d")("y", [1, 2], sized(2)).tolist() == [1.0, 2.0]
    for value in ([1.0], [[]], [[[1.0]]]):
        with pytest.raises(ValueError, match="A must be a matrix"):
            Matrix()("A", value)
    with pytest.raises(ValueError, match="A must have 3 columns"):
        Matrix(columns="d")("A", [[1.0, 2.0]], sized(3))
    for value in ([[1.0]], []):
        with pytest.raises(ValueError, match="y must be a vector"):
            Vector()("y", value)
    with pytest.raises(ValueError, match="y must have 3 entries"):
        Vector("d")("y", [1.0], sized(3))
    with pytest.raises(ValueError, match="S must be 2 x 2"):
        SecondMoment("d")("S", [[1.0, 2.0]], sized(2))
    with pytest.raises(ValueError, match=r"S must be symmetric, got an asymmetry of 1.0"):
        SecondMoment("d")("S", [[1.0, 1.0], [0.0, 1.0]], sized(2))
    with pytest.raises(ValueError, match="positive semidefinite"):
        SecondMoment("d")("S", [[0.0, 1.0], [1.0, 0.0]], sized(2))
    nearly = np.array([[1.0, 0.5], [0.5 + 1e-13, 1.0]])
    moment = SecondMoment("d")("S", nearly, sized(2))
    assert np.array_equal(moment, moment.T)


def test_choice():
    Words("a", "b")("c", "a")
    with pytest.raises(ValueError, match="c must be one of a, b; got c='d'"):
        Words("a", "b")("c", "d")
