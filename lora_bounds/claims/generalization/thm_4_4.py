"""Thm 4.4: the generalization bound, Lemma 4.3 at the stability of Prop. 4.2."""

import numpy as np

from lora_bounds.bounds.risk import lemma_4_3, theorem_4_4
from lora_bounds.bounds.stability import paper_stability
from lora_bounds.claims.failure_rates import LINEAR_SCOPE, linear_learner
from lora_bounds.claims.generalization.lemma_4_3 import prove_lemma_4_3
from lora_bounds.claims.stability.lemma_a1 import QUADRATIC, prove_lemma_a1
from lora_bounds.results import BoundResult
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, proof, sweep, unseen

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


def theorem_4_4_failures() -> Sweep:
    """Returns delta minus how often Thm 4.4 fails at the self-consistent eta = 2 rho."""

    def printed(*, weight: float, **rest: float) -> BoundResult:
        return theorem_4_4(lipschitz=2.0, curvature=0.0, regularization=weight, dropout=1.0, **rest)

    return Sweep(LINEAR_SCOPE, linear_learner(printed))


CLAIMS = (
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
            proof(prove_lemma_a1, assuming=QUADRATIC),
            proof(prove_lemma_4_3, assuming=FOR_ALL),
            sweep(theorem_is_lemma_at_the_proposition, assuming=QUADRATIC),
            sweep(theorem_4_4_failures, assuming=QUADRATIC),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="R <= Rhat + sqrt((C^2 + 24 C eta^2 / (Lmin + 2 lambda q)) / (2 n delta))",
        functions=("bounds.risk.theorem_4_4",),
    ),
)
