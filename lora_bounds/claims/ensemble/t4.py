"""T4: the expected loss of the average of N members does not rise with N (Eq. 8 at finite N)."""

from itertools import combinations
from typing import Any

import numpy as np

from lora_bounds.bounds.ensemble_risk import logistic_losses, squared_losses
from lora_bounds.claims.ensemble.members import (
    draw_members,
    expected_loss,
    members_ok,
    reversed_sides,
    sequences,
)
from lora_bounds.claims.ensemble.thm_4_5 import jensen_gaps, prove_jensen
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import pair
from lora_bounds.trial.evidence import ALGEBRA, Sweep, proof, sweep, unseen
from lora_bounds.trial.proof import Argument, Proof, require_z3
from lora_bounds.trial.search import Problem


def prove_ensemble_size() -> Proof:
    """Prove that one more exchangeable member never raises the expected convex loss."""
    import sympy

    z3 = require_z3()
    argument = Argument(
        "Members exchangeable, loss convex in the output: E loss(average of N+1) <= E "
        "loss(average of N) for every N >= 1. Exchangeability is needed: members of different "
        "quality can make it rise."
    )
    for size in (1, 2, 3, 4):
        members = sympy.symbols(f"o0:{size + 1}")
        leave_one_out = [
            sum(subset) / sympy.Integer(size) for subset in combinations(members, size)
        ]
        argument.zero(
            f"N = {size}: the average of {size + 1} is the mean of its leave-one-out averages",
            sum(members) / sympy.Integer(size + 1) - sum(leave_one_out) / sympy.Integer(size + 1),
        )
    n = sympy.Symbol("N", positive=True)
    argument.zero(
        "any N: each member is in N of the N+1 averages with weight 1/N, N/(N (N+1)) = 1/(N+1)",
        n / (n * (n + 1)) - 1 / (n + 1),
    )
    count, expected_next, expected, total = z3.Reals("count expected_next expected total")
    argument.implies(
        "Jensen over the leave-one-out averages, each of the same expected loss (exchangeable): "
        "E loss(N+1) <= (1/(N+1)) (N+1) E loss(N)",
        [count >= 2, count * expected_next <= total, total == count * expected],
        expected_next <= expected,
    )
    variance, first, second = z3.Reals("variance first second")
    argument.implies(
        "squared loss: V/(N+1) <= V/N",
        [variance >= 0, count >= 1, first * count == variance, second * (count + 1) == variance],
        second <= first,
    )
    return argument.done()


def larger_ensembles() -> Sweep:
    """Returns how much the expected loss falls from N to N+1, over all sequences of members."""
    rng, slacks = np.random.default_rng(7), []
    for _ in range(500):
        values = 10 ** rng.uniform(-1, 1) * rng.standard_normal(3)
        for name in ("squared", "logistic"):
            target = float(rng.standard_normal()) if name == "squared" else 1.0
            means = []
            for size in range(1, 7):
                outputs = sequences(values, size)
                losses = (
                    squared_losses(outputs=outputs, target=target)
                    if name == "squared"
                    else logistic_losses(logits=outputs, target=target)
                )
                means.append(float(np.mean(losses.ensemble)))
            slacks += list(-np.diff(means) + ALGEBRA * (1 + max(means)))
    return Sweep("500 random laws on 3 outputs, N 1 to 6, all sequences", slacks, unseen(500))


def one_more_member(problem: Problem) -> tuple[Any, Any]:
    """An ensemble of N+1 against one of N."""
    size = problem["size"]
    return expected_loss(problem, size + 1), expected_loss(problem, size)


CLAIMS = (
    Claim(
        id="Audit 11",
        paper_item="Eq. 8, finite N",
        statement="The expected loss of the average of N members does not rise with N.",
        assumptions=("exchangeable members", "the loss is convex in the output"),
        evidence=(proof(prove_ensemble_size), sweep(larger_ensembles)),
        recorded=Verdict.PROVED,
        formula="E loss(average of N+1) <= E loss(average of N)",
        functions=("bounds.ensemble_risk.squared_losses", "bounds.ensemble_risk.logistic_losses"),
        controls=(
            pair(
                "ensemble size reversed",
                "one more member never lowers the expected squared loss",
                draw_members,
                members_ok,
                false=reversed_sides(one_more_member),
                true=one_more_member,
            ),
        ),
    ),
    Claim(
        id="T4",
        paper_item="T4",
        statement="The ensemble is no worse than the mean member, and no worse as N grows.",
        assumptions=("the loss is convex in the output", "independent masks"),
        evidence=(
            proof(prove_jensen),
            proof(prove_ensemble_size),
            sweep(jensen_gaps),
            sweep(larger_ensembles),
        ),
        recorded=Verdict.PROVED,
        formula="loss(N = infinity) <= ... <= loss(N = 2) <= loss(N = 1) = mean member",
        functions=("bounds.ensemble_risk.squared_losses", "bounds.ensemble_risk.logistic_losses"),
    ),
)
