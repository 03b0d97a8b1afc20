"""Ridge: closed-form leave-one-out and expected risks, against brute-force refits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lora_bounds.bounds.sparsity import drop_probability
from lora_bounds.bounds.stability import paper_stability
from lora_bounds.exact.ridge import expected_risks, leave_one_out, population_risk, ridge_fit

ROUTE = 1e-10
seeds = st.integers(0, 10**6)


def sample(seed, n=7, d=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=d)


def refit(x, y, weight, center, divisor):
    """Least squares on an augmented system: no normal equations."""
    rows = np.vstack([x / np.sqrt(divisor), np.sqrt(2 * weight) * np.eye(x.shape[1])])
    right = np.concatenate([(y - x @ center) / np.sqrt(divisor), np.zeros(x.shape[1])])
    return center + np.linalg.lstsq(rows, right, rcond=None)[0]


@pytest.mark.claim("Def 4.1")
@given(seeds, st.floats(0.01, 10), st.floats(0.05, 1))
def test_fit_matches_an_augmented_least_squares(seed, lam, p):
    x, y, center = sample(seed)
    fit = ridge_fit(inputs=x, targets=y, regularization=lam, dropout=p, center=center)
    weight = lam * (1 - (1 - p) ** 2)
    expected = refit(x, y, weight, center, len(x))
    assert_allclose(fit.solution, expected, rtol=1e-8, atol=ROUTE)
    assert_allclose(fit.train_risk, np.mean((y - x @ expected) ** 2) / 2, rtol=1e-8)
    assert_allclose(fit.least_curvature, np.linalg.eigvalsh(x.T @ x / len(x))[0], rtol=1e-8)


@pytest.mark.claim("Def 4.1")
@pytest.mark.parametrize("convention", ["1/n", "1/(n-1)"])
@given(seed=seeds, lam=st.floats(0.01, 10), p=st.floats(0.05, 1))
def test_leave_one_out_matches_refits(convention, seed, lam, p):
    x, y, center = sample(seed)
    n, weight = len(x), lam * (1 - (1 - p) ** 2)
    common = {"inputs": x, "targets": y, "regularization": lam, "dropout": p, "center": center}
    got = leave_one_out(**common, convention=convention)
    full = refit(x, y, weight, center, n)

    def losses(theta, i):
        plain = (y[i] - x[i] @ theta) ** 2 / 2
        return plain, plain + weight * np.sum((theta - center) ** 2)

    changes = []
    for i in range(n):
        keep = np.arange(n) != i
        divisor = n if convention == "1/n" else n - 1
        other = refit(x[keep], y[keep], weight, center, divisor)
        assert_allclose(got.solutions[i], other, rtol=1e-7, atol=1e-9)
        changes.append(np.subtract(losses(other, i), losses(full, i)))
    changes = np.array(changes)
    assert_allclose(got.loss_changes, changes[:, 0], rtol=1e-7, atol=1e-9)
    assert_allclose(got.regularized_changes, changes[:, 1], rtol=1e-7, atol=1e-9)
    assert_allclose(got.hypothesis_stability, np.abs(changes[:, 0]).mean(), rtol=1e-6, atol=1e-9)
    assert_allclose(got.regularized_stability, np.abs(changes[:, 1]).mean(), rtol=1e-6, atol=1e-9)


@pytest.mark.claim("Prop 4.2")
@given(seeds, st.floats(0.05, 5), st.floats(0.1, 1))
def test_prop_4_2_holds_with_the_lipschitz_constant_of_the_segment(seed, lam, p):
    """A quadratic is its own expansion, so the proof of Prop. 4.2 goes through example by example.

    η is the largest slope of the regularised loss between the solutions.
    """
    x, y, center = sample(seed, n=6, d=2)
    weight = lam * drop_probability(dropout=p)
    common = {"inputs": x, "targets": y, "regularization": lam, "dropout": p, "center": center}
    fit, got = ridge_fit(**common), leave_one_out(**common)
    steepest = 0.0
    for i, other in enumerate(got.solutions):
        for theta in (fit.solution, other):
            slope = -(y[i] - x[i] @ theta) * x[i] + 2 * weight * (theta - center)
            steepest = max(steepest, np.linalg.norm(slope))
    bound = paper_stability(
        n=6, lipschitz=steepest, curvature=fit.least_curvature, regularization=lam, dropout=p
    )
    assert got.regularized_stability <= bound.value


@pytest.mark.claim("Audit 9")
@given(seeds, st.floats(0.0, 5), st.floats(0, 1), st.floats(0.0, 3.0))
def test_expected_risks_match_a_sum_over_unit_noise(seed, lam, p, noise):
    """Risks are quadratic in the noise, so ±1 along each axis averages them exactly."""
    x, _, center = sample(seed)
    rng = np.random.default_rng(seed + 1)
    truth, root = rng.normal(size=3), rng.normal(size=(3, 3))
    sigma = root @ root.T
    got = expected_risks(
        inputs=x, truth=truth, second_moment=sigma, noise=noise, regularization=lam, dropout=p,
        center=center,
    )  # fmt: skip
    n = len(x)
    train, test = 0.0, 0.0
    for axis in range(n):
        for sign in (-1.0, 1.0):
            shock = np.zeros(n)
            shock[axis] = sign * noise * np.sqrt(n)
            fit = ridge_fit(
                inputs=x, targets=x @ truth + shock, regularization=lam, dropout=p, center=center
            )
            train += fit.train_risk / (2 * n)
            test += population_risk(
                solution=fit.solution, truth=truth, second_moment=sigma, noise=noise
            ) / (2 * n)
    assert_allclose(got.train, train, rtol=1e-8, atol=1e-9)
    assert_allclose(got.test, test, rtol=1e-8, atol=1e-9)
    assert_allclose(got.gap, test - train, rtol=1e-6, atol=1e-8)


def test_gap_falls_with_p_under_noise_and_turns_up_under_signal():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 6))
    truth = np.ones(6)
    grid = np.linspace(0.0, 1.0, 21)

    def gaps(noise, scale):
        return np.array([
            expected_risks(
                inputs=x, truth=scale * truth, second_moment=np.eye(6), noise=noise,
                regularization=5.0, dropout=p,
            ).gap
            for p in grid
        ])  # fmt: skip

    assert np.all(np.diff(gaps(3.0, 0.1)) < 0)
    assert np.any(np.diff(gaps(0.1, 3.0)) > 0)


def test_limits():
    x, y, _ = sample(0)
    plain = ridge_fit(inputs=x, targets=y, regularization=1.0, dropout=0.0)
    assert_allclose(plain.solution, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-9)
    strong = ridge_fit(inputs=x, targets=y, regularization=1e12, dropout=1.0)
    assert_allclose(strong.solution, 0.0, atol=1e-10)
    two = leave_one_out(
        inputs=[[1.0], [1.0]], targets=[1.0, 3.0], regularization=0.5, dropout=1.0,
        convention="1/(n-1)",
    )  # fmt: skip
    assert_allclose(two.solutions.ravel(), [1.5, 0.5], rtol=1e-12)


def test_conventions_agree_without_penalty():
    x, y, _ = sample(3)
    common = {"inputs": x, "targets": y, "regularization": 1.0, "dropout": 0.0}
    kept = leave_one_out(**common, convention="1/n")
    renormalised = leave_one_out(**common, convention="1/(n-1)")
    assert_allclose(kept.solutions, renormalised.solutions, rtol=1e-12)


GOOD = {"inputs": [[1.0], [2.0]], "targets": [1.0, 2.0], "regularization": 1.0, "dropout": 0.5}
RISK = {"truth": [1.0], "second_moment": [[1.0]], "noise": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ridge_fit(**{**GOOD, "inputs": [1.0]}), "inputs must be a matrix"),
        (lambda: ridge_fit(**{**GOOD, "targets": [1.0]}), "targets must have 2 entries"),
        (lambda: ridge_fit(**GOOD, center=[1.0, 2.0]), "center must have 1 entries"),
        (lambda: ridge_fit(**{**GOOD, "regularization": np.inf}), "regularization=inf"),
        (lambda: ridge_fit(**{**GOOD, "dropout": 1.5}), r"dropout=1\.5"),
        (
            lambda: ridge_fit(
                **{**GOOD, "inputs": [[1.0, 1.0], [1.0, 1.0]], "regularization": 0.0}
            ),
            "deficient rank",
        ),
        (lambda: leave_one_out(**GOOD, convention="n"), "convention='n'"),
        (
            lambda: leave_one_out(**{**GOOD, "inputs": [[1.0]], "targets": [1.0]}),
            "at least 2 examples, got inputs of 1",
        ),
        (
            lambda: leave_one_out(**{**GOOD, "inputs": [[1.0, 0.0], [0.0, 1.0]], "dropout": 0.0}),
            "leverage",
        ),
        (lambda: population_risk(solution=[1.0, 2.0], **RISK), "solution must have 1 entries"),
        (lambda: population_risk(solution=[1.0], **{**RISK, "noise": -1.0}), r"noise=-1\.0"),
        (
            lambda: expected_risks(inputs=[[1.0, 2.0]], **RISK, regularization=1.0, dropout=0.5),
            "inputs must have 1 columns",
        ),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_refit_that_is_singular_is_refused_at_any_condition():
    """Three examples in three dimensions: without one of them there is no unique minimiser."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for condition in (1.0, 1e2, 1e4, 1e6):
        x = basis * np.array([1.0, 1.0, 1.0 / condition])
        with pytest.raises(ValueError, match=r"unique minimiser, .* got inputs with an example"):
            leave_one_out(inputs=x, targets=np.ones(3), regularization=0.0, dropout=0.5)
