"""Thm 4.5: for a loss convex in the output the ensemble is no worse than the mean member."""

from typing import Any

import numpy as np

from lora_bounds.bounds.ensemble_risk import (
    EnsembleLosses,
    cross_entropy_losses,
    logistic_losses,
    squared_losses,
)
from lora_bounds.claims.ensemble.members import (
    draw_members,
    expected_loss,
    members_ok,
    reversed_sides,
)
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import pair
from lora_bounds.trial.evidence import ALGEBRA, Sweep, proof, sweep, unseen
from lora_bounds.trial.proof import Argument, Proof, require_z3
from lora_bounds.trial.search import Problem


def prove_jensen() -> Proof:
    """Prove Thm 4.5 by induction over the members, and the convexity of the usual losses."""
    import sympy

    z3 = require_z3()
    argument = Argument(
        "If the loss is convex in the final output, the loss of a weighted mean of members is at "
        "most the weighted mean of their losses, for any number of members and weights, hence in "
        "expectation over the data: the ensemble is no worse than the mean member. Squared, "
        "logistic and softmax cross-entropy loss (averaging logits) and -log p (averaging "
        "probabilities) are convex."
    )
    t, loss_mix, loss_mean, loss_new, average = z3.Reals("t loss_mix loss_mean loss_new average")
    argument.implies(
        "induction: loss(mean of first) <= average of first losses (H) and convexity at weight t "
        "of the new member: loss((1-t) mean + t new) <= (1-t) average + t loss(new)",
        [t >= 0, t <= 1, loss_mean <= average, loss_mix <= (1 - t) * loss_mean + t * loss_new],
        loss_mix <= (1 - t) * average + t * loss_new,
    )
    n = sympy.Symbol("N", positive=True)
    head, new = sympy.symbols("head new")
    argument.zero(
        "N + 1 equal weights are t = 1/(N+1) of this kind: (N head + new)/(N+1)",
        (n * head + new) / (n + 1) - (1 - 1 / (n + 1)) * head - new / (n + 1),
    )
    weight, ens1, ens2, mean1, mean2 = z3.Reals("weight ens1 ens2 mean1 mean2")
    argument.implies(
        "expectation over two data points of any weight keeps the order",
        [weight >= 0, weight <= 1, ens1 <= mean1, ens2 <= mean2],
        weight * ens1 + (1 - weight) * ens2 <= weight * mean1 + (1 - weight) * mean2,
    )
    o, y = sympy.symbols("o y", real=True)
    argument.check("squared loss: second derivative 1 > 0", sympy.diff((y - o) ** 2 / 2, o, 2) == 1)
    e = sympy.Symbol("e", positive=True)  # exp(-o)
    logistic = sympy.diff(sympy.log(1 + sympy.exp(-o)), o, 2)
    argument.zero(
        "logistic loss: second derivative e/(1+e)^2 with e = exp(-o)",
        logistic.subs(sympy.exp(-o), e).rewrite(sympy.exp).subs(sympy.exp(-o), e)
        - e / (1 + e) ** 2,
    )
    argument.check("which is positive", bool((e / (1 + e) ** 2).is_positive))
    weights = sympy.symbols("p0:3")
    v = sympy.symbols("v0:3")
    softmax_form = sum(p * x**2 for p, x in zip(weights, v, strict=True))
    softmax_form -= sum(p * x for p, x in zip(weights, v, strict=True)) ** 2
    pairs = sum(
        weights[i] * weights[j] * (v[i] - v[j]) ** 2 for i in range(3) for j in range(i + 1, 3)
    )
    last = {weights[2]: 1 - weights[0] - weights[1]}
    argument.zero(
        "cross-entropy in the logits: v^T(diag p - p p^T)v = sum_{i<j} p_i p_j (v_i - v_j)^2 >= 0",
        (softmax_form - pairs).subs(last),
    )
    prob = sympy.Symbol("prob", positive=True)
    argument.check(
        "cross-entropy in the probabilities: (-log p)'' = 1/p^2 > 0",
        sympy.diff(-sympy.log(prob), prob, 2) == 1 / prob**2,
    )
    argument.argued(
        "general mask laws: at most countably many masks; any law: supporting hyperplane"
    )
    return argument.done()


def _every_loss(rng: np.random.Generator, members: int) -> list[EnsembleLosses]:
    scale = 10 ** rng.uniform(-2, 2)
    outputs = scale * rng.standard_normal((members, 20))
    classes = int(rng.integers(2, 6))
    logits = scale * rng.standard_normal((members, 20, classes))
    label = rng.integers(0, classes, 20)
    return [
        squared_losses(outputs=outputs, target=rng.standard_normal(20)),
        logistic_losses(logits=outputs, target=rng.choice([-1.0, 1.0], 20)),
        cross_entropy_losses(logits=logits, label=label, average="probabilities"),
        cross_entropy_losses(logits=logits, label=label, average="logits"),
    ]


def jensen_gaps() -> Sweep:
    """Returns mean member minus ensemble, relative, for four convex losses."""
    rng, slacks = np.random.default_rng(6), []
    for _ in range(1000):
        for losses in _every_loss(rng, int(rng.integers(1, 9))):
            room = ALGEBRA * (1 + np.abs(losses.mean_member))
            slacks.append(
                float(
                    np.min(
                        (losses.mean_member - losses.ensemble + room)
                        / (1 + np.abs(losses.mean_member))
                    )
                )
            )
    scope = (
        "1000 x 20 random ensembles of 1 to 8; squared, logistic, cross-entropy in both averages"
    )
    return Sweep(scope, slacks, unseen(1000))


def ensemble_against_member(problem: Problem) -> tuple[Any, Any]:
    """Thm 4.5 for the squared loss: the infinite ensemble against the mean member."""
    outputs, y = problem["outputs"], problem["target"]
    mean = sum(outputs) / len(outputs)
    return (y - mean) ** 2, expected_loss(problem, 1)


CLAIMS = (
    Claim(
        id="Thm 4.5",
        paper_item="Thm 4.5",
        statement="For a loss convex in the output the ensemble is no worse than the mean member.",
        assumptions=("the loss is convex in the final activation",),
        evidence=(proof(prove_jensen), sweep(jensen_gaps)),
        recorded=Verdict.PROVED,
        formula="E loss(E_theta M(x; theta), y) <= E_theta E loss(M(x; theta), y)",
        functions=(
            "bounds.ensemble_risk.squared_losses",
            "bounds.ensemble_risk.logistic_losses",
            "bounds.ensemble_risk.cross_entropy_losses",
        ),
        controls=(
            pair(
                "ensemble order reversed",
                "the mean member is no worse than the ensemble",
                draw_members,
                members_ok,
                false=reversed_sides(ensemble_against_member),
                true=ensemble_against_member,
            ),
        ),
    ),
)
