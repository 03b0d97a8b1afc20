"""Prop. 4.2: LoRA Dropout has pointwise hypothesis stability 2 eta^2 / ((Lmin + 2 lambda q) n).

The proof, the sweep and the counterexample are those of Lemma A.1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lora_bounds.claims.stability.lemma_a1 import (
    PROP_4_2_LOGISTIC,
    QUADRATIC,
    prove_lemma_a1,
    quadratic_stability,
)
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Sides, pair
from lora_bounds.trial.evidence import proof, sweep
from lora_bounds.trial.search import Problem


def draw_quadratic(rng: np.random.Generator) -> Problem:
    """Draw quadratic losses, possibly concave, and a penalty weight lambda q that dominates."""
    n = int(rng.integers(2, 6))
    losses = zip(rng.uniform(-2, 2, n).tolist(), rng.uniform(-1, 1, n).tolist(), strict=True)
    return {"losses": list(losses), "weight": rng.uniform(0.1, 2)}


def quadratic_ok(problem: Problem) -> bool:
    """Whether all leave-one-out objectives are strictly convex."""
    losses, c = problem["losses"], problem["weight"]
    if len(losses) < 2 or c <= 0 or all(s == 0 for _, s in losses):
        return False
    total = sum(h for h, _ in losses)
    n = len(losses)
    return total / n + 2 * c > 0 and all((total - h) / (n - 1) + 2 * c > 0 for h, _ in losses)


def exact_quadratic_stability(problem: Problem) -> tuple[Any, Any, Any]:
    """Refit without each point (factor 1/(n-1)) and measure what Prop. 4.2 speaks of."""
    losses, c = problem["losses"], problem["weight"]

    def minimiser(part: Sequence[tuple[Any, Any]]) -> Any:
        return -sum(s for _, s in part) / (sum(h for h, _ in part) + 2 * c * len(part))

    def value(loss: tuple[Any, Any], t: Any) -> Any:
        return (loss[0] / 2 + c) * t * t + loss[1] * t

    full = minimiser(losses)
    rest = [minimiser([*losses[:i], *losses[i + 1 :]]) for i in range(len(losses))]
    change = max(
        abs(value(loss, t) - value(loss, full)) for loss, t in zip(losses, rest, strict=True)
    )
    slope = max(abs((h + 2 * c) * t + s) for h, s in losses for t in [full, *rest])
    return change, slope, sum(h for h, _ in losses) / len(losses)


def paper_sides(factor: Any, sign: Callable[[Any], Any]) -> Sides:
    """Claim factor times Prop. 4.2 on quadratic losses."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        change, slope, least = exact_quadratic_stability(problem)
        n, weight = len(problem["losses"]), problem["weight"]
        return change, factor * 2 * slope**2 / ((sign(least) + 2 * weight) * n)

    return sides


CLAIMS = (
    Claim(
        id="Prop 4.2",
        paper_item="Prop. 4.2, Prop. A.2",
        statement="LoRA Dropout has pointwise hypothesis stability as printed.",
        assumptions=(
            "eta bounds the slope of the regularised loss of each example between the solutions",
            "Lmin is the least eigenvalue of the Hessian of L at theta(S)",
            "'close' solutions: the paper names no distance, so every distance is admitted",
        ),
        evidence=(
            PROP_4_2_LOGISTIC,
            proof(prove_lemma_a1, assuming=QUADRATIC),
            sweep(quadratic_stability, assuming=QUADRATIC),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="beta = 2 eta^2 / ((Lmin + 2 lambda q) n)",
        functions=("bounds.stability.paper_stability",),
        controls=(
            pair(
                "Prop. 4.2, constant quartered",
                "eta^2/(2 (Lmin + 2 lambda q) n) bounds stability for quadratic losses",
                draw_quadratic,
                quadratic_ok,
                false=paper_sides(0.25, lambda least: least),
                true=paper_sides(1, lambda least: least),
            ),
            pair(
                "Prop. 4.2, sign of Lmin",
                "negative curvature counts as positive: |Lmin| for Lmin",
                draw_quadratic,
                quadratic_ok,
                false=paper_sides(1, abs),
                true=paper_sides(1, lambda least: least),
            ),
        ),
    ),
    Claim(
        id="Audit 4",
        paper_item="Prop. 4.2, curvature at the optimum",
        statement=(
            "For a convex loss the curvature at the optimum is enough, up to a factor of 10: "
            "solutions need not be close."
        ),
        assumptions=("one-parameter logistic regression, n <= 8",),
        evidence=(PROP_4_2_LOGISTIC,),
        recorded=Verdict.REFUTED,
        formula="measured beta <= 10 * 2 eta^2 / ((Lmin(theta(S)) + 2 lambda q) n)",
        functions=("bounds.stability.paper_stability", "exact.logistic.logistic_fit"),
    ),
)
