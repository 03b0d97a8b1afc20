"""The linear layer against enumeration of all masks and against descent on the objective."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from lora_bounds.bounds.sparsity import MASK_LAWS, drop_probability, induced_regularizer
from lora_bounds.exact.linear import (
    effective_moment,
    mask_variance,
    masked_objective,
    mean_factor,
    minimizer,
    trained_update,
)

ROUTE = 1e-10
seeds = st.integers(0, 10**6)
rates = st.floats(0.02, 0.95)
QUADRATIC = ["row_column", "activation", "entrywise", "none"]


def bits(size, keep):
    for draw in product((0.0, 1.0), repeat=size):
        yield np.array(draw), np.prod([keep if bit else 1.0 - keep for bit in draw])


def masked_updates(law, b, a, p):
    """Every masked update with its probability; the masks act on the factors themselves."""
    k, (rows, rank), columns = 1.0 - p, b.shape, a.shape[1]
    if law == "row_column":
        for (m_b, w_b), (m_a, w_a) in product(bits(rows, k), bits(columns, k)):
            yield (np.diag(m_b) @ b) @ (a @ np.diag(m_a)), w_b * w_a
    elif law == "activation":
        for m, w in bits(columns, k):
            yield b @ a @ np.diag(m / k), w
    elif law == "rank":
        for m, w in bits(rank, k):
            yield b @ np.diag(m) @ a, w
    elif law == "entrywise":
        for m, w in bits(rows * columns, k):
            yield m.reshape(rows, columns) * (b @ a), w
    else:
        yield b @ a, 1.0


def problem(seed, outputs=2, rank=2, inputs=3):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(inputs, inputs + 1))
    return {
        "b": rng.normal(size=(outputs, rank)),
        "a": rng.normal(size=(rank, inputs)),
        "second_moment": root @ root.T,
        "cross_moment": rng.normal(size=(outputs, inputs)),
    }


@pytest.mark.claim(
    "Linear layer, LoRA Dropout",
    "Linear layer, activation dropout",
    "Linear layer, rank masks",
    "Linear layer, entrywise masks",
    "Linear layer, objective",
    "Linear layer, free ensemble",
)
@pytest.mark.parametrize("law", MASK_LAWS)
@given(seed=seeds, p=rates)
def test_moments_and_objective_match_enumeration(law, seed, p):
    data = problem(seed)
    b, a, sigma, g = data.values()
    masks = list(masked_updates(law, b, a, p))
    mean = sum(w * update for update, w in masks)
    assert_allclose(mean, mean_factor(law=law, dropout=p) * b @ a, atol=1e-10)
    variance = sum(w * np.trace((u - mean) @ sigma @ (u - mean).T) for u, w in masks)
    got = mask_variance(law=law, b=b, a=a, second_moment=sigma, dropout=p)
    assert_allclose(got, variance, rtol=1e-9, atol=1e-9)
    loss = sum(w * (7.0 - 2 * np.sum(u * g) + np.trace(u @ sigma @ u.T)) / 2 for u, w in masks)
    objective = masked_objective(law=law, **data, target_moment=7.0, dropout=p)
    assert_allclose(objective, loss, rtol=1e-9, atol=1e-9)


def random_value(law, update, data, p):
    factor = mean_factor(law=law, dropout=p)
    return masked_objective(
        law=law, b=update / factor, a=np.eye(3), second_moment=data["second_moment"],
        cross_moment=data["cross_moment"], target_moment=50.0, dropout=p,
    )  # fmt: skip


@pytest.mark.claim("Linear layer, minimiser")
@pytest.mark.parametrize("law", QUADRATIC)
@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
def test_full_rank_minimizer_beats_descent(law, p):
    data = problem(3)
    best = minimizer(
        law=law, second_moment=data["second_moment"], cross_moment=data["cross_moment"], dropout=p
    )
    found = minimize(
        lambda v: random_value(law, v.reshape(2, 3), data, p), np.zeros(6), options={"gtol": 1e-9}
    )
    assert_allclose(best, found.x.reshape(2, 3), atol=1e-5)
    assert random_value(law, best, data, p) <= found.fun + ROUTE


@pytest.mark.claim("Linear layer, minimiser")
@pytest.mark.parametrize("law", QUADRATIC)
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_rank_one_minimizer_beats_descent_from_many_starts(law, p):
    data = problem(5)
    best = minimizer(
        law=law, second_moment=data["second_moment"], cross_moment=data["cross_moment"],
        dropout=p, rank=1,
    )  # fmt: skip
    assert np.linalg.matrix_rank(best, tol=1e-9) == 1
    value = random_value(law, best, data, p)

    def objective(v):
        return random_value(law, np.outer(v[:2], v[2:]), data, p)

    rng = np.random.default_rng(0)
    found = [minimize(objective, rng.normal(size=5)).fun for _ in range(8)]
    assert value <= min(found) + 1e-9
    assert_allclose(value, min(found), rtol=1e-6)


@pytest.mark.claim("Linear layer, raw update")
@given(seeds, rates)
def test_trained_update_solves_the_normal_equations_over_all_masks(seed, p):
    """Stationarity of E over masks of (1/2) tr(U Σ Uᵀ) - tr(U Gᵀ), U = diag(b) Δ diag(a)."""
    data = problem(seed)
    sigma, g = data["second_moment"], data["cross_moment"]
    delta = trained_update(second_moment=sigma, cross_moment=g, dropout=p)
    gradient = np.zeros((2, 3))
    for (m_b, w_b), (m_a, w_a) in product(bits(2, 1 - p), bits(3, 1 - p)):
        update = m_b[:, None] * delta * m_a
        gradient += w_b * w_a * m_b[:, None] * (update @ sigma - g) * m_a
    assert_allclose(gradient, 0.0, atol=1e-9 * np.abs(g).max())
    mean = minimizer(law="row_column", second_moment=sigma, cross_moment=g, dropout=p)
    assert_allclose(mean, (1 - p) ** 2 * delta, rtol=1e-6, atol=1e-9)


@pytest.mark.claim("Linear layer, raw update")
def test_trained_update_from_least_squares_to_single_variables():
    data = problem(1)
    sigma, g = data["second_moment"], data["cross_moment"]
    common = {"second_moment": sigma, "cross_moment": g}
    assert_allclose(trained_update(**common, dropout=0.0), g @ np.linalg.inv(sigma), rtol=1e-9)
    assert_allclose(trained_update(**common, dropout=1.0), g / np.diag(sigma), rtol=1e-9)
    isotropic = {"second_moment": 4.0 * np.eye(3), "cross_moment": g}
    for p in (0.0, 0.5, 1.0):
        assert_allclose(trained_update(**isotropic, dropout=p), g / 4.0, rtol=1e-12)


@pytest.mark.claim("Linear layer, dropout at rate q")
@given(seeds, rates, st.floats(0.1, 5.0))
def test_isotropic_inputs_make_lora_dropout_ordinary_dropout_at_rate_q(seed, p, scale):
    data = problem(seed)
    sigma = scale**2 * np.eye(3)
    q = drop_probability(dropout=p)
    ours = effective_moment(law="row_column", second_moment=sigma, dropout=p)
    usual = effective_moment(law="activation", second_moment=sigma, dropout=q)
    assert_allclose(ours, usual, rtol=ROUTE)
    update = data["b"] @ data["a"]
    common = {
        "second_moment": sigma, "cross_moment": data["cross_moment"], "target_moment": 5.0,
        "a": np.eye(3),
    }  # fmt: skip
    left = masked_objective(law="row_column", b=update / (1 - p) ** 2, dropout=p, **common)
    right = masked_objective(law="activation", b=update, dropout=q, **common)
    assert_allclose(left, right, rtol=1e-9)


@pytest.mark.claim("Linear layer, dropout at rate q")
def test_correlated_inputs_tell_the_two_laws_apart():
    sigma = np.array([[1.0, 0.9], [0.9, 1.0]])
    ours = effective_moment(law="row_column", second_moment=sigma, dropout=0.5)
    usual = effective_moment(law="activation", second_moment=sigma, dropout=0.75)
    assert np.abs(ours - usual).max() > 0.5


@pytest.mark.claim("Linear layer, objective")
@given(seeds, rates)
def test_objective_is_risk_plus_the_induced_regularizer(seed, p):
    data = problem(seed)
    mean = (1 - p) ** 2 * data["b"] @ data["a"]
    plain = {**data, "b": mean, "a": np.eye(3), "target_moment": 3.0}
    risk = masked_objective(law="none", dropout=0.0, **plain)
    extra = induced_regularizer(mean_update=mean, second_moment=data["second_moment"], dropout=p)
    got = masked_objective(law="row_column", dropout=p, **data, target_moment=3.0)
    assert_allclose(got, risk + extra, rtol=1e-9, atol=1e-9)


def test_limits():
    data = problem(2)
    moments = {"second_moment": data["second_moment"], "cross_moment": data["cross_moment"]}
    least_squares = minimizer(law="none", **moments, dropout=1.0)
    for law in QUADRATIC:
        assert_allclose(minimizer(law=law, **moments, dropout=0.0), least_squares, rtol=1e-9)
        if law != "none":
            assert not minimizer(law=law, **moments, dropout=1.0).any()
    assert_allclose(minimizer(law="none", **moments, dropout=0.5, rank=2), least_squares, rtol=1e-9)
    for law in MASK_LAWS:
        common = {"b": data["b"], "a": data["a"], "second_moment": data["second_moment"]}
        assert mask_variance(law=law, **common, dropout=0.0) == 0.0
        if law != "activation":
            assert mask_variance(law=law, **common, dropout=1.0) == 0.0
        if law not in ("activation", "none"):
            assert mean_factor(law=law, dropout=1.0) == 0.0


def test_singular_moments_give_the_solution_of_least_norm():
    x = np.array([1.0, 2.0, 0.0])
    sigma, g = np.outer(x, x), np.array([[2.0, 4.0, 0.0]])
    got = minimizer(law="none", second_moment=sigma, cross_moment=g, dropout=0.0)
    assert_allclose(got, [[0.4, 0.8, 0.0]], atol=1e-12)
    got = trained_update(second_moment=sigma, cross_moment=g, dropout=0.5)
    assert got[0, 2] == 0.0


GOOD = {"b": [[1.0]], "a": [[1.0]], "second_moment": [[1.0]], "dropout": 0.5}
FULL = {**GOOD, "cross_moment": [[1.0]], "target_moment": 1.0, "law": "row_column"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_factor(law="dropout", dropout=0.5), "law='dropout'"),
        (lambda: mask_variance(law="rank", **{**GOOD, "dropout": 2.0}), r"dropout=2\.0"),
        (lambda: mask_variance(law="rank", **{**GOOD, "b": [[1.0, 2.0]]}), "b must have 1 col"),
        (lambda: mask_variance(law="rank", **{**GOOD, "a": [1.0]}), "a must be a matrix"),
        (lambda: mask_variance(law="activation", **{**GOOD, "dropout": 1.0}), "below 1"),
        (
            lambda: mask_variance(law="rank", **{**GOOD, "second_moment": [[-1.0]]}),
            "second_moment must be positive semidefinite",
        ),
        (lambda: masked_objective(**{**FULL, "target_moment": -1.0}), r"target_moment=-1\.0"),
        (lambda: masked_objective(**{**FULL, "cross_moment": [[1.0], [2.0]]}), "cross_moment"),
        (
            lambda: effective_moment(law="rank", second_moment=[[1.0]], dropout=0.5),
            "law='rank'",
        ),
        (
            lambda: effective_moment(law="none", second_moment=[[1.0]], dropout=1.0),
            r"dropout must be in \[0, 1\), got dropout=1\.0",
        ),
        (
            lambda: effective_moment(law="none", second_moment=1.0, dropout=0.5),
            "second_moment must be a matrix",
        ),
        (
            lambda: minimizer(
                law="none", second_moment=[[1.0]], cross_moment=[[1.0, 2.0]], dropout=0.5
            ),
            "cross_moment must have 1 columns",
        ),
        (
            lambda: minimizer(
                law="none", second_moment=[[1.0]], cross_moment=[[1.0]], dropout=0.5, rank=0
            ),
            r"rank=0\.0",
        ),
        (
            lambda: minimizer(law="rank", second_moment=[[1]], cross_moment=[[1]], dropout=0.5),
            "law='rank'",
        ),
        (
            lambda: trained_update(second_moment=[[1]], cross_moment=[[1]], dropout=-1),
            r"dropout=-1\.0",
        ),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()
