"""T2: the bound shrinks like 1/sqrt(n), the gap itself like 1/n."""

from math import comb

import numpy as np

from lora_bounds.bounds.risk import theorem_4_4
from lora_bounds.claims.stability.trend_over_p import prove_monotonicity
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, proof, sweep


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


def gap_rate_in_n() -> Sweep:
    """Returns 0.1 minus the distance of the measured rate of the expected gap from -1/2.

    One parameter, inputs of square 1 or 4: the sample is a binomial count, summed exactly.
    """
    sizes, slacks = (100, 400, 1600), []
    for w, noise in ((0.1, 1.0), (1.0, 1.0), (1.0, 0.1)):
        gaps = []
        for n in sizes:
            ones = np.arange(n + 1)
            chance = np.array([float(comb(n, int(k)) / 2**n) for k in ones])
            moment = (ones + 4.0 * (n - ones)) / n
            bias = (w / (moment + w)) ** 2 * (2.5 - moment)
            spread = noise**2 / n * moment * (2.5 + moment + 2 * w) / (moment + w) ** 2
            gaps.append(float(chance @ (bias + spread)) / 2)
        rates = np.diff(np.log(gaps)) / np.diff(np.log(sizes))
        slacks += list(0.1 - np.abs(rates + 0.5))
    return Sweep("n 100 to 1600, three settings", slacks)


CLAIMS = (
    Claim(
        id="T2",
        paper_item="T2, the bound",
        statement="The gap term of the bound shrinks as 1/sqrt(n) and grows as 1/sqrt(delta).",
        assumptions=("all other constants fixed",),
        evidence=(proof(prove_monotonicity), sweep(bound_scales_as_stated)),
        recorded=Verdict.PROVED,
        formula="gap term * sqrt(n delta) is constant",
        functions=("bounds.risk.theorem_4_4",),
    ),
    Claim(
        id="T2, the gap itself",
        paper_item="T2, the gap",
        statement="The expected gap itself shrinks at the rate 1/sqrt(n) (exponent within 0.1).",
        assumptions=("one-parameter ridge regression",),
        evidence=(sweep(gap_rate_in_n),),
        recorded=Verdict.REFUTED,
        formula="E[R - Rhat] ~ n^(-1/2); measured: n^(-1)",
        functions=("exact.ridge.expected_risks",),
    ),
)
