"""Claims on generalization: Lemma 4.3, Thm 4.4, and what they cost."""

import numpy as np

from lora_bounds.bounds.risk import least_delta, lemma_4_3, theorem_4_4
from lora_bounds.bounds.stability import paper_stability
from lora_bounds.ledger import coverage
from lora_bounds.ledger.evidence import ALGEBRA, Sweep, counterexample, proof, sweep, unseen
from lora_bounds.ledger.stability import QUADRATIC
from lora_bounds.trial.claim import Claim, Verdict

UNIFORM = "uniform stability beta, not only pointwise hypothesis stability"
FOR_ALL = "constants valid for every sample and example, which makes beta uniform"


def theorem_is_lemma_at_the_proposition() -> Sweep:
    """Returns how well Thm 4.4 is Lemma 4.3 at the beta of Prop. 4.2."""
    rng = np.random.default_rng(5)
    size = 100_000
    common = {
        "n": rng.integers(1, 10**6, size),
        "delta": 10 ** rng.uniform(-9, 0, size),
        "loss_range": 10 ** rng.uniform(-3, 3, size),
    }
    shape = {
        "lipschitz": 10 ** rng.uniform(-3, 3, size),
        "curvature": 10 ** rng.uniform(-6, 3, size),
        "regularization": 10 ** rng.uniform(-6, 6, size),
        "dropout": rng.uniform(0, 1, size),
    }
    beta = paper_stability(n=common["n"], **shape).value
    lemma = np.asarray(lemma_4_3(stability=beta, empirical_risk=0.0, **common).value)
    theorem = np.asarray(theorem_4_4(empirical_risk=0.0, **shape, **common).value)
    return Sweep(
        "100,000 random problems", ALGEBRA - np.abs(lemma - theorem) / theorem, unseen(size)
    )


def height_over_the_floor() -> Sweep:
    """Returns Thm 4.4 minus its floor C / sqrt(2 n delta), eta down to 0, lambda up to inf."""
    n, delta, lam, eta = np.meshgrid(
        np.logspace(0, 6, 13), np.logspace(-9, 0, 19), [1e-3, 1.0, 1e6, np.inf], [0.0, 1.0, 100.0]
    )
    n = np.floor(n)
    bound = theorem_4_4(
        n=n,
        delta=delta,
        lipschitz=eta,
        curvature=1.0,
        regularization=lam,
        dropout=1.0,
        loss_range=1.0,
        empirical_risk=0.0,
    ).value
    return Sweep("n 1 to 1e6, delta 1e-9 to 1", np.asarray(bound) - 1 / np.sqrt(2 * n * delta))


def vacuous_below_least_delta() -> Sweep:
    """Returns Lemma 4.3 minus C at and below the least useful delta, even for beta = 0."""
    n, risk, share = np.meshgrid(np.floor(np.logspace(0, 6, 13)), np.linspace(0, 0.9, 10), [1, 0.3])
    delta = share * np.asarray(least_delta(n=n, loss_range=1.0, empirical_risk=risk))
    bound = lemma_4_3(n=n, delta=delta, stability=0.0, loss_range=1.0, empirical_risk=risk)
    return Sweep("n 1 to 1e6, Rhat 0 to 0.9", np.asarray(bound.value) - 1.0)


def logarithmic_price() -> Sweep:
    """Returns how far the gap of Thm 4.4 is from growing only like sqrt(ln(1/delta))."""
    delta = np.logspace(-12, -2, 11)
    gap = theorem_4_4(
        n=1000,
        delta=delta,
        lipschitz=1.0,
        curvature=1.0,
        regularization=1.0,
        dropout=0.5,
        loss_range=1.0,
        empirical_risk=0.0,
    ).value
    per_root = np.asarray(gap) / np.sqrt(np.log(1 / delta))
    return Sweep("delta 1e-12 to 1e-2", 2 * per_root[-1] - per_root)


CLAIMS = (
    Claim(
        id="Lemma 4.3",
        paper_item="Lemma 4.3",
        statement="Pointwise hypothesis stability bounds the risk with probability 1 - delta.",
        assumptions=("i.i.d. sample", "symmetric algorithm", "losses within C"),
        evidence=(
            counterexample("lemma-4-3-pointwise-only"),
            proof("lemma-4-3", assuming=UNIFORM),
            sweep(coverage.lemma_4_3_failures, assuming=UNIFORM),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="R <= Rhat + sqrt((C^2 + 12 C n beta) / (2 n delta))",
        functions=("bounds.risk.lemma_4_3",),
    ),
    Claim(
        id="Thm 4.4",
        paper_item="Thm 4.4",
        statement="The generalization bound of LoRA Dropout.",
        assumptions=(
            "i.i.d. sample",
            "losses within C",
            "theta(S), theta(S^i) minimise the regularised empirical risk",
            "eta is the constant of the regularised loss (2 rho at the optimum)",
            "R, Rhat and C are of that loss too (or eta bounds the slope of the plain one as well)",
        ),
        evidence=(
            proof("lemma-a1", assuming=QUADRATIC),
            proof("lemma-4-3", assuming=FOR_ALL),
            sweep(theorem_is_lemma_at_the_proposition, assuming=QUADRATIC),
            sweep(coverage.theorem_4_4_failures, assuming=QUADRATIC),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="R <= Rhat + sqrt((C^2 + 24 C eta^2 / (Lmin + 2 lambda q)) / (2 n delta))",
        functions=("bounds.risk.theorem_4_4",),
    ),
    Claim(
        id="Audit 7",
        paper_item="Lemma 4.3, Thm 4.4, when vacuous",
        statement=(
            "Whatever lambda and p, the gap term is at least C/sqrt(2 n delta): vacuous for "
            "delta <= C^2 / (2 n (C-Rhat)^2)."
        ),
        assumptions=(),
        evidence=(proof("floor"), sweep(height_over_the_floor), sweep(vacuous_below_least_delta)),
        recorded=Verdict.PROVED,
        formula="sqrt((C^2 + 24 C eta^2/(Lmin + 2 lambda q))/(2 n delta)) >= C/sqrt(2 n delta)",
        functions=("bounds.risk.theorem_4_4", "bounds.risk.least_delta"),
    ),
    Claim(
        id="Audit 7, price of delta",
        paper_item="Lemma 4.3, Thm 4.4, price of delta",
        statement="The gap term grows only like sqrt(ln(1/delta)), within a factor of 2.",
        assumptions=(),
        evidence=(proof("floor", of_the_contrary=True), sweep(logarithmic_price)),
        recorded=Verdict.REFUTED,
        formula="gap(delta) = O(sqrt(ln(1/delta)))",
        functions=("bounds.risk.theorem_4_4",),
    ),
)
