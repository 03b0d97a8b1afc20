"""PAC-Bayes: the divergence by enumeration, the kl-inverse by high precision, the union by hand."""

from itertools import product
from math import comb

import numpy as np
import pytest
from flint import arb, fmpq
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lora_bounds.bounds.pac_bayes import (
    dropout_kl,
    geometric_widths,
    kl_inverse,
    pac_bayes_dropout_bound,
    pac_bayes_kl_bound,
)
from tests.lora_bounds.balls import assert_just_above, ball

probabilities = st.one_of(
    st.floats(0.0, 1.0), st.sampled_from([0.0, 1e-300, 1e-17, 1e-8, 0.5, 1 - 1e-16, 1.0])
)
limits = st.one_of(st.floats(1e-12, 800.0), st.sampled_from([1e-300, 1e-30, 1e-16, 0.02]))


def divergence(q, r):
    """kl(q‖r) in balls, r a ball."""
    q = ball(q)
    left = arb(0) if q == 0 else q * (q / r).log()
    right = arb(0) if q == 1 else (1 - q) * ((1 - q) / (1 - r)).log()
    return left + right


@pytest.mark.claim("PAC-Bayes dropout")
@given(probabilities, limits)
def test_kl_inverse_is_just_above_the_solution(q, c):
    r = kl_inverse(empirical_risk=q, bound=c)
    assert q <= r <= 1.0
    if r == 1.0:
        near_one = 1 - ball(1e-13)
        assert near_one <= ball(q) or divergence(q, near_one) <= ball(c)
        return
    assert divergence(q, ball(r)) >= ball(c)
    lower = ball(r) * (1 - ball(1e-12)) - ball(2e-290)  # smaller q count as 1e-290
    assert lower <= ball(q) or divergence(q, lower) <= ball(c)


def test_kl_inverse_limits():
    assert kl_inverse(empirical_risk=0.3, bound=0.0) == 0.3
    assert kl_inverse(empirical_risk=0.3, bound=np.inf) == 1.0
    assert kl_inverse(empirical_risk=1.0, bound=0.1) == 1.0
    assert kl_inverse(empirical_risk=0.0, bound=0.0) == 0.0
    assert kl_inverse(empirical_risk=0.0, bound=np.inf) == 1.0
    c = np.array([1e-20, 0.1, 3.0])
    got = kl_inverse(empirical_risk=0.0, bound=c)
    assert_allclose(got, -np.expm1(-c), rtol=1e-12)
    assert np.all(got >= -np.expm1(-c))


@given(st.floats(0.0, 0.99), st.floats(1e-6, 10.0))
def test_kl_inverse_is_an_inverse_and_beats_pinsker(q, c):
    r = kl_inverse(empirical_risk=q, bound=c)
    assert r <= q + np.sqrt(c / 2) + 1e-12
    assert kl_inverse(empirical_risk=q, bound=1.1 * c) >= r
    assert kl_inverse(empirical_risk=min(q + 0.01, 1.0), bound=c) >= r


def test_kl_inverse_of_a_grid_agrees_with_its_entries():
    rng = np.random.default_rng(0)
    q, c = rng.random(50)[:, None], 10 ** rng.uniform(-10, 1, 40)
    grid = kl_inverse(empirical_risk=q, bound=c)
    assert grid.shape == (50, 40)
    for i, j in ((0, 0), (7, 31), (49, 39)):
        assert_allclose(grid[i, j], kl_inverse(empirical_risk=q[i, 0], bound=c[j]), rtol=1e-12)


@pytest.mark.claim("PAC-Bayes dropout, KL")
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_dropout_kl_is_the_mean_over_masks_of_gaussian_divergences(p):
    moved, width = np.array([0.5, -1.0, 2.0]), 0.7
    expected = 0.0
    for kept in product((0, 1), repeat=3):
        weight = np.prod([1 - p if bit else p for bit in kept])
        expected += weight * np.sum(np.array(kept) * moved**2) / (2 * width**2)
    got = dropout_kl(dropout=p, squared_norm=np.sum(moved**2), width=width)
    assert_allclose(got, expected, rtol=1e-12)


def test_dropout_kl_limits():
    assert dropout_kl(dropout=1.0, squared_norm=5.0, width=0.1) == 0.0
    assert dropout_kl(dropout=0.0, squared_norm=2.0, width=1.0) == 1.0
    assert dropout_kl(dropout=0.5, squared_norm=0.0, width=1e-200) == 0.0
    assert dropout_kl(dropout=0.5, squared_norm=1.0, width=1e-200) == np.inf
    assert_allclose(dropout_kl(dropout=0.5, squared_norm=1e-300, width=1e-200), 2.5e99, rtol=1e-12)


@pytest.mark.claim("PAC-Bayes kl, price of the logarithm")
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 30, 200])
def test_maurer_s_constant_holds_from_one_example_on(n):
    """Σ_k C(n,k) (k/n)^k (1-k/n)^(n-k) <= 2 sqrt(n): exact, where the source asks for n >= 8."""
    total = sum(
        fmpq(comb(n, k)) * fmpq(k, n) ** k * fmpq(n - k, n) ** (n - k) for k in range(n + 1)
    )
    assert total * total <= 4 * n


@pytest.mark.claim("PAC-Bayes dropout")
@given(
    st.one_of(st.integers(1, 10**4), st.just(10**12)),
    st.one_of(st.floats(1e-6, 1.0), st.just(1e-300)),
    st.floats(0.0, 1e4),
    st.floats(0.0, 1.0),
    st.floats(0.1, 10),
)
def test_kl_bound_is_just_above_its_exact_value(n, delta, kl, share, c):
    risk = min(c * share, c)
    got = pac_bayes_kl_bound(n=n, delta=delta, kl=kl, empirical_risk=risk, loss_range=c)
    limit = (ball(kl) + (2 * arb(n).sqrt() / ball(delta)).log()) / n
    ratio = ball(risk) / ball(c)
    assert got.value <= c * (1 + 1e-12)
    assert got.vacuous == (got.value >= c)
    assert got.confidence <= 1 - delta
    inside = ball(got.value) / ball(c)
    if inside < 1 and ratio > 0:
        exact = ratio * (ratio / inside).log() + (1 - ratio) * ((1 - ratio) / (1 - inside)).log()
        assert exact >= limit
        lower = inside * (1 - ball(1e-11))
        if lower > ratio:
            exact = ratio * (ratio / lower).log() + (1 - ratio) * ((1 - ratio) / (1 - lower)).log()
            assert exact <= limit
    elif inside < 1:
        assert_just_above(got.value, ball(c) * (1 - (-limit).exp()))


def test_kl_bound_relations():
    base = {"n": 500, "delta": 0.05, "kl": 3.0, "empirical_risk": 0.1, "loss_range": 1.0}
    value = pac_bayes_kl_bound(**base).value
    for name, worse in {"n": 400, "delta": 0.01, "kl": 4.0, "empirical_risk": 0.2}.items():
        assert pac_bayes_kl_bound(**{**base, name: worse}).value > value
    twice = {**base, "empirical_risk": 0.2, "loss_range": 2.0}
    assert_allclose(pac_bayes_kl_bound(**twice).value, 2 * value, rtol=1e-12)
    assert pac_bayes_kl_bound(**{**base, "delta": 0.0}).value >= 1.0
    assert pac_bayes_kl_bound(**{**base, "kl": np.inf}).vacuous
    assert pac_bayes_kl_bound(**{**base, "n": 1}).value < 1.0
    assert "randomised risk" in pac_bayes_kl_bound(**base).unchecked
    exactly = {**base, "empirical_risk": 1.0}
    assert pac_bayes_kl_bound(**exactly).vacuous


@pytest.mark.claim("PAC-Bayes dropout")
def test_dropout_bound_pays_for_every_width():
    grid = geometric_widths(largest=1.0, ratio=0.5, count=4)
    risks = np.array([0.5, 0.3, 0.12, 0.1])
    got = pac_bayes_dropout_bound(
        n=2000, delta=0.1, dropout=0.25, squared_norm=3.0, widths=grid, empirical_risk=risks,
        loss_range=1.0,
    )  # fmt: skip
    each = [
        pac_bayes_kl_bound(
            n=2000, delta=0.1 / 4, kl=0.75 / 2 * 3.0 / width**2, empirical_risk=risk, loss_range=1.0
        ).value
        for width, risk in zip(grid, risks, strict=True)
    ]
    assert_allclose(got.value, min(each), rtol=1e-12)
    assert got.value >= min(each)
    assert min(each) not in (each[0], each[-1])  # the trade-off is real
    assert got.confidence == 0.9
    assert "grid before data" in got.unchecked


def test_dropout_bound_broadcasts_and_falls_with_dropout():
    grid = geometric_widths(largest=1.0, ratio=0.5, count=3)
    got = pac_bayes_dropout_bound(
        n=[[100], [10000]], delta=0.1, dropout=[0.0, 0.5, 1.0], squared_norm=3.0, widths=grid,
        empirical_risk=[0.2, 0.2, 0.2], loss_range=1.0,
    )  # fmt: skip
    assert got.value.shape == (2, 3)
    assert np.all(np.diff(got.value, axis=1) < 0)
    assert np.all(np.diff(got.value, axis=0) < 0)


@pytest.mark.claim("PAC-Bayes dropout")
def test_geometric_widths():
    assert_allclose(geometric_widths(largest=3.0, ratio=0.1, count=3), [3, 0.3, 0.03])
    assert geometric_widths(largest=3.0, ratio=0.1, count=1).tolist() == [3.0]


DROPOUT = {
    "n": 10, "delta": 0.1, "dropout": 0.5, "squared_norm": 1.0, "widths": [1.0, 0.5],
    "empirical_risk": [0.1, 0.1], "loss_range": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dropout_kl(dropout=2.0, squared_norm=1.0, width=1.0), r"dropout=2\.0"),
        (lambda: dropout_kl(dropout=0.5, squared_norm=-1.0, width=1.0), r"squared_norm=-1\.0"),
        (lambda: dropout_kl(dropout=0.5, squared_norm=1.0, width=0.0), r"width=0\.0"),
        (lambda: kl_inverse(empirical_risk=1.1, bound=1.0), r"empirical_risk=1\.1"),
        (lambda: kl_inverse(empirical_risk=0.1, bound=-1.0), r"bound=-1\.0"),
        (
            lambda: pac_bayes_kl_bound(n=9, delta=0.1, kl=-1, empirical_risk=0, loss_range=1),
            r"kl=-1\.0",
        ),
        (
            lambda: pac_bayes_kl_bound(n=9, delta=0.1, kl=1, empirical_risk=2, loss_range=1),
            r"empirical_risk=2\.0",
        ),
        (lambda: geometric_widths(largest=0.0, ratio=0.5, count=2), r"largest=0\.0"),
        (lambda: geometric_widths(largest=1.0, ratio=1.0, count=2), r"ratio=1\.0"),
        (lambda: geometric_widths(largest=1.0, ratio=0.5, count=0), r"count=0\.0"),
        (
            lambda: pac_bayes_dropout_bound(**{**DROPOUT, "empirical_risk": [0.1]}),
            r"each of the 2 widths on its last axis, got empirical_risk of shape \(1,\)",
        ),
        (
            lambda: pac_bayes_dropout_bound(**{**DROPOUT, "empirical_risk": 0.1}),
            r"got empirical_risk of shape \(\)",
        ),
        (
            lambda: pac_bayes_dropout_bound(
                **{
                    **DROPOUT,
                    "n": [1, 2],
                    "delta": np.full((4, 1, 1), 0.5),
                    "dropout": [0.5] * 3,
                    "squared_norm": [1.0] * 5,
                    "loss_range": [1.0] * 6,
                    "empirical_risk": np.zeros((7, 2)),
                }
            ),
            r"got n of \(2,\), delta of \(4, 1, 1\), dropout of \(3,\), squared_norm of \(5,\), "
            r"loss_range of \(6,\), empirical_risk of \(7,\)",
        ),
        (lambda: geometric_widths(largest=1.0, ratio=0.5, count=10**6 + 1), r"count=1000001"),
        (lambda: pac_bayes_dropout_bound(**{**DROPOUT, "delta": 2.0}), r"delta=2\.0"),
        (lambda: pac_bayes_dropout_bound(**{**DROPOUT, "widths": [1.0, -1.0]}), r"widths=-1\.0"),
        (lambda: pac_bayes_dropout_bound(**{**DROPOUT, "widths": 1.0}), "widths must be a vector"),
        (lambda: pac_bayes_dropout_bound(**{**DROPOUT, "loss_range": 0.0}), r"loss_range=0\.0"),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()
