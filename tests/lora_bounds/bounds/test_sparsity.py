"""Eqs. 9 to 11 and the mask laws, against enumeration of all masks and ball arithmetic."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lora_bounds.bounds import sparsity
from lora_bounds.bounds.sparsity import (
    MASK_LAWS,
    drop_probability,
    dropout_rate,
    dropped_norm,
    induced_regularization,
    induced_regularizer,
    inner_maximum,
    keep_probability,
    mask_moments,
    penalty_weight,
    root_penalty_weight,
    sparsity_penalty,
)
from tests.lora_bounds.balls import ball, q_of

IDENTITY, ROUTE = 1e-12, 1e-10
rates = st.floats(0.0, 1.0)
inner_rates = st.floats(0.01, 0.99)


def masked_units(law, rows, columns, p):
    """All masks of the update of a rank-one B A of ones, with their probabilities."""
    k = 1.0 - p

    def bernoulli(size, keep):
        for bits in product((0.0, 1.0), repeat=size):
            yield np.array(bits), np.prod([keep if bit else 1.0 - keep for bit in bits])

    if law == "row_column":
        for (b, pb), (a, pa) in product(bernoulli(rows, k), bernoulli(columns, k)):
            yield np.outer(b, a), pb * pa
    elif law == "activation":
        for a, pa in bernoulli(columns, k):
            yield np.outer(np.ones(rows), a / k), pa
    elif law == "rank":
        for m, pm in bernoulli(1, k):
            yield np.full((rows, columns), m[0]), pm
    elif law == "entrywise":
        for m, pm in bernoulli(rows * columns, k):
            yield m.reshape(rows, columns), pm
    else:
        yield np.ones((rows, columns)), 1.0


@pytest.mark.claim("Eq. 2")
@pytest.mark.parametrize("p", [1e-300, 1e-17, 0.1, 0.5, 1 - 1e-16, 1.0, 0.0])
def test_drop_and_keep_probability_match_balls(p):
    q = q_of(p)
    assert abs(ball(drop_probability(dropout=p)) - q) <= q * ball(2**-52)
    keep = (1 - ball(p)) ** 2
    assert abs(ball(keep_probability(dropout=p)) - keep) <= keep * ball(3e-16)


@pytest.mark.claim("Eq. 2")
@given(st.floats(0.0, 0.999))
def test_rate_and_drop_probability_are_inverse(p):
    back = dropout_rate(drop_probability=drop_probability(dropout=p))
    # dp/dq = 1 / (2 (1-p)): near p = 1 the rounding of q itself moves p.
    assert_allclose(back, p, rtol=IDENTITY, atol=1e-15 / (1 - p))


@given(rates)
def test_drop_probability_and_rate_are_inverse(q):
    p = dropout_rate(drop_probability=q)
    assert 0.0 <= p <= 1.0
    # Half of the least subnormal is none.
    assert_allclose(drop_probability(dropout=p), q, rtol=IDENTITY, atol=5e-324)


def test_rate_at_the_ends():
    assert dropout_rate(drop_probability=0.0) == 0.0
    assert dropout_rate(drop_probability=1.0) == 1.0
    assert drop_probability(dropout=1.0) == 1.0
    assert_allclose(dropout_rate(drop_probability=1e-300), 5e-301, rtol=IDENTITY)


@pytest.mark.claim("Eq. 11, independent entries", "Audit 2", "T5")
@pytest.mark.parametrize("law", MASK_LAWS)
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_mask_moments_match_enumeration(law, p):
    masks = list(masked_units(law, 2, 2, p))
    weights = np.array([weight for _, weight in masks])
    values = np.array([mask.ravel() for mask, _ in masks])
    mean = weights @ values
    covariance = (values - mean).T @ ((values - mean) * weights[:, None])
    moments = mask_moments(law=law, dropout=p)
    assert_allclose(mean, moments.mean, rtol=ROUTE)
    assert_allclose(np.diag(covariance), moments.variance, rtol=ROUTE, atol=ROUTE)
    if law != "none":
        correlation = covariance / moments.variance
        assert_allclose(correlation[0, 1], moments.same_row, atol=ROUTE)
        assert_allclose(correlation[0, 2], moments.same_column, atol=ROUTE)
        assert_allclose(correlation[0, 3], moments.elsewhere, atol=ROUTE)
    else:
        assert (moments.same_row, moments.same_column, moments.elsewhere) == (0.0, 0.0, 0.0)


@given(rates)
def test_lora_dropout_and_entrywise_masks_differ_in_correlation_only(p):
    ours = mask_moments(law="row_column", dropout=p)
    free = mask_moments(law="entrywise", dropout=drop_probability(dropout=p))
    # 1-q is known to the last place of 1 alone.
    assert free.mean == pytest.approx(ours.mean, abs=3e-16)
    assert free.variance == pytest.approx(ours.variance, abs=3e-16)
    assert free.same_row == free.same_column == free.elsewhere == 0.0
    assert 0.0 <= ours.same_row <= 0.5


def test_mask_moments_at_the_limits():
    assert mask_moments(law="row_column", dropout=0.0).same_row == 0.5
    assert mask_moments(law="row_column", dropout=1.0).same_column == 0.0
    for law in MASK_LAWS:
        assert mask_moments(law=law, dropout=0.0).variance == 0.0
        assert mask_moments(law=law, dropout=0.0).mean == 1.0
    grid = mask_moments(law="rank", dropout=[0.0, 0.25])
    assert grid.mean.tolist() == [1.0, 0.75]
    assert grid.same_row.tolist() == [1.0, 1.0]


@pytest.mark.claim("Eq. 11")
@given(rates, st.floats(0, 1e6), st.floats(0, 1e6))
def test_penalty_is_lambda_times_the_dropped_norm(p, strength, norm):
    penalty = sparsity_penalty(dropout=p, regularization=strength, squared_norm=norm)
    dropped = dropped_norm(dropout=p, squared_norm=norm)
    assert_allclose(penalty, strength * dropped, rtol=IDENTITY, atol=1e-300)


@pytest.mark.claim("Eq. 9")
@pytest.mark.parametrize("law", ["row_column", "entrywise"])
def test_dropped_norm_needs_no_independence(law):
    """E‖d ⊙ Δ‖² over dependent masks is that of independent ones (Eq. 11)."""
    delta = np.array([[1.0, -2.0], [0.5, 3.0]])
    rate = 0.3 if law == "row_column" else drop_probability(dropout=0.3)
    expected = sum(w * np.sum(((1 - m) * delta) ** 2) for m, w in masked_units(law, 2, 2, rate))
    assert_allclose(dropped_norm(dropout=0.3, squared_norm=np.sum(delta**2)), expected, rtol=ROUTE)


@pytest.mark.claim("Audit 1", "Eq. 10")
def test_inner_maximum_of_eq_10():
    assert inner_maximum(loss=0.3, dropout=0.5, squared_norm=0.0) == 0.3
    assert inner_maximum(loss=0.3, dropout=0.0, squared_norm=1.0) == 0.3
    assert inner_maximum(loss=0.3, dropout=1e-300, squared_norm=1e-300) == np.inf
    many = [sparsity_penalty(dropout=0.5, regularization=lam, squared_norm=1.0) for lam in (1, 1e9)]
    assert many[1] > 1e8 * many[0] > 0.0


def test_penalty_limits():
    assert sparsity_penalty(dropout=0.0, regularization=np.inf, squared_norm=1.0) == 0.0
    assert sparsity_penalty(dropout=0.5, regularization=np.inf, squared_norm=0.0) == 0.0
    assert sparsity_penalty(dropout=0.5, regularization=np.inf, squared_norm=1.0) == np.inf
    assert sparsity_penalty(dropout=1.0, regularization=2.0, squared_norm=3.0) == 6.0


@pytest.mark.claim("Eq. 11")
@given(rates, st.floats(0, 1e100))
def test_root_of_the_weight(p, strength):
    root = root_penalty_weight(dropout=p, regularization=strength)
    exact = (q_of(p) * ball(strength)).sqrt()
    assert abs(ball(root) - exact) <= exact * ball(1e-15)
    weight = penalty_weight(dropout=p, regularization=strength)
    assert_allclose(root**2, weight, rtol=IDENTITY, atol=1e-300)


def test_root_of_the_weight_survives_underflow_and_limits():
    root = root_penalty_weight(dropout=1e-300, regularization=1e-100)
    assert_allclose(root, np.sqrt(2) * 1e-200, rtol=IDENTITY)
    assert root_penalty_weight(dropout=0.0, regularization=np.inf) == 0.0
    assert root_penalty_weight(dropout=0.1, regularization=np.inf) == np.inf
    assert penalty_weight(dropout=1.0, regularization=np.inf) == np.inf


@pytest.mark.claim("Linear layer, induced regulariser")
@given(inner_rates, st.integers(0, 10**6))
def test_induced_regularizer_is_half_the_variance_of_all_masks(p, seed):
    rng = np.random.default_rng(seed)
    delta, root = rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    sigma = root @ root.T
    mean = (1 - p) ** 2 * delta
    variance = sum(
        w * np.trace((m * delta - mean) @ sigma @ (m * delta - mean).T)
        for m, w in masked_units("row_column", 2, 2, p)
    )
    got = induced_regularizer(mean_update=mean, second_moment=sigma, dropout=p)
    assert_allclose(got, variance / 2, rtol=1e-9)


@pytest.mark.claim("Linear layer, induced regulariser")
@given(inner_rates, st.floats(0.1, 10))
def test_isotropic_regularizer_is_eq_11_with_lambda_settled(p, scale):
    update = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 0.5]])
    got = induced_regularizer(mean_update=update, second_moment=scale**2 * np.eye(3), dropout=p)
    strength = induced_regularization(dropout=p, input_scale=scale)
    norm = np.sum(update**2)
    expected = sparsity_penalty(dropout=p, regularization=strength, squared_norm=norm)
    assert_allclose(got, expected, rtol=ROUTE)


@pytest.mark.claim("Remark p -> 1", "Audit 12")
def test_induced_regularizer_diverges_at_one_while_eq_11_does_not():
    one = {"mean_update": [[1.0]], "second_moment": [[1.0]]}
    assert induced_regularizer(**one, dropout=1.0) == np.inf
    assert induced_regularizer(**one, dropout=0.0) == 0.0
    assert induced_regularizer(mean_update=[[0.0]], second_moment=[[1.0]], dropout=1.0) == 0.0
    assert induced_regularization(dropout=1.0, input_scale=1.0) == np.inf
    assert induced_regularization(dropout=0.0, input_scale=2.0) == 2.0
    assert sparsity_penalty(dropout=1.0, regularization=1.0, squared_norm=1.0) == 1.0


def test_arrays_broadcast():
    p, lam = np.linspace(0, 1, 5)[:, None], np.array([0.0, 1.0, 2.0])
    assert sparsity_penalty(dropout=p, regularization=lam, squared_norm=1.0).shape == (5, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drop_probability(dropout=1.5), r"dropout must be in \[0, 1\], got dropout=1.5"),
        (lambda: keep_probability(dropout=-0.1), "got dropout=-0.1"),
        (lambda: dropout_rate(drop_probability=2.0), "got drop_probability=2.0"),
        (lambda: mask_moments(law="column", dropout=0.5), "law='column'"),
        (lambda: mask_moments(law="activation", dropout=1.0), "below 1 under the activation law"),
        (lambda: dropped_norm(dropout=0.5, squared_norm=-1.0), "squared_norm=-1.0"),
        (lambda: inner_maximum(loss=np.nan, dropout=0.5, squared_norm=1.0), "loss=nan"),
        (lambda: penalty_weight(dropout=0.5, regularization=-1.0), "regularization=-1.0"),
        (lambda: root_penalty_weight(dropout=2.0, regularization=1.0), "dropout=2.0"),
        (
            lambda: sparsity_penalty(dropout=0.5, regularization=1.0, squared_norm=np.inf),
            "squared_norm=inf",
        ),
        (lambda: induced_regularization(dropout=0.5, input_scale=0.0), "input_scale=0.0"),
        (
            lambda: induced_regularizer(
                mean_update=[[1.0, 2.0]], second_moment=[[1.0]], dropout=0.5
            ),
            "second_moment must have 2 columns",
        ),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        sparsity.drop_probability(0.5)
