"""Extreme eigenvalues of the Hessian, or the Gauss-Newton matrix, in the space of the adapters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from lora_dropout.door import Held, Natural, Positive, checked, unchecked
from lora_dropout.probes.adapter_objective import AdapterObjective, as_array
from lora_dropout.probes.gauge import gauge_space
from lora_dropout.probes.intervals import Array, Direction

Matrix = Literal["hessian", "gauss_newton"]
Method = Literal["dense", "lanczos"]
Product = Callable[[Array], Array]  # (K, size) -> (K, size), row by row


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of the objective's curvature at one point, the penalty included.

    The dense method gives all eigenvalues to rounding. Lanczos's are Rayleigh quotients: `least` is
    then an upper bound on the least eigenvalue and `leading` a lower bound on the greatest, and an
    eigenvalue lies within `residual` of each. That none lies further out is likely, not proved.

    Attributes:
        matrix: `hessian` or `gauss_newton`.
        method: `dense` or `lanczos`.
        dimension: Number of parameters P.
        least: Least eigenvalue; None where Lanczos did not converge.
        leading: Greatest eigenvalue; None likewise.
        residual: Largest ||H v - value v|| over the two, v of length 1; None without both.
        eigenvalues: All of them, ascending (dense method), or None.
        gauge_dimension: Number of gauge directions (see `gauge`).
        gauge_least: Least eigenvalue of the matrix compressed to the gauge directions.
        gauge_leading: Greatest one; None without gauge directions.
        off_gauge_least: Least eigenvalue of the matrix compressed to their complement; None where
            Lanczos did not converge or there is no complement.
        gradient_norm: Length of the objective's gradient: only where it is 0 is the point
            stationary and, for weight 0, the gauge flat.
        penalty_curvature: What the penalty adds to every eigenvalue: 2 * weight; None where it is
            on some of the parameters only (`modules_to_save` go without).
    """

    matrix: Matrix
    method: Method
    dimension: int
    least: float | None
    leading: float | None
    residual: float | None
    eigenvalues: Array | None
    gauge_dimension: int
    gauge_least: float | None
    gauge_leading: float | None
    off_gauge_least: float | None
    gradient_norm: float
    penalty_curvature: float | None

    @property
    def converged(self) -> bool:
        """Whether both ends of the spectrum were found."""
        return self.least is not None and self.leading is not None

    @property
    def direction(self) -> Direction:
        """What `least` is to the least eigenvalue: `exact` to rounding, or an `upper` bound."""
        return "exact" if self.method == "dense" else "upper"

    @property
    def loss_least(self) -> float | None:
        """Least eigenvalue of the loss alone, the Lmin of arXiv 2404.09610 v1, Prop. 4.2.

        None where it cannot be told; an objective of weight 0 then gives it as `least`.
        """
        if self.least is None or self.penalty_curvature is None:
            return None
        return self.least - self.penalty_curvature


@checked
def curvature(
    objective: AdapterObjective,
    theta: Tensor | None = None,
    *,
    matrix: Matrix = "hessian",
    max_dense: Natural = 512,
    tolerance: Positive = 1e-6,
    max_iterations: Held | None = None,
    seed: Natural = 0,
) -> Curvature:
    """Measure the extreme eigenvalues of the curvature, and those of the gauge directions.

    Args:
        objective: The objective, its masks and penalty included.
        theta: Point, shape (P,); None is the model's.
        matrix: `hessian`, or the generalised `gauss_newton` (never negative for a convex loss).
        max_dense: Largest dimension for which the matrix is formed, by P products; above it only
            products are used, by implicitly restarted Lanczos (ARPACK).
        tolerance: Lanczos's, relative to the leading eigenvalue.
        max_iterations: Lanczos restarts; None is ARPACK's default of 10 P.
        seed: Seed of Lanczos's starting vector.

    Returns:
        The eigenvalues; those that Lanczos failed to find are None.

    Raises:
        FloatingPointError: If a product is not finite.
    """
    theta = objective.point() if theta is None else objective.check_point("theta", theta)
    products = (
        objective.hessian_products if matrix == "hessian" else objective.gauss_newton_products
    )

    def product(rows: Array) -> Array:
        result = as_array(products(theta, torch.from_numpy(rows).to(theta.device)))
        if not np.isfinite(result).all():
            bad = result[~np.isfinite(result)][0]
            raise FloatingPointError(f"{matrix} products must be finite, got {bad!r} among them")
        return result

    size = len(theta)
    gauge = unchecked(gauge_space)(objective, theta)

    def onto(rows: Array) -> Array:
        return as_array(gauge.coordinates(torch.from_numpy(rows).to(theta)))

    def back(rows: Array) -> Array:
        return as_array(gauge.vectors(torch.from_numpy(rows).to(theta)))

    spectrum = Spectrum(max_dense, tolerance, max_iterations, seed)
    whole = spectrum.extremes(product, size)
    if whole.matrix is not None:  # every product is known now
        formed = whole.matrix

        def product(rows: Array) -> Array:
            return rows @ formed

    on_gauge = spectrum.extremes(lambda c: onto(product(back(c))), gauge.dimension)
    off_gauge = Extremes()
    if gauge.dimension < size and whole.leading is not None:
        # The gauge is lifted to the top, where it does not hide the least of the others.
        top = max(whole.leading, 0.0)

        def compressed(rows: Array) -> Array:
            inside = back(onto(rows))
            pushed = product(rows - inside)
            return pushed - back(onto(pushed)) + top * inside

        off_gauge = spectrum.extremes(compressed, size)
    even = objective.weight == 0.0 or bool(objective.penalized.all())
    return Curvature(
        matrix=matrix,
        method="lanczos" if whole.matrix is None else "dense",
        dimension=size,
        least=whole.least,
        leading=whole.leading,
        residual=whole.residual,
        eigenvalues=whole.eigenvalues,
        gauge_dimension=gauge.dimension,
        gauge_least=on_gauge.least,
        gauge_leading=on_gauge.leading,
        off_gauge_least=off_gauge.least,
        gradient_norm=float(objective.gradient(theta).norm()),
        penalty_curvature=2.0 * objective.weight if even else None,
    )


@dataclass(frozen=True)
class Extremes:
    """Ends of a spectrum; None for what was not found.

    Attributes:
        least: Least eigenvalue.
        leading: Greatest eigenvalue.
        residual: Largest ||M v - value v|| over the two, v of length 1.
        eigenvalues: All, ascending, if the matrix was formed.
        matrix: It, made exactly symmetric.
    """

    least: float | None = None
    leading: float | None = None
    residual: float | None = None
    eigenvalues: Array | None = None
    matrix: Array | None = None


@dataclass(frozen=True)
class Spectrum:
    """How to find the ends.

    Attributes:
        max_dense: Largest size for which the matrix is formed.
        tolerance: Lanczos's, relative to the range of the spectrum.
        max_iterations: Lanczos restarts; None is ARPACK's default.
        seed: Seed of Lanczos's starting vector.
    """

    max_dense: int
    tolerance: float
    max_iterations: int | None
    seed: int

    def extremes(self, product: Product, size: int) -> Extremes:
        """Find both ends.

        Args:
            product: Products with rows.
            size: Number of rows and columns.

        Returns:
            What was found; nothing for size 0.
        """
        if size == 0:
            return Extremes()
        if size <= max(self.max_dense, 2):  # ARPACK needs more than two dimensions
            matrix = product(np.eye(size))
            matrix = (matrix + matrix.T) / 2.0
            values, vectors = np.linalg.eigh(matrix)
            ends = vectors[:, [0, -1]]
            residual = np.linalg.norm(matrix @ ends - ends * values[[0, -1]], axis=0).max()
            return Extremes(float(values[0]), float(values[-1]), float(residual), values, matrix)
        top = self._farthest(product, size, 0.0)
        if top is None:
            return Extremes()
        # Seen from there the other end is the farthest, and the tolerance is relative to the whole
        # range (relative to an eigenvalue near 0 it could not be met).
        other = self._farthest(product, size, top[0])
        if other is None:
            return Extremes(leading=top[0]) if top[0] > 0 else Extremes(least=top[0])
        low, high = sorted([top, other])
        return Extremes(low[0], high[0], max(low[1], high[1]))

    def _farthest(self, product: Product, size: int, origin: float) -> tuple[float, float] | None:
        # The eigenvalue farthest from `origin`, and its residual.
        def apply(vector: Array) -> Array:
            flat = vector.ravel()
            return product(flat[None])[0] - origin * flat

        start = np.random.default_rng(self.seed).standard_normal(size)
        start /= np.linalg.norm(start)
        moved = float(np.linalg.norm(apply(start)))
        if moved <= 1e-14 * abs(origin):  # origin times the identity, for which ARPACK fails
            return origin, moved
        operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
        try:
            _, vectors = eigsh(
                operator,
                k=1,
                which="LM",
                v0=start,
                tol=self.tolerance,
                maxiter=self.max_iterations,
            )
        except ArpackNoConvergence:
            return None
        vector = vectors[:, 0] / np.linalg.norm(vectors[:, 0])
        image = product(vector[None])[0]
        value = float(vector @ image)
        return value, float(np.linalg.norm(image - value * vector))
