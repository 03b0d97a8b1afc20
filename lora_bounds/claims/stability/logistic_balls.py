"""Rigorous one-parameter logistic regression: every number is a ball that contains the truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import exp
from typing import Any

_BITS = 160


def require_flint() -> Any:
    """Import python-flint, or say which extra brings it."""
    try:
        import flint
    except ImportError as error:
        raise ImportError(
            "this replay needs python-flint: install the extra 'proofs' "
            "(pip install 'lora-dropout[proofs]')"
        ) from error
    return flint


@dataclass(frozen=True)
class Fit:
    """Balls around the quantities of Prop. 4.2 on one sample.

    Attributes:
        solution: theta(S).
        left_out: theta(S^i) for every i (factor 1/(n-1)).
        changes: |l_i(theta(S^i)) - l_i(theta(S))| for every i, plain loss.
        curvature: Second derivative of the mean loss at theta(S).
        lipschitz: A Lipschitz constant of every L_lambda(x_i; .) on all these solutions' hull.
    """

    solution: Any
    left_out: tuple[Any, ...]
    changes: tuple[Any, ...]
    curvature: Any
    lipschitz: Any


def _ball(value: Fraction) -> Any:
    flint = require_flint()
    return flint.arb(flint.fmpq(value.numerator, value.denominator))


def _minimiser(margins: Sequence[Fraction], c: Fraction) -> Any:
    """Enclose the only root of 2 c t - mean z/(1 + exp(z t)), which rises in t."""
    flint = require_flint()

    def slope(t: Any) -> Any:
        terms = [_ball(z) / (1 + (_ball(z) * t).exp()) for z in margins]
        return 2 * _ball(c) * t - sum(terms[1:], terms[0]) / len(margins)

    def rough(t: float) -> float:
        total = sum(float(z) / (1 + exp(min(float(z) * t, 700.0))) for z in margins)
        return 2 * float(c) * t - total / len(margins)

    high = float(sum(abs(z) for z in margins) / (2 * c * len(margins)))  # |2 c t| <= mean |z|
    low = -high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if rough(middle) > 0 else (middle, high)
    radius = 1e-9 * (1 + abs(middle))
    left, right = flint.arb(middle - radius), flint.arb(middle + radius)
    if not (slope(left) < 0 and slope(right) > 0):
        raise ArithmeticError(f"no certain sign change around {middle}: the root is not enclosed")
    return flint.arb(middle, radius)


def enclosed_fit(margins: Sequence[Fraction], c: Fraction) -> Fit:
    """Solve on the whole sample and without each point, with certainty."""
    flint = require_flint()
    before = flint.ctx.prec
    flint.ctx.prec = _BITS
    try:
        full = _minimiser(margins, c)
        rest = [_minimiser([*margins[:i], *margins[i + 1 :]], c) for i in range(len(margins))]

        def loss(z: Fraction, t: Any) -> Any:
            return (1 + (-_ball(z) * t).exp()).log()

        changes = [abs(loss(z, t) - loss(z, full)) for z, t in zip(margins, rest, strict=True)]
        weights = [1 / (1 + (_ball(z) * full).exp()) for z in margins]
        bends = [w * (1 - w) * _ball(z * z) for w, z in zip(weights, margins, strict=True)]
        curvature = sum(bends[1:], bends[0]) / len(margins)
        # |l'| <= |z| and |2 c t| <= 2 c max |t| on the hull of the solutions.
        reach = max((abs(t).upper() for t in [full, *rest]), key=float)
        lipschitz = _ball(max(abs(z) for z in margins)) + 2 * _ball(c) * reach
        return Fit(full, tuple(rest), tuple(changes), curvature, lipschitz)
    finally:
        flint.ctx.prec = before
