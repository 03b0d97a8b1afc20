"""How often risk bounds fail, exactly: binomial sums over all samples of a small problem.

Slacks are delta minus the probability, over samples, that the risk exceeds the bound.
"""

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
from scipy.stats import binom

from lora_bounds.bounds.stability import uniform_stability
from lora_bounds.results import BoundResult
from lora_bounds.rounding import Array
from lora_bounds.trial.evidence import Sweep
from lora_bounds.trial.search import Problem

SIZES = (1, 2, 3, 5, 10, 30, 100, 1000)


DELTAS = (0.9, 0.5, 0.2, 0.05, 1e-3)


RISKS = np.append(np.linspace(0.0, 1.0, 21), [1e-3, 1e-2, 0.99, 0.999])


def linear_learner(bound: Callable[..., BoundResult]) -> list[float]:
    """Returns delta minus the failure probability for regularised linear losses.

    Examples z = -1 or 1 with P(z = 1) = pi; loss T - z t with T = 1/(2c), so rho = 1; objective
    mean loss + c t^2. Its minimiser is t = T mean(z), hence losses lie in [0, 2T].
    """
    slacks = []
    for n in SIZES:
        ones = np.arange(n + 1)
        for weight in (0.05, 0.5, 5.0):
            reach = 1 / (2 * weight)
            solution = reach * (2 * ones / n - 1)
            empirical = np.clip(reach - solution**2 / reach, 0.0, 2 * reach)
            for delta in DELTAS:
                limits = bound(
                    n=n, delta=delta, weight=weight, loss_range=2 * reach, empirical_risk=empirical
                ).value
                for pi in RISKS:
                    fails = reach - (2 * pi - 1) * solution > limits
                    slacks.append(delta - float(binom.pmf(ones, n, pi)[fails].sum()))
    return slacks


LINEAR_SCOPE = "regularised linear losses, n 1 to 1000, 5 deltas, 25 laws, 3 penalties, all samples"


def from_uniform(bound: Callable[..., BoundResult]) -> Sweep:
    """Sweep a bound at the uniform stability of the linear learner."""

    def with_stability(*, weight: float, n: int, **rest: object) -> BoundResult:
        # At p = 1, q = 1, so the penalty's weight lambda q is lambda.
        beta = uniform_stability(n=n, lipschitz=1.0, regularization=weight, dropout=1.0)
        return bound(n=n, stability=beta.value, **rest)

    return Sweep(LINEAR_SCOPE, linear_learner(with_stability))


def fixed_predictor(limits: Callable[[int, float], Array]) -> list[float]:
    """Returns delta minus the failure probability for one predictor and 0-1 loss."""
    slacks = []
    for n in SIZES:
        errors = np.arange(n + 1)
        for delta in DELTAS:
            above = limits(n, delta)
            for risk in RISKS:
                failing = float(binom.pmf(errors, n, risk)[risk > above].sum())
                slacks.append(delta - failing)
    return slacks


def draw_bernoulli(rng: np.random.Generator) -> Problem:
    """Draw a risk, a sample size and a failure probability."""
    return {
        "risk": rng.uniform(0.05, 0.95),
        "n": int(rng.integers(1, 60)),
        "delta": rng.uniform(0.02, 0.9),
    }


def bernoulli_ok(problem: Problem) -> bool:
    """Whether the numbers are a risk, a sample size and a failure probability."""
    return 0 < problem["risk"] < 1 and problem["n"] >= 1 and 0 < problem["delta"] < 1


def bernoulli_failure(problem: Problem, misses: Callable[[Any], Any]) -> Any:
    """Probability that a bound misses, summed over every possible number of errors."""
    n, risk = problem["n"], float(problem["risk"])
    bad = np.asarray(misses(np.arange(n + 1) / n), bool)
    return sum(comb(n, k) * risk**k * (1 - risk) ** (n - k) for k in range(n + 1) if bad[k])
