"""Sparsity-regularised least squares, where everything about Eq. 11 is exact.

The objective is (1/n) Σ_i (1/2)(y_i - x_iᵀθ)² + λ q ‖θ - θ0‖² with q = 2p - p², so its Hessian is
H = XᵀX/n + 2 λ q I and the hat matrix X H⁻¹ Xᵀ / n gives leave-one-out fits without refitting.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds import checks
from lora_bounds.rounding import Array
from lora_bounds.sparsity import penalty_weight
from lora_bounds.stability import Convention

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """A minimiser of the objective.

    Attributes:
        solution: θ(S), of shape (d,).
        train_risk: (1/n) Σ (1/2)(y_i - x_iᵀθ)², without the penalty.
        least_curvature: the least eigenvalue of XᵀX/n, the Lmin of Prop. 4.2.
    """

    solution: Array
    train_risk: float
    least_curvature: float


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """What removing each example does, in closed form.

    Attributes:
        solutions: θ(S^i), of shape (n, d).
        loss_changes: l(z_i; θ(S^i)) - l(z_i; θ(S)) for l = (1/2)(y - xᵀθ)², of shape (n,).
        regularized_changes: the same for l + λ q ‖θ - θ0‖², the loss of Lemma A.1's proof.
        hypothesis_stability: the mean of abs(loss_changes).
        regularized_stability: the mean of abs(regularized_changes).
    """

    solutions: Array
    loss_changes: Array
    regularized_changes: Array
    hypothesis_stability: float
    regularized_stability: float


@dataclass(frozen=True)
class Risks:
    """Expected risks of the minimiser, over the noise in the targets.

    Attributes:
        train: expected empirical risk.
        test: expected risk on fresh data.
        gap: ``test - train``.
    """

    train: float
    test: float
    gap: float


@dataclass(frozen=True)
class _Problem:
    x: Array
    y: Array
    start: Array
    weight: float


def _problem(
    inputs: ArrayLike, targets: ArrayLike, lam: float, dropout: float, center: ArrayLike | None
) -> _Problem:
    x = checks.matrix("inputs", inputs)
    y = checks.vector("targets", targets, size=len(x))
    zero = np.zeros(x.shape[1])
    start = zero if center is None else checks.vector("center", center, size=x.shape[1])
    checks.number("regularization", lam, "[0, inf)")
    checks.number("dropout", dropout, "[0, 1]")
    weight = float(penalty_weight(dropout=dropout, regularization=lam))
    return _Problem(x, y, start, weight)


def _hessian(x: Array, weight: float) -> Array:
    hessian = x.T @ x / len(x) + 2.0 * weight * np.eye(x.shape[1])
    least, most = np.linalg.eigvalsh(hessian)[[0, -1]]
    if least <= most * 1e-14:
        raise ValueError(
            "the minimiser must be unique, got inputs of deficient rank with "
            f"regularization * q = {weight!r}"
        )
    return np.asarray(hessian)


def _condition(hessian: Array) -> float:
    values = np.linalg.eigvalsh(hessian)
    return float(values[-1] / values[0])


def _solve(problem: _Problem, weight: float) -> tuple[Array, Array, Array]:
    # θ, residuals and H⁻¹Xᵀ for a weight of the penalty.
    inverse = np.asarray(np.linalg.solve(_hessian(problem.x, weight), problem.x.T), np.float64)
    centered = problem.y - problem.x @ problem.start
    theta = problem.start + inverse @ centered / len(problem.x)
    return theta, problem.y - problem.x @ theta, inverse


@checks.representing
def ridge_fit(
    *,
    inputs: ArrayLike,
    targets: ArrayLike,
    regularization: float,
    dropout: float,
    center: ArrayLike | None = None,
) -> RidgeFit:
    """Minimise the objective of Eq. 11 for squared loss.

    Args:
        inputs: X, of shape (n, d).
        targets: y, of shape (n,).
        regularization: λ in [0, inf).
        dropout: the rate p in [0, 1].
        center: θ0, of shape (d,); 0 if None.

    Returns:
        The minimiser and its training risk.

    >>> ridge_fit(inputs=[[1.0]], targets=[2.0], regularization=0.5, dropout=1.0).solution
    array([1.])
    """
    problem = _problem(inputs, targets, regularization, dropout, center)
    theta, residuals, _ = _solve(problem, problem.weight)
    least = float(np.linalg.eigvalsh(problem.x.T @ problem.x / len(problem.x))[0])
    return RidgeFit(theta, float(np.mean(residuals**2) / 2.0), max(least, 0.0))


@checks.representing
def leave_one_out(
    *,
    inputs: ArrayLike,
    targets: ArrayLike,
    regularization: float,
    dropout: float,
    center: ArrayLike | None = None,
    convention: Convention = "1/n",
) -> LeaveOneOut:
    """Compute exact leave-one-out solutions and stability from the hat matrix.

    With h_i = x_iᵀ H⁻¹ x_i / n the removed example's residual becomes e_i / (1 - h_i). Under the
    factor 1/(n-1) the objective of S^i is, up to scale, that of the factor 1/n with the weight
    λ q (n-1)/n, so the same update starts from the full solution at that weight.

    Args:
        inputs: X, of shape (n, d), n at least 2.
        targets: y, of shape (n,).
        regularization: λ in [0, inf).
        dropout: the rate p in [0, 1].
        center: θ0, of shape (d,); 0 if None.
        convention: the factor in front of the sum of losses over S^i.

    Returns:
        The solutions and changes of loss; the means estimate pointwise hypothesis stability
        (Def. 4.1), whose expectation over samples they do not take.

    Raises:
        ValueError: if there is one example only, or some S^i has no unique minimiser.
    """
    checks.choice("convention", convention, ("1/n", "1/(n-1)"))
    problem = _problem(inputs, targets, regularization, dropout, center)
    n = len(problem.x)
    if n < 2:
        raise ValueError(f"inputs must hold at least 2 examples, got inputs of {n}")
    theta, residuals, _ = _solve(problem, problem.weight)
    scale = 1.0 if convention == "1/n" else (n - 1) / n
    start, start_residuals, inverse = _solve(problem, problem.weight * scale)
    leverage = np.sum(inverse.T * problem.x, axis=1) / n
    # A leverage of 1 leaves a singular problem; rounding hides it behind the condition.
    unsure = 1e-12 + 100.0 * _EPS * _condition(_hessian(problem.x, problem.weight * scale))
    if np.any(leverage >= 1.0 - unsure):
        raise ValueError(
            "every S^i must have a unique minimiser, as far as floats can tell, got inputs with an "
            f"example of leverage {float(leverage.max())!r}, known to {unsure:.1e}"
        )
    left_out = start_residuals / (1.0 - leverage)
    solutions = start - inverse.T * (left_out / n)[:, None]
    changes = (left_out**2 - residuals**2) / 2.0
    norms = np.sum((solutions - problem.start) ** 2, axis=1)
    penalty_change = problem.weight * (norms - np.sum((theta - problem.start) ** 2))
    regularized = changes + penalty_change
    return LeaveOneOut(
        solutions,
        changes,
        regularized,
        float(np.mean(np.abs(changes))),
        float(np.mean(np.abs(regularized))),
    )


@checks.representing
def population_risk(
    *, solution: ArrayLike, truth: ArrayLike, second_moment: ArrayLike, noise: float
) -> float:
    """Compute E (1/2)(y - xᵀθ)² for y = xᵀθ* + noise.

    Args:
        solution: θ, of shape (d,).
        truth: θ*, of shape (d,).
        second_moment: Σ = E[x xᵀ].
        noise: standard deviation σ of the noise, at least 0.

    Returns:
        (1/2) ((θ-θ*)ᵀ Σ (θ-θ*) + σ²).
    """
    target = checks.vector("truth", truth)
    theta = checks.vector("solution", solution, size=target.size)
    sigma = checks.second_moment("second_moment", second_moment, size=target.size)
    scale = checks.number("noise", noise, "[0, inf)")
    error = theta - target
    return float(error @ sigma @ error + scale**2) / 2.0


@checks.representing
def expected_risks(
    *,
    inputs: ArrayLike,
    truth: ArrayLike,
    second_moment: ArrayLike,
    noise: float,
    regularization: float,
    dropout: float,
    center: ArrayLike | None = None,
) -> Risks:
    """Compute expected train and test risk of the minimiser over the noise, for given inputs.

    For y = X θ* + noise the error θ - θ* is a bias, -2 λ q H⁻¹ (θ* - θ0), plus H⁻¹Xᵀ noise / n.

    Args:
        inputs: X, of shape (n, d).
        truth: θ*, of shape (d,).
        second_moment: Σ = E[x xᵀ] of fresh inputs.
        noise: standard deviation σ of the targets' noise, at least 0.
        regularization: λ in [0, inf).
        dropout: the rate p in [0, 1].
        center: θ0, of shape (d,); 0 if None.

    Returns:
        The risks, and the generalization gap as their difference.
    """
    target = checks.vector("truth", truth)
    x = checks.matrix("inputs", inputs, columns=target.size)
    problem = _problem(x, np.zeros(len(x)), regularization, dropout, center)
    sigma = checks.second_moment("second_moment", second_moment, size=target.size)
    variance = checks.number("noise", noise, "[0, inf)") ** 2
    hessian, n = _hessian(x, problem.weight), len(x)
    bias = -2.0 * problem.weight * np.linalg.solve(hessian, target - problem.start)
    spread = np.linalg.solve(hessian, x.T) / n
    hat = x @ spread
    test = bias @ sigma @ bias + variance * (np.sum((sigma @ spread) * spread) + 1.0)
    train = np.mean((x @ bias) ** 2) + variance * np.mean(np.sum((np.eye(n) - hat) ** 2, axis=1))
    return Risks(float(train / 2.0), float(test / 2.0), float((test - train) / 2.0))
