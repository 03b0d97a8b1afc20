"""Both sides of the claims about failure probabilities: right and corrupted.

Every function returns the two sides of a claim lhs <= rhs: a slow truth against the library's
formula.
"""

from collections.abc import Callable
from functools import cache
from itertools import product
from math import log, sqrt
from typing import Any

import numpy as np

from lora_bounds.controls import families
from lora_bounds.trial.control import Sides, equal
from lora_bounds.trial.search import Problem

# --- probabilities of failure --------------------------------------------------------------------


def hoeffding(*, power: float = 0.5, confidence: float = 1.0) -> Sides:
    """Claim that Hoeffding's bound fails with probability at most delta^confidence.

    Args:
        power: Exponent of ln(1/delta)/(2n); 1/2 is right.
        confidence: Exponent of delta in the claim; 1 is right.

    Returns:
        The two sides.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.bounds.held_out import hoeffding as bound

        n, delta, risk = problem["n"], float(problem["delta"]), float(problem["risk"])

        def misses(empirical: Any) -> Any:
            slack = bound(n=n, delta=delta, empirical_risk=0.0, loss_range=1.0).value ** (2 * power)
            return risk > empirical + slack

        return families.bernoulli_failure(problem, misses), delta**confidence

    return sides


def constant_hypothesis(exponent: int) -> Sides:
    """Claim that Lemma 4.3 with beta = 0 holds with n^exponent for a fixed hypothesis.

    Args:
        exponent: 1 is right.

    Returns:
        The two sides: exact failure probability and delta.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.bounds.risk import lemma_4_3

        delta, risk = float(problem["delta"]), float(problem["risk"])

        def misses(empirical: Any) -> Any:
            return risk > lemma_4_3(
                n=problem["n"] ** exponent, delta=delta, stability=0.0, loss_range=1.0,
                empirical_risk=empirical,
            ).value  # fmt: skip

        return families.bernoulli_failure(problem, misses), delta

    return sides


def two_sided_kl(*, with_logarithm: bool) -> Sides:
    """Claim kl(Rhat || R) <= (KL + ln(2 sqrt(n)/delta))/n on both sides, with KL = 0.

    Args:
        with_logarithm: Keep ln(2 sqrt(n)); without it the claim is false.

    Returns:
        The two sides: exact failure probability and delta.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.bounds.pac_bayes import kl_inverse

        n, delta, risk = problem["n"], float(problem["delta"]), float(problem["risk"])
        price = (log(2 * sqrt(n)) if with_logarithm else 0.0) - log(delta)

        def misses(empirical: Any) -> Any:
            above = kl_inverse(empirical_risk=empirical, bound=price / n)
            below = kl_inverse(empirical_risk=1 - empirical, bound=price / n)
            return (risk > np.asarray(above)) | (1 - risk > np.asarray(below))

        return families.bernoulli_failure(problem, misses), delta

    return sides


def memoriser(stability: float) -> Sides:
    """Claim that Lemma 4.3 holds for the memoriser with a given stability (truth: 1).

    Args:
        stability: beta.

    Returns:
        The two sides: exact failure probability and delta.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.bounds.risk import lemma_4_3

        delta = float(problem["delta"])
        slack = lemma_4_3(
            n=problem["n"], delta=delta, stability=stability, loss_range=1.0, empirical_risk=0.0
        ).value
        return families.memoriser_failure(problem, float(slack)), delta

    return sides


def kl_of_masks(corrupt: Callable[[Any], Any] = lambda p: p) -> Sides:
    """Claim that the PAC-Bayes dropout KL equals its mean over all masks.

    Args:
        corrupt: Changes the rate that enters the formula.

    Returns:
        The two sides.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.bounds.pac_bayes import dropout_kl

        shift, p = [float(u) for u in problem["update"]], float(problem["p"])
        truth = 0.0
        for keep in product((0, 1), repeat=len(shift)):
            probability = float(np.prod([1 - p if bit else p for bit in keep]))
            truth += probability * sum(u * u / 2 for u, bit in zip(shift, keep, strict=True) if bit)
        formula = dropout_kl(dropout=corrupt(p), squared_norm=sum(u * u for u in shift), width=1.0)
        return equal(truth, float(formula))

    return sides


def clopper_pearson_miss(delta: float) -> Callable[[np.random.Generator], bool]:
    """One trial: does the Clopper-Pearson upper limit miss a risk of 3/10 at n = 40?

    Args:
        delta: Its failure probability.

    Returns:
        The trial.
    """

    @cache
    def limit(errors: int) -> float:
        from lora_bounds.bounds.held_out import clopper_pearson

        return float(clopper_pearson(n=40, delta=delta, errors=errors).value)

    return lambda rng: limit(int(rng.binomial(40, 0.3))) < 0.3
