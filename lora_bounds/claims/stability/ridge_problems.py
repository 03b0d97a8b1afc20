"""Random ridge problems, solved with and without each example, for the sweeps on stability."""

from typing import Any, NamedTuple

import numpy as np

from lora_bounds.bounds.sparsity import penalty_weight
from lora_bounds.bounds.stability import Convention
from lora_bounds.exact.ridge import leave_one_out, ridge_fit
from lora_bounds.problems import make_regression
from lora_bounds.rounding import Array

CONVENTIONS: tuple[Convention, ...] = ("1/n", "1/(n-1)")


def ridge_problem(rng: np.random.Generator) -> tuple[Array, Array, float, float]:
    """Draw inputs, targets, lambda and p."""
    d = int(rng.integers(1, 4))
    problem = make_regression(
        n=int(rng.integers(d + 2, 12)),
        d=d,
        condition_number=10 ** float(rng.uniform(0, 2)) if d > 1 else 1.0,
        noise=10 ** float(rng.uniform(-2, 1)),
        seed=int(rng.integers(2**32)),
    )
    regularization, dropout = 10 ** float(rng.uniform(-2, 1)), float(rng.uniform(0.05, 1))
    return problem.inputs, problem.targets, regularization, dropout


def ridge_slopes(x: Array, y: Array, solutions: Array, weight: float) -> tuple[float, float]:
    """Returns the largest gradient norms rho of a loss and eta of a penalised one at solutions.

    A gradient norm is convex here, so on a segment between solutions it is largest at an end.
    """
    plain = (solutions @ x.T - y)[:, :, None] * x[None]
    penalised = plain + 2 * weight * solutions[:, None]
    return tuple(float(np.linalg.norm(g, axis=2).max()) for g in (plain, penalised))  # type: ignore[return-value]


class Refitted(NamedTuple):
    """What stability bounds take (rho and eta between the solutions), and what they bound."""

    n: int
    regularization: float
    dropout: float
    weight: float
    curvature: float
    rho: float
    eta: float
    worst: float

    def margin(self, bound: float) -> float:
        """Returns what a bound leaves over the largest change of a penalised loss, relative."""
        return (bound - self.worst) / self.worst


def refitted(rng: np.random.Generator) -> Refitted:
    """Draw a problem and leave out each example in turn (factor 1/(n-1))."""
    x, y, lam, p = ridge_problem(rng)
    weight = float(penalty_weight(dropout=p, regularization=lam))
    problem: Any = {"inputs": x, "targets": y, "regularization": lam, "dropout": p}
    fit, left = ridge_fit(**problem), leave_one_out(**problem, convention="1/(n-1)")
    rho, eta = ridge_slopes(x, y, np.vstack([fit.solution, left.solutions]), weight)
    worst = float(np.abs(left.regularized_changes).max())
    return Refitted(len(x), lam, p, weight, fit.least_curvature, rho, eta, worst)
