"""Random ridge problems and the slopes of their losses, for the sweeps on stability."""

import numpy as np

from lora_bounds.bounds.stability import Convention
from lora_bounds.problems import make_regression
from lora_bounds.rounding import Array

CONVENTIONS: tuple[Convention, ...] = ("1/n", "1/(n-1)")


def ridge_problem(rng: np.random.Generator) -> tuple[Array, Array, float, float]:
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
