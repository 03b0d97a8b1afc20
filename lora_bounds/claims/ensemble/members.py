"""Ensembles whose members are drawn from a few outputs, with their exact expected loss."""

from itertools import product
from typing import Any

import numpy as np

from lora_bounds.rounding import Array
from lora_bounds.trial.control import Sides
from lora_bounds.trial.search import Problem


def sequences(values: Array, size: int) -> Array:
    """Returns every sequence of ``size`` equally likely members, members first."""
    return np.array(list(product(values, repeat=size))).T


def draw_members(rng: np.random.Generator) -> Problem:
    """Draw a law of member outputs, a target and an ensemble size."""
    return {
        "outputs": rng.normal(size=rng.integers(2, 4)).tolist(),
        "target": rng.normal(),
        "size": int(rng.integers(1, 6)),
    }


def members_ok(problem: Problem) -> bool:
    """Whether there are members and the ensemble has at least one."""
    return len(problem["outputs"]) >= 1 and problem["size"] >= 1


def expected_loss(problem: Problem, size: int) -> Any:
    """Squared loss of the average of ``size`` members, over all sequences of them."""
    outputs, y = problem["outputs"], problem["target"]
    losses = [(y - sum(m) / size) ** 2 for m in product(outputs, repeat=size)]
    return sum(losses) / len(losses)


def reversed_sides(sides: Sides) -> Sides:
    """Reverse a claim."""

    def reverse(problem: Problem) -> tuple[Any, Any]:
        lhs, rhs = sides(problem)
        return rhs, lhs

    return reverse
