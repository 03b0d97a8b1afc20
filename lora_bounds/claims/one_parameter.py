"""Exact ridge with one parameter: it takes floats, or fractions and stays exact."""

from collections.abc import Sequence
from itertools import product
from typing import Any

Point = Sequence[Any]  # (x, y)


def exact_drop_probability(p: Any) -> Any:
    """Drop probability q = 2p - p^2."""
    return 2 * p - p * p


def ridge(points: Sequence[Point], c: Any) -> Any:
    """Minimiser of (1/n) sum (1/2)(y - x t)^2 + c t^2 for one parameter t."""
    xx = sum(x * x for x, _ in points)
    return sum(x * y for x, y in points) / (xx + 2 * c * len(points))


def squared(point: Point, t: Any) -> Any:
    """(1/2)(y - x t)^2."""
    x, y = point
    return (y - x * t) ** 2 / 2


def ridge_stability(points: Sequence[Point], c: Any, *, penalised: bool) -> Any:
    """Pointwise hypothesis stability of ridge on one sample, by refitting without each point."""
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
    """E[R] of ridge over all samples of n draws from equally likely atoms."""
    total: Any = 0
    for sample in product(atoms, repeat=n):
        t = ridge(sample, c)
        total += sum(squared(atom, t) for atom in atoms) / len(atoms)
    return total / len(atoms) ** n


def ridge_gap(atoms: Sequence[Point], n: int, c: Any) -> Any:
    """E[R - Rhat] of ridge over all samples of n draws from equally likely atoms."""
    total: Any = 0
    for sample in product(atoms, repeat=n):
        t = ridge(sample, c)
        total += sum(squared(atom, t) for atom in atoms) / len(atoms)
        total -= sum(squared(point, t) for point in sample) / n
    return total / len(atoms) ** n
