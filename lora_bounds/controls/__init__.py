"""Negative controls: corrupted bounds and false claims that the falsifier must reject.

Every control carries the true statement too, tried on the same problems with the same budget: a
machine that rejects everything is as useless as one that rejects nothing.
"""

from typing import Any

import numpy as np

from lora_bounds.controls import chance, ensembles, families, layer, regimes
from lora_bounds.counterexamples.hunts import mask_free_sides
from lora_bounds.trial.control import Control, equal, pair
from lora_bounds.trial.frequency import RandomClaim
from lora_bounds.trial.search import Problem

__all__ = ["CONTROLS", "Control"]


def _rank_draw(rng: np.random.Generator) -> Problem:
    return {"p": rng.uniform(0.05, 0.95), "rank": int(rng.integers(1, 6))}


def _rank_ok(problem: Problem) -> bool:
    return 0 < problem["p"] < 1 and problem["rank"] >= 1


def _step_ok(problem: Problem) -> bool:
    return families.layer_ok(problem) and any(problem["step"]) and any(problem["cross"])


def _mask_free_draw(rng: np.random.Generator) -> Problem:
    return {"update": rng.normal(), "target": rng.normal(), "p": rng.uniform(0.05, 0.95)}


def _mask_free_true(problem: Problem) -> tuple[Any, Any]:
    kept, y, update = (1 - problem["p"]) ** 2, problem["target"], problem["update"]
    member = kept * (y - update) ** 2 + (1 - kept) * y**2
    return (y - kept * update) ** 2, member


def _memoriser_ok(problem: Problem) -> bool:
    return problem["atoms"] >= 1 and problem["n"] >= 1 and 0 < problem["delta"] < 1


_LINEAR = (families.draw_linear_losses, families.linear_losses_ok)
_QUADRATIC = (families.draw_quadratic, families.quadratic_ok)
_LAYER = (families.draw_layer, families.layer_ok)
_MEMBERS = (ensembles.draw_members, ensembles.members_ok)
_BERNOULLI = (families.draw_bernoulli, families.bernoulli_ok)
_MEMORISER = (families.draw_memoriser, _memoriser_ok)
_REGIME = (regimes.draw_regime, regimes.regime_ok)

CONTROLS: tuple[Control, ...] = (
    pair(
        "uniform stability, constant halved",
        "rho^2/(4 lambda q n) bounds uniform stability",
        *_LINEAR,
        false=layer.uniform_halved,
        true=layer.uniform_true,
    ),
    pair(
        "uniform stability, n squared",
        "rho^2/(2 lambda q n^2) bounds uniform stability",
        *_LINEAR,
        false=layer.uniform_square_n,
        true=layer.uniform_true,
    ),
    pair(
        "uniform stability, q = 2p",
        "rho^2/(4 lambda p n) bounds uniform stability",
        *_LINEAR,
        false=layer.uniform_double_p,
        true=layer.uniform_true,
    ),
    pair(
        "Prop. 4.2, constant quartered",
        "eta^2/(2 (Lmin + 2 lambda q) n) bounds stability for quadratic losses",
        *_QUADRATIC,
        false=layer.paper(0.25, lambda least: least),
        true=layer.paper(1, lambda least: least),
    ),
    pair(
        "Prop. 4.2, sign of Lmin",
        "negative curvature counts as positive: |Lmin| for Lmin",
        *_QUADRATIC,
        false=layer.paper(1, abs),
        true=layer.paper(1, lambda least: least),
    ),
    pair(
        "Eq. 11, q replaced by p",
        "an entry of the update is dropped with probability p",
        *_LAYER,
        false=lambda s: equal(layer.drop_share(s), s["p"]),
        true=layer.q_true,
    ),
    pair(
        "mask variance, independent entries",
        "LoRA Dropout has the variance of independent entries dropped at rate q",
        *_LAYER,
        false=layer.variance("entrywise", lambda p: 2 * p - p * p),
        true=layer.variance("row_column"),
    ),
    pair(
        "mask variance, activation dropout",
        "LoRA Dropout at rate p has the variance of activation dropout at rate p",
        *_LAYER,
        false=layer.variance("activation"),
        true=layer.variance("row_column"),
    ),
    pair(
        "exact lambda, factor 2 lost",
        "lambda = s^2/(1-q)",
        *_LAYER,
        false=layer.penalty(lambda p: 1 / (1 - p) ** 2),
        true=layer.penalty(layer.lambda_true),
    ),
    pair(
        "exact lambda, 1/(1-q) lost",
        "lambda = s^2/2",
        *_LAYER,
        false=layer.penalty(lambda p: 0.5),
        true=layer.penalty(layer.lambda_true),
    ),
    pair(
        "minimiser, least squares",
        "the least-squares update minimises the expected masked loss",
        families.draw_layer,
        _step_ok,
        false=layer.minimal(plain_least_squares=True),
        true=layer.minimal(plain_least_squares=False),
    ),
    pair(
        "rank masks as sparse as q",
        "rank masks at rate p zero an entry with probability q",
        _rank_draw,
        _rank_ok,
        false=layer.rank_as_sparse,
        true=layer.rank_sparsity,
    ),
    pair(
        "V/N replaced by V/N^2",
        "the squared loss of N members is loss(mean) + V/N^2",
        *_MEMBERS,
        false=ensembles.excess(lambda value, size: value / size),
        true=ensembles.excess(),
    ),
    pair(
        "ensemble order reversed",
        "the mean member is no worse than the ensemble",
        *_MEMBERS,
        false=ensembles.swapped(ensembles.ensemble_against_member),
        true=ensembles.ensemble_against_member,
    ),
    pair(
        "ensemble size reversed",
        "one more member never lowers the expected squared loss",
        *_MEMBERS,
        false=ensembles.swapped(ensembles.one_more_member),
        true=ensembles.one_more_member,
    ),
    pair(
        "ensemble against the mask-free network",
        "the ensemble is no worse than the mask-free network",
        _mask_free_draw,
        lambda s: 0 < s["p"] < 1,
        false=mask_free_sides,
        true=_mask_free_true,
    ),
    pair(
        "Hoeffding, square root dropped",
        "R <= Rhat + ln(1/delta)/(2n) with probability 1 - delta",
        *_BERNOULLI,
        false=chance.hoeffding(power=1.0),
        true=chance.hoeffding(),
    ),
    pair(
        "Hoeffding, delta squared",
        "R <= Rhat + sqrt(ln(1/delta)/(2n)) with probability 1 - delta^2",
        *_BERNOULLI,
        false=chance.hoeffding(confidence=2.0),
        true=chance.hoeffding(),
    ),
    pair(
        "Lemma 4.3, n squared",
        "R <= Rhat + C/sqrt(2 n^2 delta) with probability 1 - delta at beta = 0",
        *_BERNOULLI,
        false=chance.constant_hypothesis(2),
        true=chance.constant_hypothesis(1),
    ),
    pair(
        "Lemma 4.3, stability forgotten",
        "Lemma 4.3 at beta = 0 holds for an algorithm that memorises its sample",
        *_MEMORISER,
        false=chance.memoriser(0.0),
        true=chance.memoriser(1.0),
    ),
    pair(
        "kl bound without ln(2 sqrt n)",
        "kl(Rhat || R) <= ln(1/delta)/n with probability 1 - delta",
        *_BERNOULLI,
        false=chance.two_sided_kl(with_logarithm=False),
        true=chance.two_sided_kl(with_logarithm=True),
    ),
    pair(
        "PAC-Bayes dropout KL, p for 1-p",
        "KL = (p/2) norm^2/s^2",
        *_LAYER,
        false=chance.kl_of_masks(lambda p: 1 - p),
        true=chance.kl_of_masks(),
    ),
    pair(
        "T1, critical ratio halved",
        "the gap never rises at half the critical ratio of noise to signal",
        *_REGIME,
        false=regimes.falls_at(0.5),
        true=regimes.falls_at(1.0),
    ),
    pair(
        "T1, limit taken for exact",
        "the eigenvalues of a finite sample have the second moment of Marchenko and Pastur",
        *_REGIME,
        false=regimes.second_moment(limit=True),
        true=regimes.second_moment(limit=False),
    ),
    Control(
        "Clopper-Pearson, delta squared",
        "the limit for delta = 1/5 misses with probability at most 1/25",
        RandomClaim("false", "misses at most 1/25", chance.clopper_pearson_miss(0.2), 0.04),
        RandomClaim("true", "misses at most 1/5", chance.clopper_pearson_miss(0.2), 0.2),
        trials=2000,
    ),
)
"""Every negative control, in the order of the report."""
