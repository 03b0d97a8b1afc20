"""Random small layers, and one of two inputs whose loss and variance are summed over all masks."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from lora_bounds.rounding import Array
from lora_bounds.trial.search import Problem

LAYER_RATES = (0.1, 0.3, 0.5, 0.8)


def random_layer(rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Returns B (2, 2), A (2, 3), Sigma (3, 3) and G (2, 3)."""
    root = rng.standard_normal((3, 4))
    b, a, cross = (rng.standard_normal(shape) for shape in ((2, 2), (2, 3), (2, 3)))
    return b, a, root @ root.T / 4, cross


def draw_layer(rng: np.random.Generator) -> Problem:
    """Draw a rank-1 update of a 1 x 2 layer, a second moment and a rate."""
    root = rng.normal(size=(2, 3))
    sigma = root @ root.T
    return {
        "update": tuple(rng.normal(size=2).tolist()),
        "sigma": (sigma[0, 0].item(), sigma[0, 1].item(), sigma[1, 1].item()),
        "p": rng.uniform(0.05, 0.9),
        "cross": tuple(rng.normal(size=2).tolist()),
        "step": tuple(rng.normal(size=2).tolist()),
    }


def layer_ok(problem: Problem) -> bool:
    """Whether the second moment is positive definite, the update nonzero and 0 < p < 1."""
    s11, s12, s22 = problem["sigma"]
    definite = s11 > 0 and s11 * s22 - s12 * s12 > 0
    return bool(definite and any(problem["update"]) and 0 < problem["p"] < 1)


def layer_objective(problem: Problem, update: Sequence[Any]) -> Any:
    """Expected LoRA-Dropout loss of a raw update, without the constant E y^2/2, all 8 masks."""
    (s11, s12, s22), p = problem["sigma"], problem["p"]
    g1, g2 = problem["cross"]
    total: Any = 0
    for row, first, second in product((0, 1), repeat=3):
        probability = 1
        for bit in (row, first, second):
            probability = probability * ((1 - p) if bit else p)
        u1, u2 = row * first * update[0], row * second * update[1]
        energy = u1 * u1 * s11 + 2 * u1 * u2 * s12 + u2 * u2 * s22
        total += probability * (energy / 2 - u1 * g1 - u2 * g2)
    return total


def layer_variance(problem: Problem) -> Any:
    """Mask variance of the output of the raw update, all 8 masks."""
    plain = problem | {"cross": (0, 0)}
    (s11, s12, s22), kept = problem["sigma"], (1 - problem["p"]) ** 2
    u1, u2 = (kept * u for u in problem["update"])
    mean = u1 * u1 * s11 + 2 * u1 * u2 * s12 + u2 * u2 * s22
    return 2 * layer_objective(plain, problem["update"]) - mean
