"""Both ends of the spectrum of a symmetric matrix that is known by its products."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from lora_dropout.probes.intervals import Array

Product = Callable[[Array], Array]  # (K, size) -> (K, size), row by row


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
