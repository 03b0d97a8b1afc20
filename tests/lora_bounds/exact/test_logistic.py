"""Logistic regression: the solver against mpmath and a generic optimiser, refits against fits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from lora_bounds.exact import logistic
from lora_bounds.exact.logistic import leave_one_out_fits, logistic_fit, logistic_loss


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


@pytest.mark.claim("Audit 4")
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


@pytest.mark.claim("Audit 5")
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
    for setting in ({"regularization": 1e-300, "dropout": 1e-10}, {"regularization": 1e-310}):
        for call in (logistic_fit, leave_one_out_fits):
            with pytest.raises(ArithmeticError, match="regularization times q must be at least"):
                call(**{**GOOD, **setting})


def test_steps_that_do_not_reach_the_minimiser_are_an_error(monkeypatch):
    monkeypatch.setattr(logistic, "_MOST_STEPS", 1)
    with pytest.raises(ArithmeticError, match="Newton's method stopped within"):
        logistic_fit(**{**GOOD, "regularization": 1e-9})


def root_in_one_dimension(x, y, weight, center):
    """The zero of the slope by bisection, to 22 digits."""

    def slope(t):
        loss = sum(
            -b * mp.mpf(a) / (1 + mp.exp(b * mp.mpf(a) * t)) for a, b in zip(x, y, strict=True)
        )
        return loss / len(x) + 2 * mp.mpf(weight) * (t - center)

    span = min(max(abs(a) for a in x) / (2 * mp.mpf(weight)), mp.mpf(10) ** 8)
    low, high = center - span, center + span
    while high - low > mp.mpf(10) ** -22 * abs(low + high):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2


SIGNS = {"separable": ([3.0, -0.5], [1.0, -1.0]), "overlapping": ([1.0, 2.0], [1.0, -1.0])}


@pytest.mark.parametrize("kind", SIGNS)
@pytest.mark.parametrize("center", [0.0, -50.0, 1e6, -1e6])
@pytest.mark.parametrize("weight", [1e-300, 1e-150, 1e-18, 1e-13, 1e-6, 1.0, 1e12, 1e150, 1e300])
def test_every_weight_and_center_in_one_dimension(kind, center, weight):
    x, y = SIGNS[kind]
    fit = logistic_fit(
        inputs=np.array(x)[:, None], labels=y, regularization=weight, dropout=1.0, center=[center]
    )
    with mp.workdps(330):
        want = root_in_one_dimension(x, y, weight, center)
        assert abs(mp.mpf(fit.solution[0]) / want - 1) < 1e-13


def test_the_gradient_does_not_stop_the_search():
    """Its norm is 1e-12 at 454653 already; exp(-θ)/(1 + exp(-θ)) = 2e-18 (θ + 50) at 36.3."""
    fit = logistic_fit(
        inputs=[[1.0]], labels=[1.0], regularization=1e-18, dropout=1.0, center=[-50.0]
    )
    theta = fit.solution[0]
    assert theta == pytest.approx(-np.log(2e-18 * (theta + 50.0)), rel=1e-13)
    assert theta == pytest.approx(36.3, abs=0.05)


def check_certified(fit, x, y, weight, divisor, center, moved=1e-11):
    """Polish the fit by Newton steps in 700 digits: near by, and within ‖gradient‖/(2 weight)."""
    with mp.workdps(700):
        signed, about = mp.matrix((y[:, None] * x).tolist()), mp.matrix(list(center))
        theta = mp.matrix(fit.solution.tolist())
        for _ in range(7):
            wrong = [1 / (1 + mp.exp(margin)) for margin in signed * theta]
            gradient = 2 * mp.mpf(weight) * (theta - about) - signed.T * mp.matrix(wrong) / divisor
            scaled = mp.diag([a * (1 - a) / divisor for a in wrong]) * signed
            hessian = signed.T * scaled + 2 * mp.mpf(weight) * mp.eye(len(theta))
            theta -= mp.lu_solve(hessian, gradient)
        size = max(mp.norm(theta), 1 / np.linalg.norm(x, axis=1).max())
        assert mp.norm(gradient) / (2 * mp.mpf(weight)) <= 1e-20 * size
        assert mp.norm(theta - mp.matrix(fit.solution.tolist())) <= moved * size


@pytest.mark.parametrize("center", [0.0, 50.0, 1e6])
@pytest.mark.parametrize("weight", [1e-300, 1e-100, 1e-14, 1e-3, 1e5, 1e100, 1e300])
@pytest.mark.parametrize("kind", ["separable", "overlapping"])
def test_every_weight_and_center_in_three_dimensions(kind, weight, center):
    rng = np.random.default_rng(3)
    x, about = rng.normal(size=(9, 3)), center * rng.normal(size=3)
    y = np.sign(x @ rng.normal(size=3)) if kind == "separable" else np.tile([1.0, -1.0, 1.0], 3)
    fit = logistic_fit(inputs=x, labels=y, regularization=weight, dropout=1.0, center=about)
    check_certified(fit, x, y, weight, 9, about)


@pytest.mark.parametrize("weight", [1e-80, 1e-18])
def test_what_double_precision_cannot_resolve_gets_more_digits(weight):
    """Two labels of one input, and the rest parted across it: one direction bent by 1e-16 alone."""
    x = np.array([[1.0, 0.1], [1.0, 0.1], [0.3, 1.0], [0.2, -1.0]])
    y = np.array([1.0, -1.0, 1.0, -1.0])
    fit = logistic_fit(inputs=x, labels=y, regularization=weight, dropout=1.0)
    check_certified(fit, x, y, weight, 4, np.zeros(2), moved=1e-15)
    wrong = 1 / (1 + np.exp(y * (x @ fit.solution)))
    curvature = (x.T * wrong * (1 - wrong)) @ x / 4
    assert fit.least_curvature == pytest.approx(0.0, abs=1e-15)
    assert np.linalg.eigvalsh(curvature)[0] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("convention", ["1/n", "1/(n-1)"])
def test_leave_one_out_at_a_small_weight_and_a_far_center(convention):
    x, y = sample(7, n=5)
    center = np.array([-50.0, 1e4])
    fits = leave_one_out_fits(
        inputs=x, labels=y, regularization=1e-18, dropout=1.0, center=center, convention=convention
    )
    for i, fit in enumerate(fits):
        keep = np.arange(5) != i
        check_certified(fit, x[keep], y[keep], 1e-18, 5 if convention == "1/n" else 4, center)


def test_inputs_whose_squares_overflow():
    """w = exp(-margin) 1e200/(2 0.75) and margin = 1e200 w, so that margin is near 914."""
    fit = logistic_fit(**{**GOOD, "inputs": [[1e200]]})
    with mp.workdps(30):
        margin = mp.findroot(lambda m: m + mp.log(m) - mp.log(mp.mpf("1e400") / 1.5), 914)
        assert fit.solution[0] == pytest.approx(float(margin / mp.mpf("1e200")), rel=1e-13)
        curvature = mp.exp(-margin) * mp.mpf("1e400")
        assert fit.least_curvature == pytest.approx(float(curvature), rel=1e-9)
