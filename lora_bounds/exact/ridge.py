"""Sparsity-regularised least squares, where everything about Eq. 11 is exact.

The objective is (1/n) Σ_i (1/2)(y_i - x_iᵀθ)² + λ q ‖θ - θ0‖² with q = 2p - p², so its Hessian is
H = XᵀX/n + 2 λ q I and the hat matrix X H⁻¹ Xᵀ / n gives leave-one-out fits without refitting.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

import numpy as np

from lora_bounds.bounds.sparsity import penalty_weight
from lora_bounds.bounds.stability import Convention
from lora_bounds.domains import (
    Center,
    Inputs,
    OneNonNegative,
    OneRate,
    SecondMoment,
    Vector,
    exact,
    kernel_of,
)
from lora_bounds.exact.least_squares import LeastSquares, floats, full_rank, remove_each
from lora_bounds.rounding import Array


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


def _problem(x: Array, y: Array, lam: float, dropout: float, center: Array | None) -> _Problem:
    weight = kernel_of(penalty_weight)(dropout=np.asarray(dropout), regularization=np.asarray(lam))
    return _Problem(x, y, np.zeros(x.shape[1]) if center is None else center, float(weight))


def _least_squares(problem: _Problem, kept: int | None = None) -> LeastSquares:
    # Eq. 11 times 2 n is ‖c - X m‖² + 2 n λ q ‖m‖² for the move m; `kept` stands for n.
    x = problem.x
    if problem.weight == 0.0 and not full_rank(x):
        raise ValueError(
            "the minimiser must be unique, got inputs of deficient rank with "
            f"regularization * q = {problem.weight!r}"
        )
    count = len(x) if kept is None else kept
    return LeastSquares(x, 2 * count * Fraction(problem.weight))


@exact
def ridge_fit(
    *,
    inputs: Inputs,
    targets: Annotated[Any, Vector("n")],
    regularization: OneNonNegative,
    dropout: OneRate,
    center: Center = None,
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
    system = _least_squares(problem)
    centered = system.centered(problem.y, problem.start)
    residuals = floats(system.residuals(centered))
    n, d = problem.x.shape
    least = float(np.linalg.svd(problem.x, compute_uv=False)[-1]) if n >= d else 0.0
    return RidgeFit(
        problem.start + floats(system.solve(centered)),
        float(np.mean(residuals**2) / 2.0),
        (least / np.sqrt(n)) ** 2,
    )


@exact
def leave_one_out(
    *,
    inputs: Inputs,
    targets: Annotated[Any, Vector("n")],
    regularization: OneNonNegative,
    dropout: OneRate,
    center: Center = None,
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
    problem = _problem(inputs, targets, regularization, dropout, center)
    n = len(problem.x)
    if n < 2:
        raise ValueError(f"inputs must hold at least 2 examples, got inputs of {n}")
    full = _least_squares(problem)
    kept = full if convention == "1/n" else _least_squares(problem, n - 1)
    found = remove_each(kept, full, problem.y, problem.start)
    if found is None:
        raise ValueError(
            "every S^i must have a unique minimiser, as far as floats can tell, got inputs with an "
            f"example of leverage {float(np.max(kept.hat))!r}"
        )
    changes = found.square_changes / 2.0
    regularized = changes + problem.weight * found.norm_changes
    return LeaveOneOut(
        problem.start + found.moves,
        changes,
        regularized,
        float(np.mean(np.abs(changes))),
        float(np.mean(np.abs(regularized))),
    )


@exact
def population_risk(
    *,
    truth: Annotated[Any, Vector("d")],
    solution: Annotated[Any, Vector("d")],
    second_moment: Annotated[Any, SecondMoment("d")],
    noise: OneNonNegative,
) -> float:
    """Compute E (1/2)(y - xᵀθ)² for y = xᵀθ* + noise.

    Args:
        truth: θ*, of shape (d,).
        solution: θ, of shape (d,).
        second_moment: Σ = E[x xᵀ].
        noise: standard deviation σ of the noise, at least 0.

    Returns:
        (1/2) ((θ-θ*)ᵀ Σ (θ-θ*) + σ²).
    """
    error = solution - truth
    return float(error @ second_moment @ error + noise**2) / 2.0


@exact
def expected_risks(
    *,
    truth: Annotated[Any, Vector("d")],
    inputs: Inputs,
    second_moment: Annotated[Any, SecondMoment("d")],
    noise: OneNonNegative,
    regularization: OneNonNegative,
    dropout: OneRate,
    center: Center = None,
) -> Risks:
    """Compute expected train and test risk of the minimiser over the noise, for given inputs.

    For y = X θ* + noise the error θ - θ* is a bias, -2 λ q H⁻¹ (θ* - θ0), plus H⁻¹Xᵀ noise / n.

    Args:
        truth: θ*, of shape (d,).
        inputs: X, of shape (n, d).
        second_moment: Σ = E[x xᵀ] of fresh inputs.
        noise: standard deviation σ of the targets' noise, at least 0.
        regularization: λ in [0, inf).
        dropout: the rate p in [0, 1].
        center: θ0, of shape (d,); 0 if None.

    Returns:
        The risks, and the generalization gap as their difference.
    """
    x, sigma, variance, n = inputs, second_moment, noise**2, len(inputs)
    problem = _problem(x, np.zeros(n), regularization, dropout, center)
    system = _least_squares(problem)
    bias = -system.shrunk(truth - problem.start)
    spread = floats(system.inverse)
    hat = x @ spread
    test = bias @ sigma @ bias + variance * (np.sum((sigma @ spread) * spread) + 1.0)
    train = np.mean((x @ bias) ** 2) + variance * np.mean(np.sum((np.eye(n) - hat) ** 2, axis=1))
    return Risks(float(train / 2.0), float(test / 2.0), float((test - train) / 2.0))
