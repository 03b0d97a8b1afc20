"""A.3: Thm 4.5 for a loss convex in the parameters, where it fails."""

from math import sqrt
from typing import Any

import numpy as np

from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import counterexample
from lora_bounds.trial.search import Inequality, Problem


def _parameters_draw(rng: np.random.Generator) -> Problem:
    return {"theta": rng.uniform(0, 9, rng.integers(2, 5)).tolist()}


def _parameters_sides(problem: Problem) -> tuple[Any, Any]:
    theta = problem["theta"]
    return sqrt(sum(t * t for t in theta) / len(theta)), sum(abs(t) for t in theta) / len(theta)


def replay_a3_parameters(data: Data) -> Replay:
    """Replay theta -> sqrt(theta^2), convex in theta and concave in the output."""
    theta = data["theta"]
    mean_output = sum(t * t for t in theta) / len(theta)
    mean_loss = sum(abs(t) for t in theta) / len(theta)
    steps = [
        "output M(theta) = theta^2, loss(o) = sqrt(o): loss(M(theta)) = |theta| is convex in theta",
        f"members theta = {', '.join(map(str, theta))}; mean output {mean_output}",
        f"ensemble loss = sqrt({mean_output}), mean member loss = {mean_loss}",
        f"squares: {mean_output} > {mean_loss**2}",
    ]
    return replayed(float(mean_output) ** 0.5, mean_loss, steps, bool(mean_output > mean_loss**2))


A3_PARAMETERS = counterexample(
    replay_a3_parameters,
    hunt=Inequality(
        "a3-parameters",
        "loss(mean output) <= mean loss when the loss is convex in the parameter "
        "(output theta^2, loss sqrt(output) = |theta|)",
        _parameters_draw,
        _parameters_sides,
        lambda s: len(s["theta"]) >= 2,
    ),
)


CLAIMS = (
    Claim(
        id="A.3",
        paper_item="A.3",
        statement="The same for a loss that is convex in the parameters.",
        assumptions=("theta -> loss(M(x; theta), y) is convex",),
        evidence=(A3_PARAMETERS,),
        recorded=Verdict.REFUTED,
        formula="loss(E_theta M(x; theta), y) <= E_theta loss(M(x; theta), y)",
    ),
)
