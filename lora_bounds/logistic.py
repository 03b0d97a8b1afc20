"""Sparsity-regularised logistic regression, solved to 1e-12: an oracle for claims about Eq. 11.

The objective is (1/m) Σ_i ln(1 + exp(-y_i x_iᵀθ)) + λ q ‖θ - θ0‖² with q = 2p - p² and λ q > 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds import checks
from lora_bounds.rounding import Array
from lora_bounds.sparsity import penalty_weight
from lora_bounds.stability import Convention

GRADIENT_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A minimiser of the objective.

    Attributes:
        solution: θ, of shape (d,).
        gradient_norm: Euclidean norm of the objective's gradient there.
        least_curvature: least eigenvalue of the Hessian of the mean loss there, the Lmin of
            Prop. 4.2 (the penalty not included).
        iterations: Newton steps taken.
    """

    solution: Array
    gradient_norm: float
    least_curvature: float
    iterations: int


def _check(
    inputs: ArrayLike, labels: ArrayLike, lam: float, dropout: float, center: ArrayLike | None
) -> tuple[Array, Array, Array, float]:
    x = checks.matrix("inputs", inputs)
    y = checks.vector("labels", labels, size=len(x))
    if not np.all(np.abs(y) == 1.0):
        raise ValueError(f"labels must be -1 or 1, got labels={checks.short(labels)}")
    zero = np.zeros(x.shape[1])
    start = zero if center is None else checks.vector("center", center, size=x.shape[1])
    checks.number("regularization", lam, "(0, inf)")
    checks.number("dropout", dropout, "(0, 1]")
    return x, y, start, float(penalty_weight(dropout=dropout, regularization=lam))


def _newton(x: Array, y: Array, start: Array, weight: float, divisor: float) -> LogisticFit:
    theta = start.copy()
    # Rounding limits the gradient to about 1e-16 times the size of the inputs.
    size = float(np.abs(x).max(initial=0.0)) * float(np.sqrt(x.shape[1]))
    tolerance = GRADIENT_TOLERANCE * max(1.0, size)

    def objective(point: Array) -> float:
        penalty = weight * float(np.sum((point - start) ** 2))
        return float(np.sum(np.logaddexp(0.0, -y * (x @ point)))) / divisor + penalty

    for iteration in range(200):
        margin = y * (x @ theta)
        wrong = np.exp(-np.logaddexp(0.0, margin))  # 1 / (1 + exp(margin))
        gradient = -(x.T @ (y * wrong)) / divisor + 2.0 * weight * (theta - start)
        curvature = wrong * np.exp(-np.logaddexp(0.0, -margin))
        loss_hessian = (x.T * curvature) @ x / divisor
        norm = float(np.linalg.norm(gradient))
        if norm <= tolerance:
            least = max(float(np.linalg.eigvalsh(loss_hessian)[0]), 0.0)
            return LogisticFit(theta, norm, least, iteration)
        step = np.linalg.solve(loss_hessian + 2.0 * weight * np.eye(theta.size), gradient)
        slope, value, length = float(gradient @ step), objective(theta), 1.0
        # Armijo's rule; a decrease below rounding counts as one, so the last steps are full.
        while objective(theta - length * step) > value - 1e-4 * length * slope + 1e-15 * value:
            length /= 2.0
            if length < 1e-12:
                break
        theta = theta - length * step
    raise ArithmeticError(f"Newton's method stopped at a gradient norm of {norm!r}")


@checks.representing
def logistic_fit(
    *,
    inputs: ArrayLike,
    labels: ArrayLike,
    regularization: float,
    dropout: float,
    center: ArrayLike | None = None,
) -> LogisticFit:
    """Minimise the objective by damped Newton steps.

    Args:
        inputs: X, of shape (n, d).
        labels: y in {-1, 1}, of shape (n,).
        regularization: λ, positive and finite.
        dropout: the rate p in (0, 1].
        center: θ0, of shape (d,); 0 if None.

    Returns:
        The minimiser, to a gradient norm of 1e-12 max(1, sqrt(d) max abs(x)). ArithmeticError is
        raised where 200 steps do not reach it.

    >>> fit = logistic_fit(inputs=[[1.0]], labels=[1.0], regularization=1.0, dropout=1.0)
    >>> fit.gradient_norm <= 1e-12
    True
    """
    x, y, start, weight = _check(inputs, labels, regularization, dropout, center)
    return _newton(x, y, start, weight, float(len(x)))


@checks.representing
def leave_one_out_fits(
    *,
    inputs: ArrayLike,
    labels: ArrayLike,
    regularization: float,
    dropout: float,
    center: ArrayLike | None = None,
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
    checks.choice("convention", convention, ("1/n", "1/(n-1)"))
    x, y, start, weight = _check(inputs, labels, regularization, dropout, center)
    divisor = float(len(x)) if convention == "1/n" else float(max(len(x) - 1, 1))
    keep = ~np.eye(len(x), dtype=bool)
    return tuple(_newton(x[row], y[row], start, weight, divisor) for row in keep)


@checks.representing
def logistic_loss(*, inputs: ArrayLike, labels: ArrayLike, solution: ArrayLike) -> Array:
    """Compute ln(1 + exp(-y_i x_iᵀθ)) for each example.

    Args:
        inputs: X, of shape (n, d).
        labels: y in {-1, 1}, of shape (n,).
        solution: θ, of shape (d,).

    Returns:
        The losses in nats, of shape (n,).
    """
    x, y, _, _ = _check(inputs, labels, 1.0, 1.0, None)
    theta = checks.vector("solution", solution, size=x.shape[1])
    return np.asarray(np.logaddexp(0.0, -y * (x @ theta)))
