"""T1 with few examples, and the critical ratio in the limit of Marchenko and Pastur."""

import numpy as np

from lora_bounds.claims.regimes.gaussian_inputs import GAUSSIAN, WEIGHTS
from lora_bounds.exact.ridge_regimes import critical_ratio, turning_ratio
from lora_bounds.exact.spectra import marchenko_pastur, wishart_spectrum
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, sweep

GOLDEN = (3.0 - 5.0**0.5) / 2.0


def few_examples() -> Sweep:
    """Returns minus the largest turning ratio where the criterion says that none is positive.

    In the limit up to n/d = (3 - sqrt 5)/2, and for finite n and d with
    (d-n)(d-n-3) >= n(d-1): E 1/mu >= E 1/mu^2 over the eigenvalues that are not 0.
    """
    slacks = []
    for aspect in (0.05, 0.2, 0.3, 0.35, 0.38, GOLDEN):
        spectrum = marchenko_pastur(aspect=aspect)
        slacks += list(-np.asarray(turning_ratio(spectrum=spectrum, weight=WEIGHTS)) + ALGEBRA)
    for d in range(5, 65):
        for n in range(1, d - 3):
            if (d - n) * (d - n - 3) >= n * (d - 1):
                spectrum = wishart_spectrum(n=n, d=d)
                found = np.asarray(turning_ratio(spectrum=spectrum, weight=WEIGHTS[::8]))
                slacks += list(-found + ALGEBRA)
    return Sweep("six n/d in the limit, all n and d <= 64 that satisfy the criterion", slacks)


def limit_of_the_boundary() -> Sweep:
    """Returns 1/(3d) minus the distance of the exact boundary from its limit, and 1/3 minus it."""
    slacks = []
    for aspect in (0.5, 1.0, 2.0, 5.0, 20.0):
        limit = critical_ratio(spectrum=marchenko_pastur(aspect=aspect)).ratio
        slacks.append(1 / 3 - limit)
        for d in (4, 8, 16, 32, 64):
            exact = critical_ratio(spectrum=wishart_spectrum(n=round(aspect * d), d=d)).ratio
            slacks.append(1 / (3 * d) - abs(exact - limit))
    return Sweep("n/d 0.5 to 20, d 4 to 64", slacks)


CLAIMS = (
    Claim(
        id="T1, few examples",
        paper_item="T1, regimes",
        statement=(
            "With at most (3 - sqrt 5)/2 = 0.38 examples per input the gap falls with p at every "
            "noise level, even without noise."
        ),
        assumptions=("ridge regression", GAUSSIAN, "n and d large, or (d-n)(d-n-3) >= n(d-1)"),
        evidence=(sweep(few_examples),),
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
        evidence=(sweep(limit_of_the_boundary),),
        recorded=Verdict.HOLDS,
        formula="abs(exact - limit) <= 1/(3d)",
        functions=("exact.spectra.marchenko_pastur", "exact.ridge_regimes.critical_ratio"),
    ),
)
