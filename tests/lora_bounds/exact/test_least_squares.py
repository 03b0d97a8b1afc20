"""Ridge at every condition number, against rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from flint import fmpq, fmpq_mat
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lora_bounds.bounds.sparsity import penalty_weight
from lora_bounds.exact.ridge import expected_risks, leave_one_out, ridge_fit
from lora_bounds.problems import make_regression


def rational(array):
    pairs = [[Fraction(float(v)).as_integer_ratio() for v in row] for row in np.atleast_2d(array)]
    return fmpq_mat(len(pairs), len(pairs[0]), [fmpq(*pair) for row in pairs for pair in row])


def exact_fit(x, c, ridge):
    """The move that minimises ‖c - X m‖² + ridge ‖m‖²; all rational."""
    gram = x.transpose() * x
    for i in range(gram.nrows()):
        gram[i, i] += ridge
    return gram.solve(x.transpose() * c)


def exact_leave_one_out(x, y, start, weight, divisor):
    """Solutions, changes of loss and of the regularised loss: refits over the rationals."""
    n = len(y)
    rows, w = rational(x), fmpq(*Fraction(weight).as_integer_ratio())
    c = rational(y[:, None]) - rows * rational(start[:, None])
    full, found = exact_fit(rows, c, 2 * n * w), []
    square = sum((v**2 for v in full.entries()), fmpq(0))
    for i in range(n):
        keep = [j for j in range(n) if j != i]
        other = fmpq_mat(n - 1, x.shape[1], [rows[j, k] for j in keep for k in range(x.shape[1])])
        move = exact_fit(other, fmpq_mat(n - 1, 1, [c[j, 0] for j in keep]), 2 * divisor * w)
        before, after = (c[i, 0] - (rows * m)[i, 0] for m in (full, move))
        loss = (after**2 - before**2) / 2
        grown = loss + w * (sum((v**2 for v in move.entries()), fmpq(0)) - square)
        found.append([move.entries(), loss, grown])
    floats = [[float(Fraction(int(v.p), int(v.q))) for v in move] for move, *_ in found]
    changes = np.array([[float(Fraction(int(v.p), int(v.q))) for v in pair] for _, *pair in found])
    return start + np.array(floats), changes[:, 0], changes[:, 1]


@st.composite
def problems(draw):
    """Any shape (wide ones too), condition, duplicates, tiny and large penalties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(2, 9)), draw(st.integers(1, 5))
    small = min(n, d)
    values = 10.0 ** -np.linspace(0, draw(st.floats(0, 13)) if small > 1 else 0, small)
    left, right = (np.linalg.qr(rng.standard_normal((k, small)))[0] for k in (n, d))
    x = (left * values) @ right.T * 10.0 ** draw(st.integers(-3, 3))
    kind = draw(st.sampled_from(["as it is", "column twice", "row twice", "zero column"]))
    if kind == "column twice" and d > 1:
        x[:, 1] = x[:, 0]
    if kind == "row twice":
        x[1] = x[0]
    if kind == "zero column":
        x[:, 0] = 0.0
    lam = draw(st.one_of(st.floats(1e-3, 1e3), st.sampled_from([1e-300, 1e-30, 1e-12, 1e12])))
    plain = kind == "as it is" and n > d and draw(st.booleans())
    return x, rng.standard_normal(n), rng.standard_normal(d), 0.0 if plain else lam


@given(problems(), st.sampled_from(["1/n", "1/(n-1)"]))
def test_ridge_agrees_with_rational_arithmetic(problem, convention):
    x, y, start, lam = problem
    given_ = {"inputs": x, "targets": y, "regularization": lam, "dropout": 0.5, "center": start}
    weight = float(penalty_weight(dropout=0.5, regularization=lam))
    n = len(y)
    divisor = n if convention == "1/n" else n - 1
    fit, got = ridge_fit(**given_), leave_one_out(**given_, convention=convention)
    rows, ridge = rational(x), 2 * n * fmpq(*Fraction(weight).as_integer_ratio())
    move = exact_fit(rows, rational(y[:, None]) - rows * rational(start[:, None]), ridge)
    want = start + [float(Fraction(int(v.p), int(v.q))) for v in move.entries()]
    scale = max(1.0, np.abs(want).max())
    assert_allclose(fit.solution, want, rtol=1e-9, atol=1e-10 * scale)
    solutions, changes, regularized = exact_leave_one_out(x, y, start, weight, divisor)
    scale = np.abs(solutions).max(axis=1, keepdims=True)
    assert np.all(np.abs(got.solutions - solutions) <= 1e-9 * scale)
    for mine, true in ((got.loss_changes, changes), (got.regularized_changes, regularized)):
        assert_allclose(mine, true, rtol=1e-8, atol=1e-10 * np.abs(true).max())
    assert got.hypothesis_stability == pytest.approx(np.abs(changes).mean(), rel=1e-8)


def test_the_stability_of_an_ill_conditioned_regression():
    problem = make_regression(n=3, d=2, condition_number=5e5, noise=1.0, seed=0)
    given_ = {"inputs": problem.inputs, "targets": problem.targets}
    got = leave_one_out(**given_, regularization=1.0, dropout=0.0)
    assert got.hypothesis_stability == pytest.approx(176.3435, abs=5e-5)


def test_no_well_posed_problem_is_refused():
    rng = np.random.default_rng(0)
    for seed in range(60):
        d = int(rng.integers(2, 5))
        n = int(rng.integers(d + 1, 12))
        condition = 10 ** rng.uniform(4, 12)
        problem = make_regression(n=n, d=d, condition_number=condition, noise=1.0, seed=seed)
        got = leave_one_out(
            inputs=problem.inputs, targets=problem.targets, regularization=1.0, dropout=0.0
        )
        assert np.isfinite(got.hypothesis_stability)


@given(problems())
def test_expected_risks_of_a_fit_without_noise_are_its_bias(problem):
    x, _, start, lam = problem
    truth, d = np.ones(x.shape[1]), x.shape[1]
    got = expected_risks(
        inputs=x, truth=truth, second_moment=np.eye(d), noise=0.0, regularization=lam,
        dropout=0.5, center=start,
    )  # fmt: skip
    weight = float(penalty_weight(dropout=0.5, regularization=lam))
    rows, ridge = rational(x), 2 * len(x) * fmpq(*Fraction(weight).as_integer_ratio())
    away = rational(truth[:, None]) - rational(start[:, None])
    error = (exact_fit(rows, rows * away, ridge) - away).entries()
    square = sum((v**2 for v in error), fmpq(0)) / 2
    assert got.test == pytest.approx(float(Fraction(int(square.p), int(square.q))), rel=1e-8)


def test_one_example():
    got = ridge_fit(inputs=[[3.0]], targets=[6.0], regularization=0.0, dropout=0.5)
    assert_allclose(got.solution, 2.0, rtol=1e-15)
    tiny = ridge_fit(inputs=[[3.0, 4.0]], targets=[25.0], regularization=1e-300, dropout=1.0)
    assert_allclose(tiny.solution, [3.0, 4.0], rtol=1e-14)
    units = ridge_fit(
        inputs=[[1.0, 2e-200], [1.0, 1e-200]], targets=[3.0, 2.0], regularization=0.0, dropout=0.5
    )
    assert_allclose(units.solution, [1.0, 1e200], rtol=1e-13)
