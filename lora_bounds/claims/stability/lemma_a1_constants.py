"""The constants of Lemma A.1: eta is not the plain loss's, and half of the factor is enough."""

import numpy as np

from lora_bounds.bounds.stability import lemma_a1
from lora_bounds.claims.stability.lemma_a1 import prove_lemma_a1
from lora_bounds.claims.stability.ridge_problems import refitted
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import Sweep, proof, sweep, unseen


def plain_slope_in_lemma_a1() -> Sweep:
    """Returns Lemma A.1 at the plain loss's constant minus the stability of the penalised loss.

    Two linear losses t and -t, so rho = 1, and a penalty c t^2. By hand, for c = 1: theta(S) = 0,
    theta(S^i) = 1/2 up to sign, so L_lambda changes by 1/2 + 1/4 = 3/4, over 2 rho^2/(2 n) = 1/2.
    """
    slacks = []
    for c in (0.25, 1.0, 4.0):
        bound = lemma_a1(n=2, lipschitz=1.0, curvature=0.0, regularization=c).value
        solution = 1 / (2 * c)  # of S^i = {t -> -t}, factor 1/(n-1) = 1
        slacks.append(float(bound) - (solution + c * solution**2))
    return Sweep("two linear losses, penalty weights 1/4, 1 and 4", slacks)


def half_of_lemma_a1() -> Sweep:
    """Returns half of Lemma A.1 minus measured stability, relative."""
    rng, slacks = np.random.default_rng(22), []
    for _ in range(1000):
        case = refitted(rng)
        bound = lemma_a1(
            n=case.n, lipschitz=case.eta, curvature=case.curvature, regularization=case.weight
        ).value
        slacks.append(case.margin(float(bound) / 2))
    return Sweep("1000 random ridge problems (relative margin)", slacks, unseen(1000))


CLAIMS = (
    Claim(
        id="Lemma A.1, eta of the plain loss",
        paper_item="Lemma A.1, Lipschitz assumption",
        statement="Lemma A.1 holds for L_lambda with eta the Lipschitz constant of L, as stated.",
        assumptions=("linear losses, so nothing else is at stake",),
        evidence=(sweep(plain_slope_in_lemma_a1),),
        recorded=Verdict.REFUTED,
        formula="abs change of L_lambda(x_i; .) <= 2 rho^2 / ((Lmin + 2 lambda) n)",
        functions=("bounds.stability.lemma_a1",),
    ),
    Claim(
        id="Lemma A.1, half the constant",
        paper_item="Lemma A.1, constant",
        statement="For quadratic losses half of the printed constant is enough.",
        assumptions=("quadratic loss", "eta is the slope of the regularised loss"),
        evidence=(proof(prove_lemma_a1), sweep(half_of_lemma_a1)),
        recorded=Verdict.PROVED,
        formula="beta = eta^2 / ((Lmin + 2 lambda) n)",
        functions=("bounds.stability.lemma_a1",),
    ),
)
