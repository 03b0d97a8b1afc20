"""Predictions on a linear LoRA layer: every mask enumerated, or the minimiser in closed form."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_bounds.bounds.ensemble_risk import ensemble_loss
from lora_bounds.bounds.sparsity import drop_probability
from lora_bounds.exact.dropout_regimes import dropout_turning_ratio, sampled_dropout_risks
from lora_bounds.exact.linear import mask_variance, minimizer
from lora_bounds.exact.spectra import marchenko_pastur
from lora_bounds.trial.enumeration import masked_updates, mean_and_variance
from tests.predictions.checks import (
    caught,
    check_equal,
    check_monotone,
    check_page_trend,
)
from tests.predictions.strategies import LayerProblem, correlated, layer_problems

FEW = settings(max_examples=6)
RATES = np.array([0.02, 0.06, 0.1, 0.15, 0.3, 0.5, 0.7, 0.9])

# --- sparsity ----------------------------------------------------------------------------------


def check_sparsity(problem: LayerProblem, share=lambda p: drop_probability(dropout=p)):
    """T5: the expected share of zeros of the masked update is q(p)."""
    b, a = problem.factors()
    updates, chance = masked_updates("row_column", b, a, problem.dropout)
    zeros = chance @ (updates == 0).mean(axis=(1, 2))
    check_equal(zeros, share(problem.dropout))


@given(layer_problems())
def test_sparsity_is_q(problem):
    check_sparsity(problem)


@pytest.mark.parametrize("share", [lambda p: p, lambda p: 2 * p, lambda p: p * p])
def test_another_sparsity_is_caught(share):
    caught(lambda problem: check_sparsity(problem, share), layer_problems())


def check_rank_masks(problem: LayerProblem, added):
    """Masks on the rank dimension as well: how much sparsity they add to q."""
    p, (b, a) = problem.dropout, problem.factors()
    zeros = 0.0
    for kept in product((0.0, 1.0), repeat=problem.rank):
        weight = np.prod([1 - p if bit else p for bit in kept])
        updates, chance = masked_updates("row_column", b * np.array(kept), a, p)
        zeros += weight * (chance @ (updates == 0).mean(axis=(1, 2)))
    q = float(drop_probability(dropout=p))
    check_equal(zeros, q + added(p, q, problem.rank))


@given(layer_problems())
def test_rank_masks_add_what_the_ledger_says(problem):
    """(1-q) p^r, not nothing as the paper has it."""
    check_rank_masks(problem, lambda p, q, rank: (1 - q) * p**rank)


@pytest.mark.parametrize(
    "added", [lambda p, q, rank: 0.0, lambda p, q, rank: p**rank, lambda p, q, rank: (1 - q) * p]
)
def test_another_addition_is_caught(added):
    caught(lambda problem: check_rank_masks(problem, added), layer_problems())


# --- the ensemble ------------------------------------------------------------------------------


def check_ensemble(problem: LayerProblem, excess=lambda variance, size: variance / size):
    """E loss of N averaged members is loss(mean) + V/N, over every N-tuple of masks."""
    rng = np.random.default_rng(problem.seed)
    b, a = problem.factors()
    b, a = b[:1], a[:, :2]  # 8 masks, 512 triples
    x, y = rng.standard_normal(2), float(rng.standard_normal())
    updates, chance = masked_updates("row_column", b, a, problem.dropout)
    outputs = updates[:, 0] @ x
    limit = (chance @ outputs - y) ** 2
    variance = mask_variance(
        law="row_column", b=b, a=a, second_moment=np.outer(x, x), dropout=problem.dropout
    )
    losses = []
    for size in (1, 2, 3):
        total = 0.0
        for pick in product(range(len(chance)), repeat=size):
            total += np.prod(chance[list(pick)]) * (outputs[list(pick)].mean() - y) ** 2
        losses.append(total)
        check_equal(total, limit + excess(variance, size))
        check_equal(total, ensemble_loss(infinite_loss=limit, variance=variance, n_instances=size))
    check_monotone(losses, "decreasing")


@settings(max_examples=20)
@given(layer_problems())
def test_the_ensemble_costs_v_over_n_more_than_the_mean(problem):
    check_ensemble(problem)


@pytest.mark.parametrize(
    "excess", [lambda v, n: v / n**2, lambda v, n: v, lambda v, n: v / (2 * n), lambda v, n: 0.0]
)
def test_another_excess_is_caught(excess):
    caught(lambda problem: check_ensemble(problem, excess), layer_problems())


# --- against ordinary dropout ------------------------------------------------------------------


def check_equivalence(problem: LayerProblem, rate=lambda p: drop_probability(dropout=p)):
    """LoRA Dropout at p and scaled dropout at the rate reach the same mean update."""
    common = {"second_moment": problem.second_moment, "cross_moment": problem.cross_moment}
    ours = minimizer(law="row_column", dropout=problem.dropout, rank=problem.rank, **common)
    usual = minimizer(
        law="activation", dropout=float(rate(problem.dropout)), rank=problem.rank, **common
    )
    check_equal(ours, usual, tolerance=1e-8)


@given(layer_problems(max_correlation=0.0))
def test_isotropic_inputs_make_it_ordinary_dropout_at_rate_q(problem):
    check_equivalence(problem)


@pytest.mark.parametrize("rate", [lambda p: p, lambda p: p * p])
def test_another_rate_of_dropout_is_caught(rate):
    caught(lambda problem: check_equivalence(problem, rate), layer_problems(max_correlation=0.0))


@given(layer_problems(min_correlation=0.3))
def test_correlated_inputs_tell_them_apart(problem):
    with pytest.raises(AssertionError, match="differs"):
        check_equivalence(problem)


@given(layer_problems())
def test_variance_formula_against_every_mask(problem):
    b, a = problem.factors()
    sigma = problem.second_moment
    _, variance = mean_and_variance(*masked_updates("row_column", b, a, problem.dropout), sigma)
    formula = mask_variance(
        law="row_column", b=b, a=a, second_moment=sigma, dropout=problem.dropout
    )
    check_equal(formula, variance)


# --- the gap and the risks over p --------------------------------------------------------------


@FEW
@given(st.sampled_from([20, 30, 40]), st.sampled_from([0.0, 0.5, 0.8]), st.integers(0, 10**6))
def test_gap_falls_with_p_in_the_noise_dominated_regime(n, rho, seed):
    """Noise variance = signal power, five times the critical ratio of the limit."""
    limit = dropout_turning_ratio(
        aspect_spectrum=marchenko_pastur(aspect=n / 10), dropout=np.linspace(0.01, 0.99, 99)
    )
    assert 5 * limit.max() <= 1.0
    found = sampled_dropout_risks(
        n=n, second_moment=correlated(10, rho), dropout=RATES, samples=40, seed=seed
    )
    check_page_trend(found.gap(noise_to_signal=1.0), "decreasing", least_effect=0.5)


@FEW
@given(st.sampled_from([20, 40]), st.sampled_from([0.0, 0.5]), st.integers(0, 10**6))
def test_gap_turns_with_p_in_the_signal_dominated_regime(n, rho, seed):
    found = sampled_dropout_risks(
        n=n, second_moment=correlated(10, rho), dropout=RATES, samples=400, seed=seed
    )
    gap = found.gap(noise_to_signal=0.0)
    check_page_trend(gap[:, :4], "increasing")
    check_page_trend(gap[:, 4:], "decreasing")
    with pytest.raises(AssertionError, match="no trend"):
        check_page_trend(gap[:, 4:], "increasing")


@FEW
@given(st.sampled_from([8, 20, 40]), st.sampled_from([0.0, 0.8]), st.floats(0.0, 4.0))
def test_training_risk_rises_with_p(n, rho, noise):
    found = sampled_dropout_risks(
        n=n, second_moment=correlated(10, rho), dropout=RATES, samples=20, seed=n
    )
    check_page_trend(found.train(noise_to_signal=noise), "increasing", least_effect=0.9)


@FEW
@given(st.sampled_from([20, 40]), st.floats(0.1, 2.0), st.integers(0, 10**6))
def test_test_risk_is_u_shaped_in_p(n, noise, seed):
    """It falls from p = 0.001 to its best rate and rises from there: the more noise, the later."""
    rates = np.geomspace(0.001, 0.95, 16)
    found = sampled_dropout_risks(
        n=n, second_moment=np.eye(10), dropout=rates, samples=60, seed=seed
    )
    risk = found.test(noise_to_signal=noise).mean(axis=0)
    best = int(risk.argmin())
    assert 0 < best < len(rates) - 1
    check_monotone(risk[: best + 1], "decreasing")
    check_monotone(risk[best:], "increasing")
    noisier = found.test(noise_to_signal=4 * noise).mean(axis=0)
    assert noisier.argmin() >= best


def test_raw_inference_keeps_the_gap_that_the_ensemble_loses():
    """Isotropic inputs, n/d = 4, noise only: at p = 0.9 the raw B A keeps over half of the gap."""
    common = {"n": 40, "second_moment": np.eye(10), "dropout": RATES, "samples": 40, "seed": 0}
    raw = sampled_dropout_risks(**common, inference="raw")
    ensemble = sampled_dropout_risks(**common)
    raw_gap, gap = ((r.noise_test - r.noise_train).mean(axis=0) for r in (raw, ensemble))
    assert raw_gap[-1] > 0.5 * raw_gap[0]
    assert gap[-1] < 0.05 * gap[0]
