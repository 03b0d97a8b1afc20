"""Held-out bounds against balls and the exact binomial tail."""

import mpmath as mp
import numpy as np
import pytest
from flint import arb, ctx, fmpz
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lora_bounds.bounds.held_out import clopper_pearson, hoeffding
from tests.lora_bounds.balls import assert_just_above, assert_just_below, ball

deltas = st.one_of(st.floats(1e-9, 0.999), st.sampled_from([1e-300, 1e-30, 1 - 1e-16]))


@pytest.mark.claim("Held-out, Hoeffding")
@given(st.integers(1, 10**6), deltas, st.floats(0, 1), st.floats(0.01, 100))
def test_hoeffding_is_just_outside_its_exact_value(n, delta, share, c):
    common = {"n": n, "delta": delta, "empirical_risk": min(c * share, c), "loss_range": c}
    slack = ball(c) * (-ball(delta).log() / (2 * n)).sqrt()
    risk = ball(common["empirical_risk"])
    upper = hoeffding(**common)
    assert_just_above(upper.value, risk + slack)
    assert upper.vacuous == (upper.value >= c)
    lower = hoeffding(**common, direction="lower")
    exact = risk - slack
    assert ball(lower.value) <= exact or lower.value == 0.0
    assert exact - ball(lower.value) <= risk * ball(1e-13) + slack * ball(1e-13)
    assert lower.vacuous == (lower.value == 0.0)
    assert lower.confidence == upper.confidence <= 1 - delta


def tail(n, errors, risk):
    """P(Bin(n, risk) <= errors) in balls."""
    return sum(
        (arb(fmpz.bin_uiui(n, k)) * risk**k * (1 - risk) ** (n - k) for k in range(errors + 1)),
        arb(0),
    )


@pytest.mark.claim("Held-out, Clopper-Pearson")
@given(
    st.integers(1, 120), st.data(),
    st.one_of(st.floats(1e-9, 0.999), st.sampled_from([1e-100, 1e-30, 1 - 1e-16])),
)  # fmt: skip
def test_clopper_pearson_inverts_the_binomial_tail(n, data, delta):
    errors = data.draw(st.integers(0, n))
    upper = clopper_pearson(n=n, delta=delta, errors=errors).value
    if upper < 1.0:
        assert tail(n, errors, ball(upper)) <= ball(delta)
        inside = ball(upper) * (1 - ball(3e-11))
        assert tail(n, errors, inside) >= ball(delta)
    lower = clopper_pearson(n=n, delta=delta, errors=errors, direction="lower").value
    if lower > 0.0:
        assert 1 - tail(n, errors - 1, ball(lower)) <= ball(delta)
        outside = ball(lower) * (1 + ball(3e-11))
        assert outside >= 1 or 1 - tail(n, errors - 1, outside) >= ball(delta)
    assert 0.0 <= lower <= 1.0


@given(st.integers(2, 60), st.data(), st.sampled_from([9e-101, 1e-300, 5e-324]))
def test_clopper_pearson_is_safe_for_tiny_delta(n, data, delta):
    errors = data.draw(st.integers(1, n - 1))
    upper = clopper_pearson(n=n, delta=delta, errors=errors).value
    assert upper >= 1.0 or tail(n, errors, ball(upper)) <= ball(delta)
    lower = clopper_pearson(n=n, delta=delta, errors=errors, direction="lower").value
    assert 1 - tail(n, errors - 1, ball(lower)) <= ball(delta)
    # Chernoff's bound is wider than the exact one at the largest admitted delta by little.
    if n > 50 and errors > 25:
        wide = clopper_pearson(n=n, delta=9e-101, errors=errors, direction="lower").value
        tight = clopper_pearson(n=n, delta=1.1e-100, errors=errors, direction="lower").value
        assert 0.8 * tight <= wide <= tight


@pytest.mark.parametrize("n", [10**3, 2 * 10**4])
@pytest.mark.parametrize("delta", [0.05, 1e-12, 1e-100])
def test_clopper_pearson_at_size(n, delta):
    """Against the regularised incomplete beta function in balls."""
    for errors in (1, n // 10, n // 2, n - 1):
        upper = clopper_pearson(n=n, delta=delta, errors=errors).value
        lower = clopper_pearson(n=n, delta=delta, errors=errors, direction="lower").value
        with ctx.workprec(500):  # enough for delta, and far faster
            inside = 1 - ball(upper) * (1 - ball(3e-11))
            survive = [
                point.beta_lower(n - errors, errors + 1, regularized=1)
                for point in (1 - ball(upper), inside)
            ]
            assert survive[0] <= ball(delta) <= survive[1]
            assert ball(lower).beta_lower(errors, n - errors + 1, regularized=1) <= ball(delta)


def test_clopper_pearson_without_errors_is_closed():
    for delta in (1e-300, 0.05, 0.999):
        got = clopper_pearson(n=50, delta=delta, errors=0).value
        assert_just_above(got, 1 - (ball(delta).log() / 50).exp())
        got = clopper_pearson(n=50, delta=delta, errors=50, direction="lower").value
        assert_just_below(got, (ball(delta).log() / 50).exp())


def test_clopper_pearson_limits():
    for delta, errors in ((0.1, 5), (0.0, 2), (1e-9, 4)):
        assert 1.0 - 1e-2 < clopper_pearson(n=5, delta=delta, errors=errors).value <= 1.0 + 1e-14
    assert clopper_pearson(n=5, delta=0.1, errors=5).value >= 1.0
    assert clopper_pearson(n=5, delta=0.1, errors=5).vacuous
    assert clopper_pearson(n=5, delta=0.0, errors=2).value >= 1.0
    assert clopper_pearson(n=5, delta=0.0, errors=2, direction="lower").value == 0.0
    assert clopper_pearson(n=5, delta=0.1, errors=0, direction="lower").vacuous
    assert clopper_pearson(n=1, delta=0.25, errors=0).value == pytest.approx(0.75, rel=1e-12)
    assert clopper_pearson(n=1, delta=1.0, errors=0).value <= 1e-300
    assert clopper_pearson(n=5, delta=1.0, errors=3, direction="lower").value > 0.99
    grid = clopper_pearson(n=100, delta=[[0.05], [0.01]], errors=np.arange(0, 101, 10))
    assert grid.value.shape == (2, 11)
    assert np.all(np.diff(grid.value, axis=1) > 0)
    assert np.all(np.diff(grid.value[:, :-1], axis=0) > 0)
    assert "unseen data" in grid.unchecked
    assert "bounded loss" not in grid.unchecked


def test_hoeffding_limits():
    common = {"n": 8, "empirical_risk": 0.25, "loss_range": 1.0}
    assert hoeffding(**common, delta=0.0).value == np.inf
    assert hoeffding(**common, delta=0.0, direction="lower").value == 0.0
    assert_allclose(hoeffding(**common, delta=1.0).value, 0.25, rtol=1e-12)
    assert hoeffding(**common, delta=0.1).unchecked[-1] == "bounded loss"


@given(st.integers(2, 5000), st.floats(1e-6, 0.5), st.floats(0, 1))
def test_clopper_pearson_is_tighter_than_hoeffding(n, delta, share):
    errors = int(share * n)
    exact = clopper_pearson(n=n, delta=delta, errors=errors).value
    loose = hoeffding(n=n, delta=delta, empirical_risk=errors / n, loss_range=1.0).value
    assert exact <= loose + 1e-10


GOOD = {"n": 5, "delta": 0.1}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson(n=5, delta=0.1, errors=6), r"errors must be at most n, got"),
        (lambda: clopper_pearson(n=5, delta=0.1, errors=-1), r"errors=-1\.0"),
        (lambda: clopper_pearson(n=0, delta=0.1, errors=0), r"n=0\.0"),
        (lambda: clopper_pearson(n=5, delta=1.1, errors=0), r"delta=1\.1"),
        (
            lambda: clopper_pearson(n=5, delta=0.1, errors=1, direction="both"),
            "direction='both'",
        ),
        (
            lambda: hoeffding(n=5, delta=0.1, empirical_risk=0.1, loss_range=1.0, direction="both"),
            "direction='both'",
        ),
        (lambda: hoeffding(n=5, delta=-1, empirical_risk=0.1, loss_range=1.0), r"delta=-1\.0"),
        (lambda: hoeffding(n=5, delta=0.1, empirical_risk=2.0, loss_range=1.0), "at most"),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def certain_tail(n, k, x, y=None):
    """ln P(Bin(n, x) <= k) to 40 digits: summed downwards from k, or integrated if that is long."""
    with mp.workdps(40):
        n, k = mp.mpf(int(n)), mp.mpf(int(k))
        x, y = (mp.mpf(x), 1 - mp.mpf(x)) if y is None else (1 - mp.mpf(y), mp.mpf(y))
        mass = (
            mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)
            + k * mp.log(x) + (n - k) * mp.log(y)
        )  # fmt: skip
        if k <= 200 or n - k <= 200:  # the terms C(n, j) odds^j from j = k down
            term, total = mp.mpf(1), mp.mpf(0)
            for j in range(int(k), -1, -1):
                total += term
                term *= j * y / ((n - j + 1) * x)
                if term < total * mp.mpf(10) ** -32:
                    break
            return mass + mp.log(total)
        odds, slope = y / x, ((n - 1) * x - k) / x
        width = 1 / (abs(slope) + mp.sqrt((k * odds**2 + n - k - 1) / 2))
        ends = [width * j for j in (0, 1, 2, 4, 7, 12, 20, 35, 60, 100, 200)]
        area = mp.quad(
            lambda s: mp.exp(k * mp.log1p(s * odds) + (n - k - 1) * mp.log1p(-s)),
            [end for end in ends if end < 1],
            method="gauss-legendre",
        )
        return mass + mp.log((n - k) * area)


def _held_out_cases():
    rng = np.random.default_rng(0)
    for i in range(84):
        n = int(10 ** rng.uniform(0, 15))
        near = int(rng.integers(0, 4))
        k = (near, n - near, n // 2, int(rng.uniform() * n))[i % 4 if i % 12 < 4 else i % 2]
        delta = 10 ** rng.uniform(-300, -0.3) if i % 3 else rng.uniform(0, 1)
        yield n, min(max(k, 0), n), float(delta)
    yield 10**8, 1, 0.025  # SciPy's inverse gave a limit inside
    yield 10**15, 5 * 10**14, 0.025
    yield 10**15, 10**15 - 2, 1 - 1e-9
    yield 2**53 - 1, 2**52, 0.5


@mp.workdps(40)
def test_clopper_pearson_is_certified_by_the_tail_for_every_n():
    """Never inside; outside by less than 1e-12 ln(1/δ) of the tail or 4 units of rounding."""
    for n, k, delta in _held_out_cases():
        level = mp.log(mp.mpf(delta))
        upper = clopper_pearson(n=n, delta=delta, errors=k).value
        lower = clopper_pearson(n=n, delta=delta, errors=k, direction="lower").value
        assert 0.0 <= lower <= upper <= 1.0 or delta > 0.4
        if k < n and upper < 1.0:
            assert certain_tail(n, k, upper) <= level, (n, k, delta)
            assert (
                certain_tail(n, k, upper) >= level - 1e-12 * (1 + abs(level))
                or certain_tail(n, k, upper * (1 - 2e-15)) >= level
            ), (n, k, delta)
        if k > 0 and lower > 0.0:
            tail = certain_tail(n, n - k, None, lower)
            assert tail <= level, (n, k, delta)
            assert (
                tail >= level - 1e-12 * (1 + abs(level))
                or lower * (1 + 2e-15) >= 1
                or certain_tail(n, n - k, None, lower * (1 + 2e-15)) >= level
            ), (n, k, delta)


def test_clopper_pearson_beyond_whole_floats_is_chernoffs():
    assert clopper_pearson(n=1e300, delta=0.1, errors=1e299).value == pytest.approx(0.1)
    assert clopper_pearson(n=1e300, delta=0.1, errors=1e299).value > 0.1
    assert clopper_pearson(n=1e300, delta=0.1, errors=1e300, direction="lower").value < 1.0
