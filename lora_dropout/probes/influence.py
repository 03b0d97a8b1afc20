"""Leave-one-out changes without retraining, by influence functions (Koh and Liang 2017).

Without example i the objective is f - l_i / n (convention 1/n, as in `leave_one_out`). One Newton
step from the solution theta of f moves it by (H + damping I)^-1 grad l_i / n, where H is the
curvature of f, penalty included. That is the first order in 1/n; it supposes that theta is
stationary and that training would come to rest near it. How far it is from retraining must be
measured: see `agreement`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from lora_dropout.door import (
    Held,
    Natural,
    NonNegative,
    Positive,
    check_array,
    check_indices,
    checked,
)
from lora_dropout.probes.adapter_objective import AdapterObjective, as_array
from lora_dropout.probes.curvature import Matrix, Product
from lora_dropout.probes.intervals import Array


@dataclass(frozen=True, eq=False)
class Influence:
    """Predicted effect of leaving out m examples, one at a time.

    Attributes:
        examples: Their indices, shape (m,).
        changes: First-order change of the example's own loss, grad l_i' (H + damping I)^-1 grad l_i
            / n, shape (m,); never negative.
        stepped: l_i at the moved parameters, less l_i at theta, shape (m,): the same step, with the
            loss not linearised.
        moves: Change of the parameters, shape (m, P).
        damping: What was added to the curvature.
        gradient_norm: ||grad f(theta)||, which the prediction takes for 0.
        residual: Largest ||(H + damping I) x - grad l_i|| / ||grad l_i|| of the solutions.
        method: `dense` or `cg`.
    """

    examples: NDArray[np.int64]
    changes: Array
    stepped: Array
    moves: Array
    damping: float
    gradient_norm: float
    residual: float
    method: str


@dataclass(frozen=True)
class Agreement:
    """How predicted changes compare with measured ones.

    Attributes:
        correlation: Pearson's; NaN if either is constant.
        rank_correlation: Spearman's; NaN likewise.
        relative_error: ||predicted - measured|| / ||measured||; 1 is no better than predicting 0.
        scale: Slope of the least-squares line through 0 from predicted to measured; 1 is right.
    """

    correlation: float
    rank_correlation: float
    relative_error: float
    scale: float


@checked
def influence(
    objective: AdapterObjective,
    theta: Tensor | None = None,
    *,
    damping: NonNegative,
    examples: Sequence[int] | None = None,
    matrix: Matrix = "hessian",
    max_dense: Natural = 512,
    tolerance: Positive = 1e-6,
    max_iterations: Held | None = None,
) -> Influence:
    """Predict what leaving out each example does to its own loss.

    Args:
        objective: What was trained, on all n examples; its masks and penalty included.
        theta: The solution, shape (P,); None is the model's.
        damping: Added to every eigenvalue of the curvature, at least 0. Away from a strict minimum
            some is needed: adapters have flat directions (see `gauge`).
        examples: Indices i; None is all.
        matrix: `hessian`, or the generalised `gauss_newton`, which has no negative eigenvalues for
            a convex loss.
        max_dense: Largest P for which the matrix is formed; above it conjugate gradients are used.
        tolerance: Relative residual at which they stop.
        max_iterations: Of the conjugate gradients for one example; None is SciPy's 10 P.

    Returns:
        The predictions.

    Raises:
        ValueError: If an example is out of range, or the damped curvature is not positive (dense).
        ArithmeticError: If conjugate gradients do not converge, or meet negative curvature.
    """
    n = len(objective.targets)
    chosen = list(range(n)) if examples is None else check_indices("examples", examples, n)
    theta = objective.point() if theta is None else objective.check_point("theta", theta)
    at = torch.tensor(chosen, device=theta.device)
    gradients = as_array(objective.example_gradients(theta, at))
    products = (
        objective.hessian_products if matrix == "hessian" else objective.gauss_newton_products
    )

    def damped(rows: Array) -> Array:
        found = as_array(products(theta, torch.from_numpy(rows).to(theta)))
        return found + damping * rows

    size = gradients.shape[1]
    dense = size <= max_dense
    if dense:
        solved = _solve_dense(damped(np.eye(size)), gradients, damping)
    else:
        solved = np.stack(
            [_solve_cg(damped, g, tolerance, max_iterations, damping) for g in gradients]
        )
    lengths = np.maximum(np.linalg.norm(gradients, axis=1), np.finfo(np.float64).tiny)
    residuals = np.linalg.norm(damped(solved) - gradients, axis=1) / lengths
    moves = solved / n
    moved = theta + torch.from_numpy(moves).to(theta)
    stepped = objective.pair_losses(moved, at) - objective.losses(theta)[at]
    return Influence(
        examples=np.array(chosen, dtype=np.int64),
        changes=np.einsum("ip,ip->i", gradients, moves),
        stepped=as_array(stepped),
        moves=moves,
        damping=float(damping),
        gradient_norm=float(objective.gradient(theta).norm()),
        residual=float(residuals.max()),
        method="dense" if dense else "cg",
    )


def agreement(predicted: Array, measured: Array) -> Agreement:
    """Compare predicted changes with those of actual retraining.

    Args:
        predicted: Shape (m,), such as `Influence.changes`.
        measured: Shape (m,), such as a row of `Stability.loss.values`.

    Returns:
        Correlations and errors.

    Raises:
        ValueError: If the shapes differ, there are fewer than 3 numbers, or all measured are 0.
    """
    predicted, measured = check_array("predicted", predicted), check_array("measured", measured)
    if predicted.shape != measured.shape or len(predicted) < 3:
        raise ValueError(
            "predicted and measured must be vectors of one length of at least 3, "
            f"got shapes {predicted.shape} and {measured.shape}"
        )
    if not np.linalg.norm(measured) > 0:  # the squares of the least numbers are 0
        raise ValueError("measured must not be all 0, got no change at all")
    constant = np.ptp(predicted) == 0 or np.ptp(measured) == 0
    square = float(predicted @ predicted)
    return Agreement(
        correlation=np.nan if constant else float(stats.pearsonr(predicted, measured).statistic),
        rank_correlation=(
            np.nan if constant else float(stats.spearmanr(predicted, measured).statistic)
        ),
        relative_error=float(np.linalg.norm(predicted - measured) / np.linalg.norm(measured)),
        scale=float(predicted @ measured) / square if square else np.nan,
    )


def _solve_dense(matrix: Array, gradients: Array, damping: float) -> Array:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2.0)
    floor = max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    if values[0] <= floor:
        raise ValueError(
            f"damping must make the curvature positive: its least eigenvalue is {values[0]:.3g} "
            f"with damping={damping!r}"
        )
    return np.asarray((gradients @ vectors / values) @ vectors.T)


def _solve_cg(
    damped: Product, gradient: Array, tolerance: float, max_iterations: int | None, damping: float
) -> Array:
    def product(vector: Array) -> Array:
        flat = vector.ravel()
        image = damped(flat[None])[0]
        if flat @ image < 0:
            raise ArithmeticError(
                "damping must make the curvature positive: conjugate gradients met a direction of "
                f"negative curvature with damping={damping!r}"
            )
        return image

    size = len(gradient)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    solution, failed = cg(operator, gradient, rtol=tolerance, atol=0.0, maxiter=max_iterations)
    if failed:
        raise ArithmeticError(
            f"conjugate gradients did not reach tolerance={tolerance!r} in {failed} iterations; "
            f"a larger damping than {damping!r} helps"
        )
    return np.asarray(solution)
