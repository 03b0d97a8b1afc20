"""Eq. 8, squared loss: N independent members sit V/N above the infinite ensemble."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from lora_bounds.bounds.ensemble_risk import ensemble_excess, ensemble_loss, squared_losses
from lora_bounds.claims.ensemble.members import draw_members, expected_loss, members_ok, sequences
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Sides, equal, pair
from lora_bounds.trial.evidence import ALGEBRA, Sweep, agreement, proof, sweep, unseen
from lora_bounds.trial.proof import Argument, Proof
from lora_bounds.trial.search import Problem


def prove_ensemble_variance() -> Proof:
    """Prove E norm(y - mean of N members)^2 = norm(y - mean)^2 + V/N."""
    import sympy

    argument = Argument(
        "N independent members with mean mu and variance V = E norm(member - mu)^2, loss "
        "norm(y - output)^2: expected loss of their average = norm(y - mu)^2 + V/N (for the loss "
        "(1/2) norm^2 the excess is V/(2N)). With equal pair covariance c instead of independence: "
        "V/N + (1 - 1/N) c."
    )
    y, weight, first, second = sympy.symbols("y w o1 o2")
    law = ((first, weight), (second, 1 - weight))
    mean = sum(prob * value for value, prob in law)
    variance = sum(prob * (value - mean) ** 2 for value, prob in law)
    for size in (1, 2, 3):
        expected = sum(
            sympy.prod([prob for _, prob in members])
            * (y - sum(value for value, _ in members) / sympy.Integer(size)) ** 2
            for members in product(law, repeat=size)
        )
        argument.zero(
            f"N = {size}: any two-point law, all {2**size} ensembles summed",
            expected - (y - mean) ** 2 - variance / size,
        )
    n, v, c = sympy.symbols("N V c")
    argument.zero(
        "any N: N members of variance V and N(N-1) ordered pairs of covariance c over N^2",
        (n * v + n * (n - 1) * c) / n**2 - v / n - (1 - 1 / n) * c,
    )
    argument.argued("independent members: c = 0; vectors: add the coordinates; E(y - avg) = y - mu")
    return argument.done()


def excess_is_variance_over_size() -> Sweep:
    """Returns loss(mean) + V/N against the mean over all sequences of N members."""
    rng, slacks = np.random.default_rng(8), []
    for _ in range(500):
        values, target = rng.standard_normal(3), float(rng.standard_normal())
        limit, variance = float((values.mean() - target) ** 2), float(values.var())
        for size in range(1, 7):
            found = np.mean(squared_losses(outputs=sequences(values, size), target=target).ensemble)
            formula = ensemble_loss(infinite_loss=limit, variance=variance, n_instances=size)
            excess = ensemble_excess(variance=variance, n_instances=size)
            slacks.append(agreement(formula, found, ALGEBRA))
            slacks.append(agreement(limit + np.asarray(excess), found, ALGEBRA))
    return Sweep("500 random laws on 3 outputs, N 1 to 6, all sequences", slacks, unseen(500))


def excess_sides(corrupt: Callable[[Any, int], Any] = lambda value, size: value) -> Sides:
    """Claim that an ensemble's squared loss is loss(mean) + V/N."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        outputs = [float(o) for o in problem["outputs"]]
        formula = float(ensemble_excess(variance=np.var(outputs), n_instances=problem["size"]))
        base = (float(problem["target"]) - float(np.mean(outputs))) ** 2
        truth = float(expected_loss(problem, problem["size"]))
        return equal(truth, base + corrupt(formula, problem["size"]))

    return sides


CLAIMS = (
    Claim(
        id="Eq. 8",
        paper_item="Eq. 8, squared loss",
        statement="An ensemble of N independent members sits exactly V/N above the infinite one.",
        assumptions=("squared loss norm(y - output)^2; with the factor 1/2 it is V/(2N)",),
        evidence=(proof(prove_ensemble_variance), sweep(excess_is_variance_over_size)),
        recorded=Verdict.PROVED,
        formula="E loss(average of N) = loss(mean) + V/N",
        functions=(
            "bounds.ensemble_risk.ensemble_excess",
            "bounds.ensemble_risk.ensemble_loss",
            "bounds.ensemble_risk.squared_losses",
        ),
        controls=(
            pair(
                "V/N replaced by V/N^2",
                "the squared loss of N members is loss(mean) + V/N^2",
                draw_members,
                members_ok,
                false=excess_sides(lambda value, size: value / size),
                true=excess_sides(),
            ),
        ),
    ),
)
