"""Both sides of the claims about the regimes of T1: right and corrupted."""

from typing import Any

import numpy as np

from lora_bounds.trial.control import Sides, equal
from lora_bounds.trial.search import Problem


def draw_regime(rng: np.random.Generator) -> Problem:
    """Draw a sample size, a number of inputs and a penalty.

    Args:
        rng: Generator.

    Returns:
        ``n``, ``d`` and ``weight`` (w = 2 lambda q).
    """
    d = int(rng.integers(1, 12))
    return {
        "n": int(rng.integers(d, 40)),
        "d": d,
        "weight": 10 ** rng.uniform(-1.5, 1),
    }


def regime_ok(problem: Problem) -> bool:
    """Whether there are at least as many examples as inputs, and a penalty that is no extreme.

    Args:
        problem: A problem.

    Returns:
        True when it belongs to the family.
    """
    return 1 <= problem["d"] <= problem["n"] <= 60 and 0.01 <= problem["weight"] <= 100


def falls_at(share: float) -> Sides:
    """Claim that the gap does not rise with w at this share of the critical ratio.

    Args:
        share: 1 or more is right.

    Returns:
        The two sides: the rise over a small step, and 0.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.exact.ridge_regimes import critical_ratio, ridge_risks
        from lora_bounds.exact.spectra import wishart_spectrum

        spectrum = wishart_spectrum(n=problem["n"], d=problem["d"])
        gap = ridge_risks(
            spectrum=spectrum,
            weight=float(problem["weight"]) * np.array([0.999, 1.001]),
            signal_power=1.0,
            noise_variance=share * critical_ratio(spectrum=spectrum).ratio,
        ).gap
        return float(np.diff(np.asarray(gap))[0]), 0.0

    return sides


def second_moment(*, limit: bool) -> Sides:
    """Claim a mean of the squared eigenvalue; 1 + (d+1)/n is right for every n and d.

    Args:
        limit: Take the limit's for the exact one: false.

    Returns:
        The two sides of the equality.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.exact.spectra import marchenko_pastur, wishart_spectrum

        n, d = problem["n"], problem["d"]
        found = marchenko_pastur(aspect=n / d) if limit else wishart_spectrum(n=n, d=d)
        return equal(float(found.weights @ found.values**2), 1 + (d + 1) / n)

    return sides
