"""Sparsity-regularised logistic regression, solved to 1e-11: an oracle for claims about Eq. 11.

The objective is (1/m) Σ_i ln(1 + exp(-y_i x_iᵀθ)) + λ q ‖θ - θ0‖² with q = 2p - p² and λ q > 0.

A small gradient says little where λ q is small, and cannot be had where it is large: the distance
to the minimiser is what is bounded. Newton's method runs in double precision; where the rounding
of the gradient may move the minimiser too far, it goes on with as many digits as λ q asks for, up
to a distance that strong convexity certifies, ‖gradient‖/(2 λ q).
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
from scipy import linalg, optimize

from lora_bounds.bounds.sparsity import penalty_weight
from lora_bounds.bounds.stability import Convention
from lora_bounds.domains import (
    Center,
    Inputs,
    OnePositive,
    Real,
    Signs,
    Vector,
    exact,
    kernel_of,
)
from lora_bounds.rounding import Array, quiet

Labels: TypeAlias = Annotated[Any, Signs(Vector("n"))]

TOLERANCE = 1e-11  # of the minimiser, relative to its size
_MOST_STEPS = 500
_ROUNDING = 8.0 * float(np.finfo(float).eps)  # of an entry of the gradient, a term


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A minimiser of the objective.

    Attributes:
        solution: θ, of shape (d,).
        gradient_norm: Euclidean norm of the objective's gradient there. Where λ q is large it is
            what the rounding of θ makes it.
        least_curvature: least eigenvalue of the Hessian of the mean loss there, the Lmin of
            Prop. 4.2 (the penalty not included).
        iterations: Newton steps taken.
    """

    solution: Array
    gradient_norm: float
    least_curvature: float
    iterations: int


def _weight(lam: float, dropout: float) -> float:
    found = kernel_of(penalty_weight)(dropout=np.asarray(dropout), regularization=np.asarray(lam))
    if found < np.finfo(float).tiny:
        raise ArithmeticError(
            f"regularization times q must be at least 2e-308, got regularization={lam!r} and "
            f"dropout={dropout!r}"
        )
    return float(found)


def _start(inputs: Array, center: Array | None) -> Array:
    return np.zeros(inputs.shape[1]) if center is None else center


def _newton(x: Array, y: Array, start: Array, weight: float, divisor: float) -> LogisticFit:
    with quiet():
        found = _double(x, y, start, weight, divisor)
    if isinstance(found, LogisticFit):
        return found
    return _long(x, y, start, weight, divisor, found)


def _double(x: Array, y: Array, start: Array, weight: float, divisor: float) -> LogisticFit | Array:
    # A fit whose error is bounded, else the point where double precision had to stop.
    theta, signed, root = start.copy(), y[:, None] * x, float(np.sqrt(2.0) * np.sqrt(weight))
    widest = float(np.linalg.norm(x, axis=1).max(initial=0.0))
    unit = 1.0 / widest if widest > 0.0 else 0.0  # what moves a margin by 1
    for iteration in range(_MOST_STEPS):
        margin = signed @ theta
        wrong, right = (np.exp(-np.logaddexp(0.0, side)) for side in (margin, -margin))
        # Not 0 far on the wrong side, where the slope is 1: any upper bound leads downhill.
        curvature = np.sqrt(np.maximum(wrong * right, 1e-30 * wrong) / divisor)
        rows = np.vstack([curvature[:, None] * signed, root * np.eye(theta.size)])
        slopes = -np.divide(wrong / divisor, curvature, np.zeros_like(wrong), where=wrong > 0.0)
        slopes = np.concatenate([slopes, root * (theta - start)])
        if not (np.all(np.isfinite(rows)) and np.all(np.isfinite(slopes))):
            return theta
        # rowsᵀ rows is the Hessian and rowsᵀ slopes the gradient. Rows of falling size and a
        # pivoted QR keep what small rows say (Cox and Higham 1998); a Hessian would not.
        order = np.argsort(-np.abs(rows).max(axis=1))
        q, r, pivots = linalg.qr(rows[order], mode="economic", pivoting=True, check_finite=False)
        if not np.all(np.diag(r)):
            return theta
        step = np.empty_like(theta)
        step[pivots] = -linalg.solve_triangular(r, q.T @ slopes[order], check_finite=False)
        change = signed @ step
        reach = float(np.abs(change).max(initial=0.0))
        if not (np.isfinite(reach) and np.all(np.isfinite(step))):
            return theta
        if reach > 0.5:
            theta = theta + step * _length(
                margin, change, root * (theta - start), root * step, divisor
            )
            continue
        theta = theta + step
        moved, length = float(np.linalg.norm(step)), float(np.linalg.norm(theta))
        if moved > max(1e-8 * length, 1e-15 * unit):
            continue
        inverse = np.empty_like(r)
        inverse[pivots] = linalg.solve_triangular(r, np.eye(theta.size), check_finite=False)
        terms = np.abs(rows).T @ np.abs(slopes)
        terms += np.abs(rows[: len(x)]).T @ (curvature * (np.abs(x) @ np.abs(theta)))
        error = _ROUNDING * np.sqrt(x.shape[1]) * (np.abs(inverse @ inverse.T) @ terms)
        if not np.linalg.norm(error) <= TOLERANCE * max(length, unit):
            return theta
        wrong = np.exp(-np.logaddexp(0.0, signed @ theta))
        gradient = root * (root * (theta - start)) - signed.T @ wrong / divisor
        shape = np.zeros((max(len(x), theta.size), theta.size))
        shape[: len(x)] = rows[: len(x)]
        least = float(np.linalg.svd(shape, compute_uv=False)[-1]) ** 2
        return LogisticFit(theta, float(np.linalg.norm(gradient)), least, iteration + 1)
    return theta


def _length(margin: Array, change: Array, pull: Array, away: Array, divisor: float) -> float:
    # About the share of a step at which the objective is least. The curvature grows by exp(t) at
    # most where no margin changes by more than t (Bach 2010), so that it is not before
    # ln(1 + reach)/reach of a Newton step.
    reach = float(np.abs(change).max())
    change, away = change / reach, away / reach

    def slope(t: float) -> float:
        wrong = np.exp(-np.logaddexp(0.0, margin + t * change))
        return float((pull + t * away) @ away - change @ wrong / divisor)

    low = high = float(np.log1p(reach))
    while slope(high) < 0.0 and np.isfinite(high):
        low, high = high, 2.0 * high
    if low < high:
        low = float(optimize.brentq(slope, low, high, xtol=1e-3 * low, rtol=1e-3))
    return low / reach


def _long(
    x: Array, y: Array, start: Array, weight: float, divisor: float, near: Array
) -> LogisticFit:
    # The same by as many digits as it takes; the gradient bounds the distance.
    from mpmath import mp

    largest = float(np.abs(x).max(initial=1.0))
    digits = 50.0 + max(0.0, 2.0 * np.log10(largest) - np.log10(weight))
    with mp.workdps(int(digits)):
        signed, center = mp.matrix((y[:, None] * x).tolist()), mp.matrix(start.tolist())
        double, m = 2 * mp.mpf(weight), mp.mpf(divisor)
        theta = mp.matrix((near if np.all(np.isfinite(near)) else start).tolist())

        def derivatives(point: "mp.matrix") -> tuple["mp.matrix", "mp.matrix"]:
            wrong = [1 / (1 + mp.exp(margin)) for margin in signed * point]
            scaled = signed.copy()
            for i, share in enumerate(wrong):
                scaled[i, :] *= share * (1 - share) / m
            return double * (point - center) - signed.T * mp.matrix(wrong) / m, signed.T * scaled

        def slope(t: "mp.mpf") -> "mp.mpf":
            wrong = mp.matrix([1 / (1 + mp.exp(margin)) for margin in signed * (theta + t * step)])
            pull = double * (theta + t * step - center) - signed.T * wrong / m
            return (step.T * pull)[0]

        for iteration in range(_MOST_STEPS):
            gradient, hessian = derivatives(theta)
            distance = mp.norm(gradient) / double
            if distance <= mp.mpf(10) ** -20 * max(
                mp.norm(theta), 1 / mp.mpf(np.sqrt(x.shape[1]) * largest)
            ):
                solution = np.array([float(entry) for entry in theta])
                gradient, hessian = derivatives(mp.matrix(solution.tolist()))
                least = max(float(min(mp.eigsy(hessian, eigvals_only=True))), 0.0)
                return LogisticFit(solution, float(mp.norm(gradient)), least, iteration)
            step = -mp.lu_solve(hessian + double * mp.eye(len(theta)), gradient)
            reach = mp.norm(signed * step, mp.inf)
            length = mp.log1p(reach) / reach if reach > 0.1 else mp.mpf(1)
            while reach > 0.1 and slope(2 * length) < 0:
                length *= 2
            theta += length * step
    raise ArithmeticError(
        f"Newton's method stopped within {float(distance)!r} of the minimiser, "
        f"at a gradient norm of {float(mp.norm(gradient))!r}"
    )


@exact
def logistic_fit(
    *,
    inputs: Inputs,
    labels: Labels,
    regularization: OnePositive,
    dropout: Annotated[float, Real("(0, 1]")],
    center: Center = None,
) -> LogisticFit:
    """Minimise the objective by damped Newton steps.

    Args:
        inputs: X, of shape (n, d).
        labels: y in {-1, 1}, of shape (n,).
        regularization: λ, positive and finite.
        dropout: the rate p in (0, 1].
        center: θ0, of shape (d,); 0 if None.

    Returns:
        The minimiser, to 1e-11 times the larger of ‖θ‖ and 1/max_i ‖x_i‖. ArithmeticError is
        raised where 500 steps do not reach it.

    >>> fit = logistic_fit(inputs=[[1.0]], labels=[1.0], regularization=1.0, dropout=1.0)
    >>> fit.gradient_norm <= 1e-12
    True
    """
    weight = _weight(regularization, dropout)
    return _newton(inputs, labels, _start(inputs, center), weight, float(len(inputs)))


@exact
def leave_one_out_fits(
    *,
    inputs: Inputs,
    labels: Labels,
    regularization: OnePositive,
    dropout: Annotated[float, Real("(0, 1]")],
    center: Center = None,
    convention: Convention = "1/n",
) -> tuple[LogisticFit, ...]:
    """Refit without each example in turn.

    Args:
        inputs: X, of shape (n, d).
        labels: y in {-1, 1}, of shape (n,).
        regularization: λ, positive and finite.
        dropout: the rate p in (0, 1].
        center: θ0, of shape (d,); 0 if None.
        convention: the factor in front of the sum of losses over S^i.

    Returns:
        The n minimisers; for n = 1 the only one is θ0.
    """
    x, y, start = inputs, labels, _start(inputs, center)
    weight = _weight(regularization, dropout)
    divisor = float(len(x)) if convention == "1/n" else float(max(len(x) - 1, 1))
    keep = ~np.eye(len(x), dtype=bool)
    return tuple(_newton(x[row], y[row], start, weight, divisor) for row in keep)


@exact
def logistic_loss(
    *, inputs: Inputs, labels: Labels, solution: Annotated[Any, Vector("d")]
) -> Array:
    """Compute ln(1 + exp(-y_i x_iᵀθ)) for each example.

    Args:
        inputs: X, of shape (n, d).
        labels: y in {-1, 1}, of shape (n,).
        solution: θ, of shape (d,).

    Returns:
        The losses in nats, of shape (n,).
    """
    return np.asarray(np.logaddexp(0.0, -labels * (inputs @ solution)))
