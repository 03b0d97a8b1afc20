"""Risk bounds from stability, against ball arithmetic, and their relations."""

import numpy as np
import pytest
from flint import arb
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lora_bounds.bounds.risk import (
    bousquet_klochkov_zhivotovskiy,
    feldman_vondrak,
    feldman_vondrak_2018,
    least_delta,
    lemma_4_3,
    theorem_4_4,
    uniform_stability_bound,
)
from lora_bounds.bounds.stability import paper_stability
from tests.lora_bounds.balls import assert_just_above, ball, q_of

sizes = st.one_of(st.integers(1, 300), st.sampled_from([2**20, 2**20 + 1, 10**12]))
deltas = st.one_of(st.floats(1e-6, 1.0), st.sampled_from([1e-300, 1 - 1e-16, 1.0]))
betas = st.one_of(st.just(0.0), st.floats(1e-9, 10.0), st.sampled_from([1e-300, 1e300]))
ranges = st.one_of(st.floats(0.1, 10.0), st.sampled_from([1e-100, 1e100]))
shares = st.floats(0.0, 1.0)
E = arb(1).exp()


def exact_lemma(n, delta, beta, c, risk):
    c, beta = ball(c), ball(beta)
    return ball(risk) + ((c**2 + 12 * c * n * beta) / (2 * n * ball(delta))).sqrt()


def exact_bousquet_elisseeff(n, delta, beta, c, risk):
    beta, log = ball(beta), -ball(delta).log()
    return ball(risk) + 2 * beta + (4 * n * beta + ball(c)) * (log / (2 * n)).sqrt()


def exact_feldman_vondrak_2018(n, delta, beta, c, risk):
    gamma = 2 * ball(beta) / ball(c)
    return ball(risk) + 8 * ball(c) * ((2 * gamma + arb(1) / n) * (8 / ball(delta)).log()).sqrt()


def exact_bkz(n, delta, beta, c, risk):
    gamma, order = 2 * ball(beta), -ball(delta).log()
    order = order if order > 2 else arb(2)
    doublings = (n - 1).bit_length()
    inner = 24 * arb(2).sqrt() * gamma * doublings * order + 4 * ball(c) * (order / n).sqrt()
    return ball(risk) + 2 * gamma + E * inner


EXACT = {
    lemma_4_3: exact_lemma,
    uniform_stability_bound: exact_bousquet_elisseeff,
    feldman_vondrak_2018: exact_feldman_vondrak_2018,
    bousquet_klochkov_zhivotovskiy: exact_bkz,
}


@pytest.mark.claim(
    "Lemma 4.3", "Uniform stability bound", "Feldman-Vondrak", "Bousquet-Klochkov-Zhivotovskiy"
)
@pytest.mark.parametrize("bound", EXACT)
@given(n=sizes, delta=deltas, beta=betas, c=ranges, share=shares)
def test_bounds_are_just_above_their_exact_values(bound, n, delta, beta, c, share):
    got = bound(n=n, delta=delta, stability=beta, loss_range=c, empirical_risk=c * share)
    assert_just_above(got.value, EXACT[bound](n, delta, beta, c, c * share))
    assert got.vacuous == (got.value >= c)
    assert got.trivial == c
    assert got.confidence <= 1 - delta
    assert got.direction == "upper"


@pytest.mark.claim("Feldman-Vondrak")
@given(st.integers(2, 10**6), deltas, betas, ranges, shares, st.floats(0.1, 100.0))
def test_feldman_vondrak_2019_is_just_above_its_exact_value(n, delta, beta, c, share, constant):
    got = feldman_vondrak(
        n=n, delta=delta, stability=beta, loss_range=c, empirical_risk=c * share, constant=constant
    )
    gamma, log = 2 * ball(beta), -ball(delta).log()
    stable = gamma * arb(n).log() * (arb(n).log() + log)
    exact = ball(c * share) + ball(constant) * (stable + ball(c) * (log / n).sqrt())
    assert_just_above(got.value, exact)


@pytest.mark.claim("Thm 4.4")
@given(
    sizes,
    deltas,
    st.one_of(st.floats(0.01, 100.0), st.just(1e-200)),
    st.sampled_from([0.0, 1e-300, 0.5]),
    st.sampled_from([1e-300, 0.1, 1e10]),
    st.one_of(shares, st.sampled_from([1e-300, 1 - 1e-16])),
    ranges,
)
def test_theorem_4_4_is_just_above_its_exact_value(n, delta, eta, least, lam, p, c):
    got = theorem_4_4(
        n=n, delta=delta, lipschitz=eta, curvature=least, regularization=lam, dropout=p,
        loss_range=c, empirical_risk=c / 2,
    )  # fmt: skip
    denominator = ball(least) + 2 * ball(lam) * q_of(p)
    if denominator == 0:
        assert got.value == np.inf
        return
    inner = ball(c) ** 2 + 24 * ball(c) * ball(eta) ** 2 / denominator
    assert_just_above(got.value, ball(c / 2) + (inner / (2 * n * ball(delta))).sqrt())


@pytest.mark.claim("Thm 4.4")
@given(sizes, st.floats(0.001, 1.0), st.floats(0.1, 5), st.floats(0, 2), st.floats(0.01, 1))
def test_theorem_4_4_is_lemma_4_3_at_the_paper_s_stability(n, delta, eta, least, p):
    constants = {"lipschitz": eta, "curvature": least, "regularization": 0.7, "dropout": p}
    common = {"n": n, "delta": delta, "loss_range": 2.0, "empirical_risk": 0.25}
    beta = paper_stability(n=n, **constants).value
    expected = lemma_4_3(stability=beta, **common).value
    assert_allclose(theorem_4_4(**constants, **common).value, expected, rtol=1e-12)


@pytest.mark.parametrize("bound", EXACT)
def test_monotone(bound):
    base = {"n": 64, "delta": 0.05, "stability": 0.01, "loss_range": 1.0, "empirical_risk": 0.1}
    value = bound(**base).value
    for name, worse in {
        "delta": 0.04, "stability": 0.02, "loss_range": 1.1, "empirical_risk": 0.2,
    }.items():  # fmt: skip
        assert bound(**{**base, name: worse}).value > value, name
    # At a fixed stability more data can hurt; at one that falls as 1/n it helps.
    fewer = bound(**{**base, "n": 33, "stability": 0.01 * 64 / 33}).value
    assert fewer > value


@pytest.mark.claim("Audit 7", "Audit 7, price of delta", "T2")
def test_theorem_4_4_never_falls_under_its_floor_and_pays_one_over_delta():
    grid = np.logspace(-12, 12, 49)
    got = theorem_4_4(
        n=400, delta=0.02, lipschitz=1.0, curvature=0.0, regularization=grid, dropout=0.5,
        loss_range=1.0, empirical_risk=0.0,
    ).value  # fmt: skip
    assert np.all(np.diff(got) <= 0)
    assert np.all(got >= 0.25)
    assert_allclose(got[-1], 0.25, rtol=1e-6)
    base = {"n": 400, "stability": 0.0, "loss_range": 1.0, "empirical_risk": 0.0}
    ratio = lemma_4_3(**base, delta=1e-8).value / lemma_4_3(**base, delta=1e-4).value
    assert_allclose(ratio, 100.0, rtol=1e-12)
    ratio = uniform_stability_bound(**base, delta=1e-8).value
    assert_allclose(ratio / uniform_stability_bound(**base, delta=1e-4).value, 2**0.5, rtol=1e-12)


@pytest.mark.claim("Audit 7")
@given(st.integers(1, 10**6), st.floats(0.0, 0.9))
def test_least_delta_separates_vacuous_from_useful(n, risk):
    edge = least_delta(n=n, loss_range=1.0, empirical_risk=risk)
    common = {"n": n, "stability": 0.0, "loss_range": 1.0, "empirical_risk": risk}
    assert lemma_4_3(delta=edge * (1 - 1e-9), **common).vacuous
    if edge < 1.0:
        assert not lemma_4_3(delta=min(edge * (1 + 1e-6), 1.0), **common).vacuous
    assert 0.0 < edge <= 1.0


def test_least_delta_without_room():
    assert least_delta(n=100, loss_range=2.0, empirical_risk=2.0) == 1.0
    assert least_delta(n=2, loss_range=2.0, empirical_risk=0.0) == 0.25
    assert least_delta(n=8, loss_range=2.0, empirical_risk=1.0) == 0.25


@pytest.mark.parametrize("bound", EXACT)
def test_limits(bound):
    base = {"n": 1, "delta": 0.5, "stability": 0.0, "loss_range": 1.0, "empirical_risk": 0.0}
    assert bound(**{**base, "delta": 0.0}).value == np.inf
    assert bound(**{**base, "delta": 0.0}).confidence == 1.0
    assert bound(**{**base, "stability": np.inf}).value == np.inf
    assert bound(**{**base, "stability": np.inf, "delta": 1.0}).value == np.inf
    assert np.isfinite(bound(**base).value)
    assert bound(**{**base, "n": [1, 2], "stability": [[0.0], [1.0], [2.0]]}).value.shape == (3, 2)


def test_limits_of_theorem_4_4():
    base = {
        "n": 2, "delta": 0.5, "lipschitz": 1.0, "curvature": 0.0, "regularization": 1.0,
        "dropout": 0.5, "loss_range": 1.0, "empirical_risk": 0.0,
    }  # fmt: skip
    assert theorem_4_4(**{**base, "dropout": 0.0}).value == np.inf
    assert theorem_4_4(**{**base, "regularization": 0.0}).value == np.inf
    assert theorem_4_4(**{**base, "delta": 0.0}).value == np.inf
    floor = theorem_4_4(**{**base, "regularization": np.inf}).value
    assert_allclose(floor, np.sqrt(0.5), rtol=1e-12)
    still = theorem_4_4(**{**base, "lipschitz": 0.0, "dropout": 0.0}).value
    assert_allclose(still, np.sqrt(0.5), rtol=1e-12)
    base["n"] = 10**4
    assert theorem_4_4(**base).unchecked[-1] == "Lipschitz regularised loss"
    assert not theorem_4_4(**base).vacuous


@pytest.mark.claim("Bousquet-Klochkov-Zhivotovskiy")
def test_sharper_bounds_win_where_they_should():
    """With n β = sqrt(n) the classical bound stays put while the sharper ones go to 0."""
    n = 10.0 ** np.arange(4, 13, 2)
    common = {"n": n, "delta": 1e-3, "stability": n**-0.5, "loss_range": 1.0, "empirical_risk": 0}
    classical = uniform_stability_bound(**common).value
    assert classical.min() > 7.0
    assert bousquet_klochkov_zhivotovskiy(**common).value[-1] < 0.1
    assert np.all(np.diff(feldman_vondrak_2018(**common).value) < 0)


@pytest.mark.claim("Uniform stability bound")
@pytest.mark.parametrize("bound", EXACT)
def test_bounds_hold_for_the_mean_of_a_sample(bound):
    """θ = mean of n coin flips, loss (1/2)(z - θ)²: uniform stability 1/(n-1) at the most.

    The gap exceeds a bound in a fraction of the trials that is at most δ, up to Hoeffding's
    deviation at 1e-6.
    """
    rng, n, trials, delta = np.random.default_rng(0), 50, 4000, 0.2
    z = rng.integers(0, 2, size=(trials, n)).astype(float)
    theta = z.mean(axis=1)
    empirical = theta * (1 - theta) / 2
    risk = ((1 - theta) ** 2 + theta**2) / 4
    value = bound(
        n=n, delta=delta, stability=1 / (n - 1), loss_range=0.5, empirical_risk=empirical
    ).value
    failures = np.mean(risk > value)
    assert failures <= delta + np.sqrt(np.log(1e6) / (2 * trials))


GOOD = {"n": 5, "delta": 0.1, "stability": 0.1, "loss_range": 1.0, "empirical_risk": 0.5}


@pytest.mark.parametrize("bound", [*EXACT, feldman_vondrak])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0),
        ("delta", -0.1),
        ("delta", 1.5),
        ("stability", -1.0),
        ("loss_range", 0.0),
        ("empirical_risk", -1.0),
        ("empirical_risk", 1.5),
    ],
)
def test_rejections(bound, name, value):
    extra = {"constant": 1.0} if bound is feldman_vondrak else {}
    with pytest.raises(ValueError, match=f"got {name}={float(value)!r}"):
        bound(**{**GOOD, **extra, name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("lipschitz", -1.0), ("curvature", -2.0), ("regularization", -3.0),
                        ("dropout", 2.0), ("n", 0), ("delta", 2.0), ("loss_range", 0.0)]
)  # fmt: skip
def test_rejections_of_theorem_4_4(name, value):
    good = {
        "n": 5, "delta": 0.1, "lipschitz": 1.0, "curvature": 0.0, "regularization": 1.0,
        "dropout": 0.5, "loss_range": 1.0, "empirical_risk": 0.5,
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"got {name}={float(value)!r}"):
        theorem_4_4(**{**good, name: value})


def test_feldman_vondrak_2019_needs_its_constant_and_two_examples():
    with pytest.raises(TypeError, match="constant"):
        feldman_vondrak(**GOOD)
    with pytest.raises(ValueError, match=r"constant=0\.0"):
        feldman_vondrak(**GOOD, constant=0.0)
    with pytest.raises(ValueError, match=r"n must be in \[2, inf\), got n=1\.0"):
        feldman_vondrak(**{**GOOD, "n": 1}, constant=1.0)
    at_zero = feldman_vondrak(**{**GOOD, "delta": 0.0, "stability": 0.0}, constant=1.0)
    assert at_zero.value == np.inf
    assert "constant" in at_zero.unchecked
