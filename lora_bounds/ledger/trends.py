"""The predicted trends T1 to T3 (T4 is with the ensemble, T5 with sparsity)."""

import numpy as np

from lora_bounds.bounds.risk import theorem_4_4
from lora_bounds.ledger import regime_sweeps, ridge_curves
from lora_bounds.ledger.evidence import ALGEBRA, Sweep, counterexample, proof, sweep
from lora_bounds.trial.claim import Claim, Verdict

NOISE = "isotropic Gaussian inputs, noise variance at least 2/3 of the signal power norm(theta*)^2"
GAUSSIAN = "isotropic Gaussian inputs, targets linear in them plus noise, theta0 = 0"
BOTH = "noise variance 0.1 to 10 times the signal's, and lambda q reaches past the optimum"


def bound_scales_as_stated() -> Sweep:
    """Returns how constant the gap term of Thm 4.4 times sqrt(n delta) is."""
    n, delta = np.meshgrid(np.floor(np.logspace(0, 8, 33)), np.logspace(-9, 0, 28))
    gap = theorem_4_4(
        n=n,
        delta=delta,
        lipschitz=1.0,
        curvature=0.5,
        regularization=1.0,
        dropout=0.5,
        loss_range=1.0,
        empirical_risk=0.0,
    ).value
    scaled = np.asarray(gap) * np.sqrt(n * delta)
    return Sweep("n 1 to 1e8, delta 1e-9 to 1", ALGEBRA - np.abs(scaled / scaled[0, 0] - 1))


CLAIMS = (
    Claim(
        id="T1",
        paper_item="T1",
        statement="The expected generalization gap shrinks as p grows.",
        assumptions=("ridge regression with one lambda: Eq. 11 exactly",),
        evidence=(
            counterexample("gap-turns-up"),
            sweep(regime_sweeps.gap_when_noise_dominates, assuming=NOISE),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="E[R - Rhat] non-increasing in p",
        functions=("exact.ridge.expected_risks",),
    ),
    Claim(
        id="Audit 9",
        paper_item="T1, regimes",
        statement=(
            "A critical ratio of noise variance to signal power, below 2/3, parts the regimes: "
            "above it the gap falls throughout; below it, it rises in an interval of p."
        ),
        assumptions=("ridge regression", GAUSSIAN),
        evidence=(
            sweep(regime_sweeps.gaussian_boundary),
            sweep(regime_sweeps.regimes_on_a_map),
            sweep(regime_sweeps.gaussian_spectra),
            sweep(ridge_curves.risks_against_formula),
        ),
        recorded=Verdict.HOLDS,
        formula="max over w of (n/d) (w/(1+w)) (1 - E[mu^2/(mu+w)^3]/E[mu/(mu+w)^3])",
        functions=(
            "exact.spectra.wishart_spectrum",
            "exact.ridge_regimes.ridge_risks",
            "exact.ridge_regimes.shrinkage_risks",
            "exact.ridge_regimes.turning_ratio",
            "exact.ridge_regimes.critical_ratio",
            "exact.regime_grid.rising_rates",
            "exact.regime_grid.regime_map",
            "exact.ridge.expected_risks",
            "exact.ridge.population_risk",
        ),
    ),
    Claim(
        id="Audit 9, every law",
        paper_item="T1, regimes",
        statement="Noise of the signal's variance makes the gap fall with p whatever the inputs.",
        assumptions=("ridge regression, targets linear in the inputs plus noise, theta0 = 0",),
        evidence=(sweep(regime_sweeps.heavy_tails),),
        recorded=Verdict.REFUTED,
        formula="critical ratio <= 1; inputs 1 (9 times in 10) or 10, n = 6: 1.09",
        functions=("exact.ridge.expected_risks",),
    ),
    Claim(
        id="Audit 9, many examples",
        paper_item="T1, regimes",
        statement=(
            "With many examples the critical ratio tends to a third of a fourth moment, which no "
            "constant bounds: heavy tails widen the regime in which the gap turns up."
        ),
        assumptions=("ridge regression with one input of unit second moment",),
        evidence=(sweep(regime_sweeps.many_examples),),
        recorded=Verdict.HOLDS,
        formula="(E[x^4] - 1)/3, at w = 1/2",
        functions=("exact.ridge.expected_risks",),
    ),
    Claim(
        id="T1, few examples",
        paper_item="T1, regimes",
        statement=(
            "With at most (3 - sqrt 5)/2 = 0.38 examples per input the gap falls with p at every "
            "noise level, even without noise."
        ),
        assumptions=("ridge regression", GAUSSIAN, "n and d large, or (d-n)(d-n-3) >= n(d-1)"),
        evidence=(sweep(regime_sweeps.few_examples),),
        recorded=Verdict.HOLDS,
        formula="turns exactly if E[1/mu] < E[1/mu^2] over nonzero mu; limit: (1-c)^2 < c, c = n/d",
        functions=("exact.ridge_regimes.turning_ratio", "exact.spectra.marchenko_pastur"),
    ),
    Claim(
        id="T1, limit",
        paper_item="T1, regimes",
        statement=(
            "The law of Marchenko and Pastur gives the critical ratio to within 1/(3d) for n/d "
            "from 1/2 on; it is at most 1/3 there."
        ),
        assumptions=("ridge regression", GAUSSIAN),
        evidence=(sweep(regime_sweeps.limit_of_the_boundary),),
        recorded=Verdict.HOLDS,
        formula="abs(exact - limit) <= 1/(3d)",
        functions=("exact.spectra.marchenko_pastur", "exact.ridge_regimes.critical_ratio"),
    ),
    Claim(
        id="T1, LoRA Dropout",
        paper_item="T1, linear layer",
        statement=(
            "For the ensemble of a linear layer trained with LoRA Dropout the gap falls with p if "
            "noise variance is the signal's, and without noise rises at first and then falls."
        ),
        assumptions=(
            "squared loss, full rank, minimum of the expected masked loss on the sample",
            "Gaussian inputs, n/d 2 or 4 in the samples; isotropic ones in the limit",
        ),
        evidence=(
            sweep(regime_sweeps.dropout_gap_under_noise),
            sweep(regime_sweeps.dropout_gap_without_noise),
            sweep(regime_sweeps.dropout_limit),
        ),
        recorded=Verdict.HOLDS,
        formula="limit: critical ratio below 0.201; 0 for n/d <= 1/2",
        functions=(
            "exact.dropout_regimes.sampled_dropout_risks",
            "exact.dropout_regimes.dropout_limit_risks",
            "exact.dropout_regimes.dropout_turning_ratio",
        ),
    ),
    Claim(
        id="T2",
        paper_item="T2, the bound",
        statement="The gap term of the bound shrinks as 1/sqrt(n) and grows as 1/sqrt(delta).",
        assumptions=("all other constants fixed",),
        evidence=(proof("monotonicity"), sweep(bound_scales_as_stated)),
        recorded=Verdict.PROVED,
        formula="gap term * sqrt(n delta) is constant",
        functions=("bounds.risk.theorem_4_4",),
    ),
    Claim(
        id="T2, the gap itself",
        paper_item="T2, the gap",
        statement="The expected gap itself shrinks at the rate 1/sqrt(n) (exponent within 0.1).",
        assumptions=("one-parameter ridge regression",),
        evidence=(sweep(ridge_curves.gap_rate_in_n),),
        recorded=Verdict.REFUTED,
        formula="E[R - Rhat] ~ n^(-1/2); measured: n^(-1)",
        functions=("exact.ridge.expected_risks",),
    ),
    Claim(
        id="T3, training risk",
        paper_item="T3, training risk",
        statement="The training risk rises with p.",
        assumptions=("global minimisers of Eq. 11 at one lambda, any loss",),
        evidence=(proof("training-risk"), sweep(ridge_curves.training_risk_over_p)),
        recorded=Verdict.PROVED,
        formula="Rhat(theta(S)) non-decreasing in p",
        functions=("exact.ridge.ridge_fit",),
    ),
    Claim(
        id="T3, test risk",
        paper_item="T3, test risk",
        statement="The test risk is U-shaped in p: it falls at first and rises at last.",
        assumptions=("ridge regression, targets linear in the inputs plus noise",),
        evidence=(
            counterexample("test-risk-not-u-shaped"),
            sweep(ridge_curves.u_shape_without_noise),
            sweep(ridge_curves.u_shape_with_noise, assuming=BOTH),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="R(p) falls near p = 0, rises for large lambda q",
        functions=("exact.ridge.expected_risks",),
    ),
)
