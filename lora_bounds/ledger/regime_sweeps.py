"""The sweeps behind the regimes of T1: exact for Gaussian inputs, by enumeration for others."""

import numpy as np
from scipy.stats import binom

from lora_bounds.bounds.sparsity import drop_probability
from lora_bounds.exact.dropout_regimes import (
    dropout_limit_risks,
    dropout_turning_ratio,
    sampled_dropout_risks,
)
from lora_bounds.exact.regime_grid import regime_map, rising_rates
from lora_bounds.exact.ridge_regimes import critical_ratio, ridge_risks, turning_ratio
from lora_bounds.exact.spectra import marchenko_pastur, wishart_spectrum
from lora_bounds.ledger.evidence import ALGEBRA, Sweep, agreement, unseen
from lora_bounds.ledger.ridge_curves import critical_ratio_of, curves
from lora_bounds.rounding import Array
from lora_bounds.trial.trends import page_trend

_WEIGHTS = np.geomspace(1e-4, 1e4, 161)
GOLDEN = (3.0 - 5.0**0.5) / 2.0


def _shapes(seed: int, count: int) -> list[tuple[int, int]]:
    """Returns random n and d, uniform in the log, up to 64."""
    rng = np.random.default_rng(seed)
    return [(int(a), int(b)) for a, b in np.exp(rng.uniform(0.0, np.log(65), (count, 2)))]


def _gap(n: int, d: int, ratio: float) -> Array:
    spectrum = wishart_spectrum(n=n, d=d)
    found = ridge_risks(spectrum=spectrum, weight=_WEIGHTS, signal_power=1.0, noise_variance=ratio)
    return np.asarray(found.gap)


def gaussian_spectra() -> Sweep:
    """Returns three moments of the exact spectrum against their closed forms."""
    slacks = []
    for n, d in _shapes(30, 300):
        found = wishart_spectrum(n=n, d=d)
        third = (n**2 + 3 * n * d + d**2 + 3 * n + 3 * d + 4) / n**2
        moments = [found.weights @ found.values**k for k in (1, 2, 3)]
        slacks.append(agreement(moments, [1.0, 1 + (d + 1) / n, third], ALGEBRA))
    return Sweep("300 random n and d up to 64", slacks, unseen(300))


def gap_when_noise_dominates() -> Sweep:
    """Returns how much the exact gap falls at each step of w, at noise variance 2/3 of signal."""
    slacks: list[float] = []
    for n, d in _shapes(31, 300):
        slacks += list(-np.diff(_gap(n, d, 2 / 3)))
    return Sweep(
        "300 random n and d up to 64, w = 2 lambda q from 1e-4 to 1e4", slacks, unseen(300)
    )


def gaussian_boundary() -> Sweep:
    """Returns the fall just above the critical ratio and the rise just below it.

    Both are relative to the gap there. A boundary below 1e-3, where rounding would decide, is
    left to `few_examples`.
    """
    slacks = []
    for n, d in _shapes(32, 200):
        boundary = critical_ratio(spectrum=wishart_spectrum(n=n, d=d))
        slacks.append(2 / 3 - boundary.ratio)
        if boundary.ratio < 1e-3:
            continue
        above = _gap(n, d, 1.01 * boundary.ratio)
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


def few_examples() -> Sweep:
    """Returns minus the largest turning ratio where the criterion says that none is positive.

    In the limit up to n/d = (3 - sqrt 5)/2, and for finite n and d with
    (d-n)(d-n-3) >= n(d-1): E 1/mu >= E 1/mu^2 over the eigenvalues that are not 0.
    """
    slacks = []
    for aspect in (0.05, 0.2, 0.3, 0.35, 0.38, GOLDEN):
        spectrum = marchenko_pastur(aspect=aspect)
        slacks += list(-np.asarray(turning_ratio(spectrum=spectrum, weight=_WEIGHTS)) + ALGEBRA)
    for d in range(5, 65):
        for n in range(1, d - 3):
            if (d - n) * (d - n - 3) >= n * (d - 1):
                spectrum = wishart_spectrum(n=n, d=d)
                found = np.asarray(turning_ratio(spectrum=spectrum, weight=_WEIGHTS[::8]))
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


_RATES = np.array([0.02, 0.06, 0.1, 0.15, 0.3, 0.5, 0.7, 0.9])
_TURN = 4  # rates up to 0.15 lie before the turn down, at noise 0
_CHANCE = 1e-6


def _layers() -> list[tuple[int, Array]]:
    def correlated(d: int, rho: float) -> Array:
        return np.asarray(rho ** np.abs(np.subtract.outer(np.arange(d), np.arange(d))))

    return [(n, correlated(10, rho)) for n in (20, 40) for rho in (0.0, 0.5)]


def dropout_gap_under_noise() -> Sweep:
    """Returns 1e-6 minus Page's p-value for a falling gap, with noise variance = signal power."""
    slacks = []
    for n, sigma in _layers():
        found = sampled_dropout_risks(n=n, second_moment=sigma, dropout=_RATES, samples=60, seed=40)
        trend = page_trend(found.gap(noise_to_signal=1.0), direction="decreasing")
        slacks.append(_CHANCE - trend.p_value)
    scope = "d = 10, n 20 and 40, correlation 0 and 0.5, 60 samples each, Page's test"
    return Sweep(scope, slacks, 4 * _CHANCE)


def dropout_gap_without_noise() -> Sweep:
    """Returns 1e-6 minus Page's p-values for a rise up to p = 0.15 and a fall from p = 0.3 on."""
    slacks = []
    for n, sigma in _layers():
        found = sampled_dropout_risks(
            n=n, second_moment=sigma, dropout=_RATES, samples=400, seed=41
        )
        gap = found.gap(noise_to_signal=0.0)
        slacks.append(_CHANCE - page_trend(gap[:, :_TURN], direction="increasing").p_value)
        slacks.append(_CHANCE - page_trend(gap[:, _TURN:], direction="decreasing").p_value)
    scope = "d = 10, n 20 and 40, correlation 0 and 0.5, 400 samples each, Page's test"
    return Sweep(scope, slacks, 8 * _CHANCE)


def dropout_limit() -> Sweep:
    """Returns how much the limit of the gap falls at each p, at noise variance 0.21 of signal.

    And 0.201 minus the turning ratio there.
    """
    rates, slacks = np.linspace(0.002, 0.998, 499), []
    for aspect in (0.1, 0.4, 0.5, 0.8, 1.0, 1.5, 3.0, 10.0, 100.0, 1e4):
        spectrum = marchenko_pastur(aspect=aspect)
        found = dropout_limit_risks(
            aspect_spectrum=spectrum, dropout=rates, signal_power=1.0, noise_variance=0.21
        )
        slacks += list(-np.diff(np.asarray(found.gap)))
        ratio = np.asarray(dropout_turning_ratio(aspect_spectrum=spectrum, dropout=rates))
        slacks += list(0.201 - ratio)
        if aspect <= 0.5:
            slacks += list(ALGEBRA - ratio)
    return Sweep("n/d 0.1 to 1e4, p 0.002 to 0.998", slacks)
