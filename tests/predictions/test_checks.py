"""The checks accept what is so and reject what is not."""

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from tests.predictions.checks import (
    caught,
    check_below,
    check_equal,
    check_failure_rate,
    check_mean_zero,
    check_monotone,
    check_page_trend,
    check_rate,
)

RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((40, 5))
SIZES = np.array([10.0, 20.0, 40.0])


def test_they_accept_what_is_so():
    check_failure_rate(5, 100, 0.05)
    check_below([1.0, 2.0], [1.0, 3.0])
    check_equal([1e6, 1.0], [1e6, 1.0])
    check_mean_zero(NOISE[:, 0])
    check_monotone([1.0, 1.0, 2.0], "increasing")
    assert check_page_trend(NOISE + 3 * np.arange(5), "increasing").effect_size > 0.9
    assert check_rate(SIZES, 5 / SIZES * np.ones((4, 1)), expected=-1, tolerance=0.1).rows == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_failure_rate(30, 100, 0.05), "failed in 30 of 100"),
        (lambda: check_below([1.0, 2.0], 1.5), r"2\.0.* exceeds its bound .*1\.5"),
        (lambda: check_equal([1.0], [1.1]), "differs"),
        (lambda: check_mean_zero(NOISE[:, 0] + 2), "mean"),
        (lambda: check_monotone([1.0, 0.9], "increasing"), "not increasing"),
        (lambda: check_page_trend(NOISE, "increasing"), "no trend"),
        (
            lambda: check_page_trend(NOISE + np.arange(5), "increasing", least_effect=0.99),
            "no trend",
        ),
        (
            lambda: check_rate(SIZES, SIZES**-0.5 * np.ones((4, 1)), expected=-1, tolerance=0.1),
            "not the rate",
        ),
    ],
)
def test_they_reject_what_is_not(call, message):
    with pytest.raises(AssertionError, match=message):
        call()


def test_caught_finds_and_admits_defeat():
    def small(value):
        assert value < 100

    assert caught(small, st.integers(0, 1000)) >= 100
    with pytest.raises(NoSuchExample):
        caught(small, st.integers(0, 50))
