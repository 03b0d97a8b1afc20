"""Logistic regression: the solver against mpmath and a generic optimiser, refits against fits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from lora_bounds.logistic import leave_one_out_fits, logistic_fit, logistic_loss


def sample(seed, n=8, d=2, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(n, d)), rng.choice([-1.0, 1.0], size=n)


@given(st.integers(0, 10**6), st.floats(1e-6, 100), st.sampled_from([0.1, 1.0, 30.0]))
def test_gradient_vanishes(seed, lam, scale):
    x, y = sample(seed, scale=scale)
    fit = logistic_fit(inputs=x, labels=y, regularization=lam, dropout=0.5, center=[0.5, -1.0])
    size = max(1.0, np.linalg.norm(x, axis=1).max())
    assert fit.gradient_norm <= 1e-12 * size
    wrong = 1 / (1 + np.exp(y * (x @ fit.solution)))
    gradient = -x.T @ (y * wrong) / 8 + 2 * 0.75 * lam * (fit.solution - np.array([0.5, -1.0]))
    assert np.linalg.norm(gradient) <= 1e-11 * max(size, lam)


def test_solution_in_one_dimension_to_many_digits():
    fit = logistic_fit(inputs=[[1.0], [2.0]], labels=[1.0, -1.0], regularization=0.3, dropout=0.5)
    with mp.workdps(40):

        def slope(t):
            return (-1 / (1 + mp.exp(t)) + 2 / (1 + mp.exp(-2 * t))) / 2 + 0.45 * t

        root = mp.findroot(slope, -0.5)
        assert_allclose(fit.solution[0], float(root), rtol=1e-11)
        curvature = sum(c**2 * mp.exp(c * root) / (1 + mp.exp(c * root)) ** 2 for c in (1, 2)) / 2
        assert_allclose(fit.least_curvature, float(curvature), rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_generic_optimiser(seed):
    x, y = sample(seed)
    fit = logistic_fit(inputs=x, labels=y, regularization=0.1, dropout=1.0)
    found = minimize(
        lambda t: np.mean(np.log1p(np.exp(-y * (x @ t)))) + 0.1 * t @ t, np.zeros(2),
        options={"gtol": 1e-10},
    )  # fmt: skip
    assert_allclose(fit.solution, found.x, atol=1e-6)


@pytest.mark.parametrize("convention", ["1/n", "1/(n-1)"])
def test_leave_one_out_solves_the_smaller_problem(convention):
    x, y = sample(7, n=5)
    fits = leave_one_out_fits(
        inputs=x, labels=y, regularization=0.2, dropout=0.5, convention=convention
    )
    assert len(fits) == 5
    for i, fit in enumerate(fits):
        keep = np.arange(5) != i
        # The factor 1/n over n - 1 examples is the factor 1/(n-1) with λ n/(n-1).
        lam = 0.2 * 5 / 4 if convention == "1/n" else 0.2
        direct = logistic_fit(inputs=x[keep], labels=y[keep], regularization=lam, dropout=0.5)
        assert_allclose(fit.solution, direct.solution, atol=1e-10)


def test_one_example_leaves_the_center():
    for convention in ("1/n", "1/(n-1)"):
        (fit,) = leave_one_out_fits(
            inputs=[[1.0, 2.0]], labels=[1.0], regularization=1.0, dropout=0.5,
            center=[3.0, 4.0], convention=convention,
        )  # fmt: skip
        assert fit.solution.tolist() == [3.0, 4.0]
        assert fit.least_curvature == 0.0


def test_loss_does_not_overflow():
    got = logistic_loss(inputs=[[1e4], [1.0]], labels=[-1.0, 1.0], solution=[1.0])
    assert_allclose(got, [1e4, np.log1p(np.exp(-1.0))], rtol=1e-12)


GOOD = {"inputs": [[1.0]], "labels": [1.0], "regularization": 1.0, "dropout": 0.5}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("inputs", [1.0], "inputs must be a matrix"),
        ("labels", [0.0], "labels must be -1 or 1"),
        ("labels", [1.0, 1.0], "labels must have 1 entries"),
        ("regularization", 0.0, r"regularization=0\.0"),
        ("regularization", np.inf, "regularization=inf"),
        ("dropout", 0.0, r"dropout must be in \(0, 1\], got dropout=0\.0"),
        ("center", [1.0, 2.0], "center must have 1 entries"),
    ],
)
def test_rejections(name, value, message):
    for call in (logistic_fit, leave_one_out_fits):
        with pytest.raises(ValueError, match=message):
            call(**{**GOOD, name: value})


def test_more_rejections():
    with pytest.raises(ValueError, match="convention='n'"):
        leave_one_out_fits(**GOOD, convention="n")
    with pytest.raises(ValueError, match="solution must have 1 entries"):
        logistic_loss(inputs=[[1.0]], labels=[1.0], solution=[1.0, 2.0])
    # At 1e200 the Hessian overflows, and the failure is loud.
    with pytest.raises(ArithmeticError, match="gradient norm"), np.errstate(all="ignore"):
        logistic_fit(**{**GOOD, "inputs": [[1e200]]})
