"""Lemma A.1, Prop. 4.2 and their repair, against balls and brute-force refits."""

import numpy as np
import pytest
from flint import arb
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lora_bounds.bounds.stability import (
    lemma_a1,
    paper_stability,
    self_consistent_lipschitz,
    self_consistent_stability,
    uniform_stability,
)
from lora_bounds.exact.logistic import leave_one_out_fits, logistic_fit, logistic_loss
from tests.lora_bounds.balls import assert_just_above, ball, q_of

sizes = st.one_of(st.integers(1, 50), st.just(10**12))
scales = st.one_of(st.floats(1e-3, 1e3), st.sampled_from([1e-300, 1e-160, 1e150]))
rates = st.one_of(st.floats(0.0, 1.0), st.sampled_from([1e-300, 1e-17, 1 - 1e-16]))
curvatures = st.one_of(st.just(0.0), st.just(1e-300), st.floats(1e-3, 1e3))


def exact_prop_4_2(n, eta, least, lam, p):
    denominator = (ball(least) + 2 * ball(lam) * q_of(p)) * n
    return arb("inf") if denominator == 0 else 2 * ball(eta) ** 2 / denominator


@pytest.mark.claim("Prop 4.2")
@given(sizes, scales, curvatures, scales, rates)
def test_prop_4_2_is_just_above_its_exact_value(n, eta, least, lam, p):
    got = paper_stability(n=n, lipschitz=eta, curvature=least, regularization=lam, dropout=p)
    assert_just_above(got.value, exact_prop_4_2(n, eta, least, lam, p))
    assert (got.direction, got.confidence) == ("upper", 1.0)


@pytest.mark.claim("Lemma A.1")
@given(sizes, scales, curvatures, scales)
def test_lemma_a1_is_prop_4_2_at_full_dropout(n, eta, least, lam):
    common = {"n": n, "lipschitz": eta, "curvature": least, "regularization": lam}
    plain, full = lemma_a1(**common).value, paper_stability(**common, dropout=1.0).value
    assert_just_above(plain, exact_prop_4_2(n, eta, least, lam, 1.0))
    assert_allclose(plain, full, rtol=1e-12)


@pytest.mark.claim("Prop 4.2, self-consistent")
@given(sizes, scales, curvatures, scales, rates)
def test_self_consistent_is_four_times_the_naive_reading(n, rho, least, lam, p):
    common = {"n": n, "curvature": least, "regularization": lam, "dropout": p}
    got = self_consistent_stability(**common, lipschitz=rho).value
    factor = 1 if p == 0.0 else 4
    assert_just_above(got, factor * exact_prop_4_2(n, rho, least, lam, p))


@pytest.mark.claim("Audit 5")
@given(sizes, scales, scales, rates, st.sampled_from(["1/n", "1/(n-1)"]))
def test_uniform_stability_is_just_above_its_exact_value(n, rho, lam, p, convention):
    got = uniform_stability(
        n=n, lipschitz=rho, regularization=lam, dropout=p, convention=convention
    )
    weight = 2 * ball(lam) * q_of(p) * n
    exact = arb("inf") if weight == 0 else ball(rho) ** 2 / weight
    assert_just_above(got.value, exact * (1 if convention == "1/n" else 2))


def test_smaller_constant_than_prop_4_2_without_curvature():
    common = {"n": 10, "lipschitz": 1.5, "regularization": 0.3, "dropout": 0.4}
    ratio = uniform_stability(**common).value / paper_stability(**common, curvature=0.0).value
    assert_allclose(ratio, 0.5, rtol=1e-12)


@pytest.mark.claim("Audit 3")
def test_lipschitz_constant_on_a_ball_and_at_the_optimum():
    common = {"lipschitz": 2.0, "regularization": 1.0}
    assert self_consistent_lipschitz(**common, dropout=0.5) == 4.0
    assert self_consistent_lipschitz(**common, dropout=0.5, radius=0.5) == 2.75
    assert self_consistent_lipschitz(**common, dropout=0.5, radius=0.0) == 2.0
    assert self_consistent_lipschitz(**common, dropout=0.0) == 2.0
    assert self_consistent_lipschitz(lipschitz=1.0, regularization=np.inf, dropout=1.0) == 2.0


@pytest.mark.claim("Prop 4.2, self-consistent")
def test_smaller_radius_gives_a_smaller_bound():
    common = {"n": 7, "lipschitz": 2.0, "curvature": 0.1, "regularization": 1.0, "dropout": 0.5}
    near = self_consistent_stability(**common, radius=0.5).value
    assert_just_above(near, exact_prop_4_2(7, 2.75, 0.1, 1.0, 0.5))
    assert near < self_consistent_stability(**common).value


@pytest.mark.claim("Prop 4.2, monotone")
@pytest.mark.parametrize("bound", [paper_stability, self_consistent_stability, uniform_stability])
def test_monotone_in_every_argument(bound):
    base = {"n": 10, "lipschitz": 1.0, "regularization": 0.5, "dropout": 0.3}
    if bound is not uniform_stability:
        base["curvature"] = 0.2
    value = bound(**base).value
    for name, larger in {"n": 11, "regularization": 0.6, "dropout": 0.4, "curvature": 0.3}.items():
        if name in base:
            assert bound(**{**base, name: larger}).value < value
    assert bound(**{**base, "lipschitz": 1.1}).value > value


def test_limits():
    flat = {"n": 5, "lipschitz": 1.0, "curvature": 0.0}
    assert paper_stability(**flat, regularization=0.0, dropout=0.5).value == np.inf
    assert paper_stability(**flat, regularization=1.0, dropout=0.0).value == np.inf
    assert paper_stability(**flat, regularization=1.0, dropout=0.0).vacuous
    assert paper_stability(**flat, regularization=np.inf, dropout=0.5).value == 0.0
    assert paper_stability(**flat, regularization=np.inf, dropout=0.0).value == np.inf
    assert lemma_a1(**flat, regularization=np.inf).value == 0.0
    still = {"n": 1, "lipschitz": 0.0, "regularization": 0.0, "dropout": 0.0}
    assert paper_stability(**still, curvature=0.0).value == 0.0
    assert uniform_stability(**still).value == 0.0
    assert uniform_stability(n=1, lipschitz=1.0, regularization=1.0, dropout=0.0).value == np.inf
    assert uniform_stability(n=1, lipschitz=1.0, regularization=np.inf, dropout=0.1).value == 0.0


def test_underflow_of_a_positive_bound_is_not_taken_for_zero():
    tiny = uniform_stability(n=10**12, lipschitz=1e-200, regularization=1.0, dropout=1.0)
    assert tiny.value > 0.0
    tiny = paper_stability(
        n=10**12, lipschitz=1e-300, curvature=1.0, regularization=1e300, dropout=1.0
    )
    assert tiny.value > 0.0


@pytest.mark.claim("Audit 5")
@pytest.mark.parametrize("convention", ["1/n", "1/(n-1)"])
@pytest.mark.parametrize("lam", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_uniform_stability_holds_for_refits_of_logistic_regression(n, lam, convention):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 2))
    x /= np.linalg.norm(x, axis=1, keepdims=True)  # so the loss is 1-Lipschitz
    y = rng.choice([-1.0, 1.0], size=n)
    fit = logistic_fit(inputs=x, labels=y, regularization=lam, dropout=0.5)
    others = leave_one_out_fits(
        inputs=x, labels=y, regularization=lam, dropout=0.5, convention=convention
    )
    bound = uniform_stability(
        n=n, lipschitz=1.0, regularization=lam, dropout=0.5, convention=convention
    ).value
    angles = np.linspace(0, 2 * np.pi, 60)
    probes = np.column_stack([np.cos(angles), np.sin(angles)])
    for other in others:
        for label in (-np.ones(60), np.ones(60)):
            before = logistic_loss(inputs=probes, labels=label, solution=fit.solution)
            after = logistic_loss(inputs=probes, labels=label, solution=other.solution)
            assert np.abs(after - before).max() <= bound


def test_assumptions_are_named():
    result = paper_stability(n=5, lipschitz=1, curvature=1, regularization=1, dropout=0.5)
    assert result.unchecked == (
        "minimisers",
        "close solutions",
        "positive semidefinite Hessian",
        "curvature along the segment",
        "Lipschitz regularised loss",
    )
    result = uniform_stability(n=5, lipschitz=1, regularization=1, dropout=0.5)
    assert result.unchecked == ("minimisers", "convex loss", "Lipschitz loss")
    assert "Theorem 22" in result.source


GOOD = {"n": 5, "lipschitz": 1.0, "curvature": 1.0, "regularization": 1.0, "dropout": 0.5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0),
        ("n", 2.5),
        ("lipschitz", -1.0),
        ("lipschitz", np.inf),
        ("curvature", -1.0),
        ("regularization", -1.0),
        ("dropout", 1.1),
        ("radius", -1.0),
    ],
)
def test_rejections(name, value):
    with pytest.raises(ValueError, match=f"{name}={float(value)!r}"):
        self_consistent_stability(**{**GOOD, name: value})
    if name == "radius":
        return
    with pytest.raises(ValueError, match=f"{name}={float(value)!r}"):
        paper_stability(**{**GOOD, name: value})
    plain = {key: item for key, item in {**GOOD, name: value}.items() if key != "dropout"}
    if name != "dropout":
        with pytest.raises(ValueError, match=f"{name}={float(value)!r}"):
            lemma_a1(**plain)
    if name != "curvature":
        uniform = {key: item for key, item in {**GOOD, name: value}.items() if key != "curvature"}
        with pytest.raises(ValueError, match=f"{name}={float(value)!r}"):
            uniform_stability(**uniform)


def test_convention_is_checked():
    with pytest.raises(ValueError, match="convention='1/m'"):
        uniform_stability(n=5, lipschitz=1, regularization=1, dropout=0.5, convention="1/m")


def test_a_subnormal_denominator_stays_on_the_safe_side():
    """sqrt(2 λ q) = 4e-312 has 12 digits only; Prop. 4.2 and Thm 4.4 once fell below the truth."""
    tiny = {"lipschitz": 1e-160, "regularization": 1e-300, "dropout": 5e-324}
    exact = exact_prop_4_2(1, 1e-160, 0.0, 1e-300, 5e-324)
    got = paper_stability(n=1, curvature=0.0, **tiny).value
    assert_just_above(got, exact, slack=1e-10)
    assert exact / 4 <= ball(uniform_stability(n=1, **tiny).value)
