"""Bounds from a held-out sample, and the yardstick that they are for all others."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from lora_bounds.bounds.compare import compare_bounds
from lora_bounds.bounds.held_out import clopper_pearson, hoeffding
from lora_bounds.claims.failure_rates import (
    bernoulli_failure,
    bernoulli_ok,
    draw_bernoulli,
    fixed_predictor,
)
from lora_bounds.rounding import Array
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Control, Sides, pair
from lora_bounds.trial.evidence import Sweep, sweep
from lora_bounds.trial.frequency import RandomClaim
from lora_bounds.trial.search import Problem


def hoeffding_failures() -> Sweep:
    """Returns delta minus how often Hoeffding's bound fails."""

    def limits(n: int, delta: float) -> Array:
        rates = np.arange(n + 1) / n
        found = hoeffding(n=n, delta=delta, empirical_risk=rates, loss_range=1.0)
        return np.asarray(found.value)

    return Sweep("0-1 loss, n 1 to 1000, 5 deltas, 25 risks", fixed_predictor(limits))


def hoeffding_sides(*, power: float = 0.5, confidence: float = 1.0) -> Sides:
    """Claim that Hoeffding's bound fails with probability at most delta^confidence."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        n, delta, risk = problem["n"], float(problem["delta"]), float(problem["risk"])

        def misses(empirical: Any) -> Any:
            slack = hoeffding(n=n, delta=delta, empirical_risk=0.0, loss_range=1.0).value ** (
                2 * power
            )
            return risk > empirical + slack

        return bernoulli_failure(problem, misses), delta**confidence

    return sides


def clopper_pearson_failures() -> Sweep:
    """Returns delta minus how often Clopper and Pearson's bound fails."""

    def limits(n: int, delta: float) -> Array:
        return np.asarray(clopper_pearson(n=n, delta=delta, errors=np.arange(n + 1)).value)

    return Sweep("0-1 loss, n 1 to 1000, 5 deltas, 25 risks", fixed_predictor(limits))


def clopper_pearson_miss(delta: float) -> Callable[[np.random.Generator], bool]:
    """One trial: does the Clopper-Pearson upper limit miss a risk of 3/10 at n = 40?"""

    @cache
    def limit(errors: int) -> float:
        return float(clopper_pearson(n=40, delta=delta, errors=errors).value)

    return lambda rng: limit(int(rng.binomial(40, 0.3))) < 0.3


def held_out_is_the_yardstick() -> Sweep:
    """Returns each stability bound of the comparison minus the held-out one by Hoeffding."""
    slacks = []
    for n, p, lam, delta in product(
        (100, 3668, 10**6), (0.1, 0.5, 1.0), (0.1, 1.0, 1e3), (0.01, 0.1)
    ):
        rows = compare_bounds(
            n=n,
            delta=delta,
            dropout=p,
            lipschitz=1.0,
            regularized_lipschitz=1.0,
            curvature=0.0,
            regularization=lam,
            loss_range=1.0,
            empirical_risk=0.1,
            held_out_n=n,
            held_out_risk=0.1,
        )
        values = {row.name: float(np.asarray(row.result.value)) for row in rows}
        yardstick = values.pop("held-out, Hoeffding")
        slacks += [value - yardstick for value in values.values()]
    return Sweep("n 100 to 1e6, p 0.1 to 1, lambda 0.1 to 1000, delta 0.01 and 0.1", slacks)


CLAIMS = (
    Claim(
        id="Held-out, Hoeffding",
        paper_item="Hoeffding 1963 Theorem 1",
        statement="A held-out sample bounds the risk.",
        assumptions=("held-out examples played no part in training",),
        evidence=(sweep(hoeffding_failures),),
        recorded=Verdict.HOLDS,
        formula="R <= Rhat + C sqrt(ln(1/delta) / (2n))",
        functions=("bounds.held_out.hoeffding",),
        controls=(
            pair(
                "Hoeffding, square root dropped",
                "R <= Rhat + ln(1/delta)/(2n) with probability 1 - delta",
                draw_bernoulli,
                bernoulli_ok,
                false=hoeffding_sides(power=1.0),
                true=hoeffding_sides(),
            ),
            pair(
                "Hoeffding, delta squared",
                "R <= Rhat + sqrt(ln(1/delta)/(2n)) with probability 1 - delta^2",
                draw_bernoulli,
                bernoulli_ok,
                false=hoeffding_sides(confidence=2.0),
                true=hoeffding_sides(),
            ),
        ),
    ),
    Claim(
        id="Held-out, Clopper-Pearson",
        paper_item="Clopper and Pearson 1934",
        statement="The exact binomial tail bounds a 0-1 risk.",
        assumptions=("held-out examples played no part in training",),
        evidence=(sweep(clopper_pearson_failures),),
        recorded=Verdict.HOLDS,
        formula="R <= max {r : P(Bin(n, r) <= errors) >= delta}",
        functions=("bounds.held_out.clopper_pearson",),
        controls=(
            Control(
                "Clopper-Pearson, delta squared",
                "the limit for delta = 1/5 misses with probability at most 1/25",
                RandomClaim("false", "misses at most 1/25", clopper_pearson_miss(0.2), 0.04),
                RandomClaim("true", "misses at most 1/5", clopper_pearson_miss(0.2), 0.2),
                trials=2000,
            ),
        ),
    ),
    Claim(
        id="Held-out yardstick",
        paper_item="Thm 4.4, compared",
        statement="At equal n no stability bound is below the held-out one.",
        assumptions=("rho = 1, C = 1, Lmin = 0, Rhat = 0.1",),
        evidence=(sweep(held_out_is_the_yardstick),),
        recorded=Verdict.HOLDS,
        formula="every stability bound >= Rhat + sqrt(ln(1/delta)/(2n))",
        functions=("bounds.compare.compare_bounds", "bounds.compare.first_nonvacuous"),
    ),
)
