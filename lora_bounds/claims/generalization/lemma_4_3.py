"""Lemma 4.3: stability bounds the risk, if it is uniform stability."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from lora_bounds.bounds.risk import lemma_4_3
from lora_bounds.claims.failure_rates import (
    bernoulli_failure,
    bernoulli_ok,
    draw_bernoulli,
    from_uniform,
)
from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Sides, pair
from lora_bounds.trial.evidence import Sweep, counterexample, proof, sweep
from lora_bounds.trial.proof import Argument, Proof, require_z3
from lora_bounds.trial.search import Problem

UNIFORM = "uniform stability beta, not only pointwise hypothesis stability"


def prove_lemma_4_3() -> Proof:
    """Prove R <= Rhat + sqrt((C^2 + 8 C n beta)/(2 n delta)) when beta is a uniform stability."""
    import sympy

    z3 = require_z3()
    argument = Argument(
        "A symmetric algorithm, losses in an interval of length C, uniform stability beta for "
        "removing one point. Then E[(R - Rhat)^2] <= (C^2 + 8 C n beta)/(2n), and with "
        "probability at least 1 - delta over S, R <= Rhat + sqrt((C^2 + 8 C n beta)/(2 n delta)), "
        "which is below the sqrt((C^2 + 12 C n beta)/(2 n delta)) of Lemma 4.3. Pointwise "
        "hypothesis stability alone is not enough (see the counterexample to Lemma 4.3)."
    )
    # Two atoms, n = 2, symmetric algorithm: one free loss for each (multiset, point).
    weights = sympy.symbols("w0:2")

    def loss(sample: tuple[int, ...], point: int) -> sympy.Symbol:
        return sympy.Symbol("l_" + "".join(map(str, sorted(sample))) + f"_{point}")

    n = 2
    square = exchange = swapped_terms = sympy.Integer(0)
    for z1, z2, z, fresh in product(range(2), repeat=4):
        probability = weights[z1] * weights[z2] * weights[z] * weights[fresh]
        sample, first, second = (z1, z2), (fresh, z2), (z1, z)
        at = {point: loss(sample, point) for point in range(2)}
        at1 = {point: loss(first, point) for point in range(2)}  # z1 replaced by z'
        at2 = {point: loss(second, point) for point in range(2)}  # z2 replaced by z
        risk = sum(weights[point] * at[point] for point in range(2))
        square += probability * (risk - (at[z1] + at[z2]) / 2) ** 2
        exchange += probability * (at[z1] - at[z2]) ** 2 / (2 * n)
        swapped_terms += probability * (
            at[z] * (at[fresh] - at1[fresh])
            + at1[fresh] * (at[z] - at1[z])
            + (at[z2] - at2[z2]) * at[z1]
            + at2[z2] * (at[z1] - at2[z1])
        )
    sure = {weights[1]: 1 - weights[0]}
    argument.zero(
        "E(R-Rhat)^2 = E(l(z1)-l(z2))^2/(2n) + E of four terms, each a loss times the change of "
        "another loss when one point is replaced (2 atoms, n = 2, free weights and losses)",
        (square - exchange - swapped_terms).subs(sure),
    )
    argument.argued(
        "any space and n: rename z1 <-> z' and z2 <-> z in E[l(z)l(z') - 2 l(z)l(z1) + l(z1)l(z2)]"
    )
    size, value, change, beta, mean = z3.Reals("C value change beta mean")
    argument.implies(
        "losses shifted to [-C/2, C/2] (R - Rhat does not move), a replacement changes a loss by "
        "at most 2 beta: each term is at most C beta",
        [beta >= 0, size > 0, value <= size / 2, -value <= size / 2, change <= 2 * beta,
         -change <= 2 * beta],
        value * change <= size * beta,
    )  # fmt: skip
    argument.implies(
        "a difference of two losses is at most C, so the first part is at most C^2/(2n)",
        [size > 0, value <= size, -value <= size],
        value * value <= size * size,
    )
    count, second_moment = z3.Reals("count second_moment")
    argument.implies(
        "sum: E(R-Rhat)^2 <= C^2/(2n) + 4 C beta = (C^2 + 8 C n beta)/(2n)",
        [count >= 1, mean * (2 * count) <= size * size, second_moment <= mean + 4 * size * beta],
        second_moment * (2 * count) <= size * size + 8 * size * count * beta,
    )
    epsilon, probability, delta = z3.Reals("epsilon probability delta")
    argument.implies(
        "Chebyshev: P(R - Rhat >= eps) eps^2 <= E(R-Rhat)^2 <= delta eps^2 gives P <= delta",
        [epsilon > 0, delta > 0, probability * (epsilon * epsilon) <= second_moment,
         second_moment <= delta * (epsilon * epsilon)],
        probability <= delta,
    )  # fmt: skip
    argument.implies(
        "the constant 8 is below the paper's 12",
        [size > 0, count >= 1, beta >= 0],
        size * size + 8 * size * count * beta <= size * size + 12 * size * count * beta,
    )
    return argument.done()


def lemma_4_3_failures() -> Sweep:
    """Returns delta minus how often Lemma 4.3 fails at the repaired uniform stability."""
    return from_uniform(lemma_4_3)


def replay_lemma_4_3_pointwise_only(data: Data) -> Replay:
    """Replay an algorithm of stability 0 that memorises samples of even size."""
    atoms, n, delta = data["atoms"], data["n"], data["delta"]
    stability, bad, smallest = Fraction(0), 0, Fraction(1)
    for sample in product(range(atoms), repeat=n):
        seen = set(sample)  # even sample size: loss 0 on the sample, 1 elsewhere
        gap = Fraction(atoms - len(seen), atoms)  # the empirical risk is 0
        smallest = min(smallest, gap)
        # n - 1 is odd: A(S without z_i) has loss 0 everywhere, so |0 - 0| at z_i.
        stability += Fraction(sum(int(z not in seen) for z in sample), n)
        bad += gap**2 > Fraction(1) / (2 * n * delta)
    samples = atoms**n
    steps = [
        f"{atoms} equally likely points, n = {n}, loss in {{0, 1}}, C = 1, delta = {delta}",
        "algorithm: from a sample of even size return the hypothesis with loss 0 on the sample "
        "and 1 elsewhere; from a sample of odd size the one with loss 0 everywhere",
        f"pointwise hypothesis stability, all {samples} samples: {stability / samples}",
        f"R - Rhat >= {smallest} on every sample",
        f"Lemma 4.3 with beta = 0 allows sqrt(1/(2 n delta)) = sqrt({1 / (2 * n * delta)})",
        f"it fails on {bad} of {samples} samples; at most a fraction {delta} was allowed",
    ]
    lhs = Fraction(bad, samples)
    return replayed(lhs, delta, steps, bool(stability == 0 and n % 2 == 0 and lhs > delta))


def constant_sides(exponent: int) -> Sides:
    """Claim that Lemma 4.3 with beta = 0 holds with n^exponent for a fixed hypothesis."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        delta, risk = float(problem["delta"]), float(problem["risk"])

        def misses(empirical: Any) -> Any:
            return risk > lemma_4_3(
                n=problem["n"] ** exponent, delta=delta, stability=0.0, loss_range=1.0,
                empirical_risk=empirical,
            ).value  # fmt: skip

        return bernoulli_failure(problem, misses), delta

    return sides


def draw_memoriser(rng: np.random.Generator) -> Problem:
    """Draw the number of equally likely points, the sample size and delta."""
    return {
        "atoms": int(rng.integers(2, 12)),
        "n": int(rng.integers(1, 4)),
        "delta": rng.uniform(0.1, 0.9),
    }


def _memoriser_ok(problem: Problem) -> bool:
    return problem["atoms"] >= 1 and problem["n"] >= 1 and 0 < problem["delta"] < 1


def memoriser_failure(problem: Problem, slack: float) -> float:
    """Share of samples on which R - Rhat > slack for loss 0 on the sample and 1 elsewhere."""
    atoms, n = problem["atoms"], problem["n"]
    samples = product(range(atoms), repeat=n)
    return sum((atoms - len(set(s))) / atoms > slack for s in samples) / atoms**n


def memoriser_sides(stability: float) -> Sides:
    """Claim that Lemma 4.3 holds for the memoriser with a given stability (truth: 1)."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        delta = float(problem["delta"])
        slack = lemma_4_3(
            n=problem["n"], delta=delta, stability=stability, loss_range=1.0, empirical_risk=0.0
        ).value
        return memoriser_failure(problem, float(slack)), delta

    return sides


CLAIMS = (
    Claim(
        id="Lemma 4.3",
        paper_item="Lemma 4.3",
        statement="Pointwise hypothesis stability bounds the risk with probability 1 - delta.",
        assumptions=("i.i.d. sample", "symmetric algorithm", "losses within C"),
        evidence=(
            counterexample(replay_lemma_4_3_pointwise_only),
            proof(prove_lemma_4_3, assuming=UNIFORM),
            sweep(lemma_4_3_failures, assuming=UNIFORM),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="R <= Rhat + sqrt((C^2 + 12 C n beta) / (2 n delta))",
        functions=("bounds.risk.lemma_4_3",),
        controls=(
            pair(
                "Lemma 4.3, n squared",
                "R <= Rhat + C/sqrt(2 n^2 delta) with probability 1 - delta at beta = 0",
                draw_bernoulli,
                bernoulli_ok,
                false=constant_sides(2),
                true=constant_sides(1),
            ),
            pair(
                "Lemma 4.3, stability forgotten",
                "Lemma 4.3 at beta = 0 holds for an algorithm that memorises its sample",
                draw_memoriser,
                _memoriser_ok,
                false=memoriser_sides(0.0),
                true=memoriser_sides(1.0),
            ),
        ),
    ),
)
