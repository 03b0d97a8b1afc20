"""The critical ratio of noise to signal that parts the regimes of T1."""

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import binom

from lora_bounds.bounds.sparsity import drop_probability
from lora_bounds.claims.regimes.atoms import critical_ratio_of, curves
from lora_bounds.claims.regimes.gaussian_inputs import GAUSSIAN, gap_over_weights, shapes
from lora_bounds.exact.regime_grid import regime_map, rising_rates
from lora_bounds.exact.ridge import expected_risks, population_risk
from lora_bounds.exact.ridge_regimes import critical_ratio, ridge_risks
from lora_bounds.exact.spectra import marchenko_pastur, wishart_spectrum
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Sides, equal, pair
from lora_bounds.trial.evidence import ALGEBRA, Sweep, agreement, sweep, unseen
from lora_bounds.trial.search import Problem


def gaussian_boundary() -> Sweep:
    """Returns the fall just above the critical ratio and the rise just below it.

    Both are relative to the gap there. A boundary below 1e-3, where rounding would decide, is
    left to `few_examples`.
    """
    slacks = []
    for n, d in shapes(32, 200):
        boundary = critical_ratio(spectrum=wishart_spectrum(n=n, d=d))
        slacks.append(2 / 3 - boundary.ratio)
        if boundary.ratio < 1e-3:
            continue
        above = gap_over_weights(n, d, 1.01 * boundary.ratio)
        below = ridge_risks(
            spectrum=wishart_spectrum(n=n, d=d),
            weight=boundary.weight * np.array([0.999, 1.001]),
            signal_power=1.0,
            noise_variance=0.99 * boundary.ratio,
        )
        slacks += list(-np.diff(above) / above[:-1])
        slacks.append(float(np.diff(np.asarray(below.gap))[0]))
    return Sweep("200 random n and d up to 64, all lambda", slacks, unseen(200))


def regimes_on_a_map() -> Sweep:
    """Returns how far the gap obeys the map: rising between the rates it names, else falling."""
    aspects, lambdas, noises = (0.3, 0.6, 1.0, 2.0, 5.0), (0.05, 0.5, 5.0), (0.0, 0.02, 0.1, 0.3)
    found = regime_map(aspects=aspects, regularizations=lambdas, noise_to_signal=noises, d=10)
    rates, slacks = np.linspace(0.01, 1.0, 100), []
    for i, j, k in np.ndindex(5, 3, 4):
        spectrum = wishart_spectrum(n=round(10 * aspects[i]), d=10)
        rise = rising_rates(spectrum=spectrum, regularization=lambdas[j], noise_to_signal=noises[k])
        start, end = (2.0, 2.0) if rise is None else (rise.start, rise.end)
        turns = noises[k] < found.critical[i, j]
        slacks.append(0.0 if turns == (rise is not None) else -1.0)
        weight = 2 * lambdas[j] * np.asarray(drop_probability(dropout=rates))
        steps = np.diff(
            np.asarray(
                ridge_risks(
                    spectrum=spectrum, weight=weight, signal_power=1.0, noise_variance=noises[k]
                ).gap
            )
        )
        inside = (rates[:-1] >= start) & (rates[1:] <= end)
        outside = (rates[1:] <= start) | (rates[:-1] >= end)
        slacks += list(steps[inside] + ALGEBRA) + list(ALGEBRA - steps[outside])
    return Sweep("d = 10, five n/d, three lambda, four noise levels, 100 rates", slacks)


def gaussian_spectra() -> Sweep:
    """Returns three moments of the exact spectrum against their closed forms."""
    slacks = []
    for n, d in shapes(30, 300):
        found = wishart_spectrum(n=n, d=d)
        third = (n**2 + 3 * n * d + d**2 + 3 * n + 3 * d + 4) / n**2
        moments = [found.weights @ found.values**k for k in (1, 2, 3)]
        slacks.append(agreement(moments, [1.0, 1 + (d + 1) / n, third], ALGEBRA))
    return Sweep("300 random n and d up to 64", slacks, unseen(300))


def risks_against_formula() -> Sweep:
    """Returns the ridge risks of `exact.ridge` against the sums over samples used here."""
    rng, slacks = np.random.default_rng(17), []
    for _ in range(300):
        d, n = int(rng.integers(1, 4)), 2
        atoms, truth = rng.standard_normal((4, d)), rng.standard_normal(d)
        sigma, noise = atoms.T @ atoms / 4, float(rng.uniform(0, 2))
        lam, p = float(10 ** rng.uniform(-1, 1)), float(rng.uniform(0.1, 1))
        law = curves(atoms, truth, n, np.array([2 * lam * (2 * p - p * p)]))
        sums = np.zeros(3)
        for index in np.ndindex(*(4,) * n):
            found = expected_risks(
                inputs=atoms[list(index)],
                truth=truth,
                second_moment=sigma,
                noise=noise,
                regularization=lam,
                dropout=p,
            )
            sums += np.array([found.train, found.test, found.gap]) / 4**n
        train = law.signal_train[0] + noise**2 * law.noise_train[0]
        test = law.signal_test[0] + noise**2 * law.noise_test[0]
        slacks.append(agreement(sums, [train, test, test - train], ALGEBRA))
        found_risk = population_risk(
            solution=np.zeros(d), truth=truth, second_moment=sigma, noise=noise
        )
        slacks.append(agreement(found_risk, (law.power + noise**2) / 2, ALGEBRA))
    return Sweep("300 random laws on 4 atoms, all samples of 2", slacks, unseen(300))


def draw_regime(rng: np.random.Generator) -> Problem:
    """Draw a sample size, a number of inputs and a penalty."""
    d = int(rng.integers(1, 12))
    return {"n": int(rng.integers(d, 40)), "d": d, "weight": 10 ** rng.uniform(-1.5, 1)}


def regime_ok(problem: Problem) -> bool:
    """Whether there are at least as many examples as inputs, and a penalty that is no extreme."""
    return 1 <= problem["d"] <= problem["n"] <= 60 and 0.01 <= problem["weight"] <= 100


@lru_cache(maxsize=4096)
def _boundary(n: int, d: int) -> float:
    """The critical ratio, which a claim and its twin both ask for."""
    return critical_ratio(spectrum=wishart_spectrum(n=n, d=d)).ratio


def falls_at(share: float) -> Sides:
    """Claim that the gap does not rise with w at this share of the critical ratio."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        spectrum = wishart_spectrum(n=problem["n"], d=problem["d"])
        gap = ridge_risks(
            spectrum=spectrum,
            weight=float(problem["weight"]) * np.array([0.999, 1.001]),
            signal_power=1.0,
            noise_variance=share * _boundary(problem["n"], problem["d"]),
        ).gap
        return float(np.diff(np.asarray(gap))[0]), 0.0

    return sides


def second_moment_sides(*, limit: bool) -> Sides:
    """Claim a mean of the squared eigenvalue; 1 + (d+1)/n is right for every n and d."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        n, d = problem["n"], problem["d"]
        found = marchenko_pastur(aspect=n / d) if limit else wishart_spectrum(n=n, d=d)
        return equal(float(found.weights @ found.values**2), 1 + (d + 1) / n)

    return sides


def heavy_tails() -> Sweep:
    """Returns 1 minus the critical ratio for inputs 1 (nine times in ten) and 10, six examples."""
    atoms = np.array([[1.0]] * 9 + [[10.0]])
    law = curves(atoms, np.ones(1), n=6)
    return Sweep("one input, 1 or 10, n = 6, every sample", 1 - critical_ratio_of(law))


def many_examples() -> Sweep:
    """Returns 0.01 minus the relative distance of the critical ratio from its limit in n.

    One input of two values: the sample is a binomial count, summed exactly.
    """
    slacks, n, w = [], 20_000, np.geomspace(0.05, 5, 200)[:, None]
    for low, high, share in ((1.0, 10.0, 0.1), (1.0, 2.0, 0.5), (0.5, 3.0, 0.2)):
        scale = (1 - share) * low**2 + share * high**2
        small, large = low**2 / scale, high**2 / scale
        count = np.arange(n + 1)
        chance, mu = binom.pmf(count, n, share), small + (large - small) * count / n
        rise = (w * mu * (1 - mu) / (mu + w) ** 3) @ chance
        fall = ((1 + w) * mu / (mu + w) ** 3) @ chance / n
        fourth = (1 - share) * small**2 + share * large**2
        slacks.append(0.01 - abs(float(np.max(rise / fall)) / ((fourth - 1) / 3) - 1))
    return Sweep("three laws of two values, n = 20000", slacks)


CLAIMS = (
    Claim(
        id="Audit 9",
        paper_item="T1, regimes",
        statement=(
            "A critical ratio of noise variance to signal power, below 2/3, parts the regimes: "
            "above it the gap falls throughout; below it, it rises in an interval of p."
        ),
        assumptions=("ridge regression", GAUSSIAN),
        evidence=(
            sweep(gaussian_boundary),
            sweep(regimes_on_a_map),
            sweep(gaussian_spectra),
            sweep(risks_against_formula),
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
        controls=(
            pair(
                "T1, critical ratio halved",
                "the gap never rises at half the critical ratio of noise to signal",
                draw_regime,
                regime_ok,
                false=falls_at(0.5),
                true=falls_at(1.0),
            ),
            pair(
                "T1, limit taken for exact",
                "the eigenvalues of a finite sample have the second moment of Marchenko and Pastur",
                draw_regime,
                regime_ok,
                false=second_moment_sides(limit=True),
                true=second_moment_sides(limit=False),
            ),
        ),
    ),
    Claim(
        id="Audit 9, every law",
        paper_item="T1, regimes",
        statement="Noise of the signal's variance makes the gap fall with p whatever the inputs.",
        assumptions=("ridge regression, targets linear in the inputs plus noise, theta0 = 0",),
        evidence=(sweep(heavy_tails),),
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
        evidence=(sweep(many_examples),),
        recorded=Verdict.HOLDS,
        formula="(E[x^4] - 1)/3, at w = 1/2",
        functions=("exact.ridge.expected_risks",),
    ),
)
