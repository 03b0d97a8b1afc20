"""Exact small models for the counterexamples: they take floats, or fractions and stay exact."""

from collections.abc import Sequence
from itertools import product
from typing import Any

Point = Sequence[Any]  # (x, y)


def drop_probability(p: Any) -> Any:
    """Drop probability q = 2p - p^2.

    Args:
        p: Dropout rate.

    Returns:
        The probability that an entry of the update is dropped.
    """
    return 2 * p - p * p


def ridge(points: Sequence[Point], c: Any) -> Any:
    """Minimiser of (1/n) sum (1/2)(y - x t)^2 + c t^2 for one parameter t.

    Args:
        points: Pairs (x, y).
        c: Weight of the penalty, lambda q.

    Returns:
        sum xy / (sum x^2 + 2 c n).
    """
    xx = sum(x * x for x, _ in points)
    return sum(x * y for x, y in points) / (xx + 2 * c * len(points))


def squared(point: Point, t: Any) -> Any:
    """(1/2)(y - x t)^2.

    Args:
        point: The pair (x, y).
        t: The parameter.

    Returns:
        The loss.
    """
    x, y = point
    return (y - x * t) ** 2 / 2


def ridge_stability(points: Sequence[Point], c: Any, *, penalised: bool) -> Any:
    """Pointwise hypothesis stability of ridge on one sample, by refitting without each point.

    Args:
        points: Pairs (x, y), at least two; S^i has factor 1/(n-1).
        c: Weight of the penalty.
        penalised: Compare L_lambda(x_i; .) (loss plus c t^2) instead of the plain loss.

    Returns:
        The mean over i of the absolute change of the loss at x_i when x_i is left out.
    """
    full = ridge(points, c)
    total = 0 * full
    for i, point in enumerate(points):
        left = ridge([*points[:i], *points[i + 1 :]], c)
        change = squared(point, left) - squared(point, full)
        if penalised:
            change += c * (left**2 - full**2)
        total += abs(change)
    return total / len(points)


def ridge_risk(atoms: Sequence[Point], n: int, c: Any) -> Any:
    """E[R] of ridge over all samples of n draws from equally likely atoms.

    Args:
        atoms: Pairs (x, y).
        n: Sample size.
        c: Weight of the penalty.

    Returns:
        The exact mean test risk (plain loss).
    """
    total: Any = 0
    for sample in product(atoms, repeat=n):
        t = ridge(sample, c)
        total += sum(squared(atom, t) for atom in atoms) / len(atoms)
    return total / len(atoms) ** n


def ridge_gap(atoms: Sequence[Point], n: int, c: Any) -> Any:
    """E[R - Rhat] of ridge over all samples of n draws from equally likely atoms.

    Args:
        atoms: Pairs (x, y).
        n: Sample size.
        c: Weight of the penalty.

    Returns:
        The exact mean generalization gap (plain loss).
    """
    total: Any = 0
    for sample in product(atoms, repeat=n):
        t = ridge(sample, c)
        total += sum(squared(atom, t) for atom in atoms) / len(atoms)
        total -= sum(squared(point, t) for point in sample) / n
    return total / len(atoms) ** n
