"""Both sides of the claims about ensembles: right and corrupted.

Every function returns the two sides of a claim lhs <= rhs: a slow truth against the library's
formula.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from lora_bounds.trial.control import Sides, equal
from lora_bounds.trial.search import Problem


def draw_members(rng: np.random.Generator) -> Problem:
    """Draw a law of member outputs, a target and an ensemble size.

    Args:
        rng: Generator.

    Returns:
        ``outputs`` (equally likely), ``target``, ``size``.
    """
    return {
        "outputs": rng.normal(size=rng.integers(2, 4)).tolist(),
        "target": rng.normal(),
        "size": int(rng.integers(1, 6)),
    }


def members_ok(problem: Problem) -> bool:
    """Whether there are members and the ensemble has at least one.

    Args:
        problem: A problem.

    Returns:
        True when it belongs to the family.
    """
    return len(problem["outputs"]) >= 1 and problem["size"] >= 1


def _ensemble_loss(problem: Problem, size: int) -> Any:
    outputs, y = problem["outputs"], problem["target"]
    losses = [(y - sum(m) / size) ** 2 for m in product(outputs, repeat=size)]
    return sum(losses) / len(losses)


def excess(corrupt: Callable[[Any, int], Any] = lambda value, size: value) -> Sides:
    """Claim that an ensemble's squared loss is loss(mean) + V/N.

    Args:
        corrupt: Changes V/N, given it and N.

    Returns:
        The two sides.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.bounds.ensemble_risk import ensemble_excess

        outputs = [float(o) for o in problem["outputs"]]
        formula = float(ensemble_excess(variance=np.var(outputs), n_instances=problem["size"]))
        base = (float(problem["target"]) - float(np.mean(outputs))) ** 2
        truth = float(_ensemble_loss(problem, problem["size"]))
        return equal(truth, base + corrupt(formula, problem["size"]))

    return sides


def ensemble_against_member(problem: Problem) -> tuple[Any, Any]:
    """Thm 4.5 for the squared loss: the infinite ensemble against the mean member.

    Args:
        problem: From `draw_members`.

    Returns:
        The ensemble's loss, the mean member's loss.
    """
    outputs, y = problem["outputs"], problem["target"]
    mean = sum(outputs) / len(outputs)
    return (y - mean) ** 2, _ensemble_loss(problem, 1)


def one_more_member(problem: Problem) -> tuple[Any, Any]:
    """An ensemble of N+1 against one of N.

    Args:
        problem: From `draw_members`.

    Returns:
        Expected loss of N+1, of N.
    """
    size = problem["size"]
    return _ensemble_loss(problem, size + 1), _ensemble_loss(problem, size)


def swapped(sides: Sides) -> Sides:
    """Reverse a claim.

    Args:
        sides: The sides of lhs <= rhs.

    Returns:
        The sides of rhs <= lhs.
    """

    def reverse(problem: Problem) -> tuple[Any, Any]:
        lhs, rhs = sides(problem)
        return rhs, lhs

    return reverse
