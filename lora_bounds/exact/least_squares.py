"""Least squares with a ridge, min ‖c - X m‖² + r ‖m‖², to about 1e-10 whatever the condition.

Normal equations square the condition number, and so does the minimiser's own sensitivity where
residuals are not small. Well-conditioned problems are solved from the singular value decomposition
of X; all others in as many digits as their condition takes, and rounded at the end.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from mpmath.ctx_mp import MPContext
from numpy.typing import NDArray

from lora_bounds.rounding import Array

# Of (X; sqrt(r) I): its square times 1e-16 is the relative error that floats may make.
_WELL_CONDITIONED = 300.0
_LEVERAGE = 0.999
_EPS = float(np.finfo(np.float64).eps)

Digits = NDArray[Any]  # floats, or objects of mpmath


@dataclass(frozen=True, eq=False)
class Removed:
    """What removing each row does.

    Attributes:
        moves: the minimisers m of the other rows, of shape (n, d).
        square_changes: by how much the squared residual of the row removed grows, of shape (n,).
        norm_changes: by how much ‖m‖² grows, of shape (n,).
    """

    moves: Array
    square_changes: Array
    norm_changes: Array


def full_rank(x: Array) -> bool:
    """Whether floats can tell that the columns are independent.

    Args:
        x: a matrix (n, d).

    Returns:
        False for n < d, and where the least singular value may be rounding alone.
    """
    peaks = np.abs(x).max(axis=0)
    if len(x) < x.shape[1] or not np.all(peaks > 0.0):
        return False
    unit = x / peaks  # the units of columns do not count
    values = np.linalg.svd(unit / np.linalg.norm(unit, axis=0), compute_uv=False)
    return bool(values[-1] > values[0] * _EPS * max(x.shape))


class LeastSquares:
    """The problem of one X and one ridge, for any right side.

    Args:
        x: X, of shape (n, d); of full rank where the ridge is 0.
        ridge: r, at least 0.
    """

    def __init__(self, x: Array, ridge: Fraction) -> None:
        self.x, self.ridge = x, ridge
        # Of (X; sqrt(r) I), where a singular value that may be rounding alone counts as 0.
        values = np.linalg.svd(x, compute_uv=False)
        bottom = float(np.hypot(values[-1] if full_rank(x) else 0.0, np.sqrt(float(ridge))))
        self.largest = float(values[0])
        self.condition = max(self.largest, bottom) / bottom if bottom else 1.0
        self.precise = self.condition > _WELL_CONDITIONED
        if self.precise:
            self._solve_precisely()
            return
        left, s, right = np.linalg.svd(x, full_matrices=False)
        positive = np.where(s > 0.0, s, 1.0)
        over = np.where(s > 0.0, float(ridge) / positive, np.inf)
        filtered = 1.0 / (positive + over)
        self._right, self._shrinkage = right, np.where(np.isinf(over), 1.0, over * filtered)
        self.rows: Digits = x
        self.hat: Digits = np.sum(left**2 * (filtered * s), axis=1)
        self.inverse: Digits = (right.T * filtered) @ left.T  # (XᵀX + r I)⁻¹ Xᵀ

    def _solve_precisely(self) -> None:
        # (XᵀX + r I) Z = Xᵀ, or Z = Xᵀ (X Xᵀ + r I)⁻¹ where that is smaller.
        self.precise = True
        context = MPContext()  # of its own: the precision is nobody else's
        # 1 less a leverage may be as small as r / ‖X‖² or, without a ridge, as floats can tell.
        bits, units = 52.0, 0.0
        if self.ridge and self.largest > 0.0:
            bits = max(np.log2(self.largest) - np.log2(float(self.ridge)) / 2.0, 1.0)
        peaks = np.abs(self.x).max(axis=0)
        if np.any(peaks > 0.0):
            units = np.log2(self.largest) - np.log2(peaks[peaks > 0.0].min())
        context.prec = 160 + 4 * int(np.ceil(max(bits, np.log2(self.condition)) + units))
        self.number = np.frompyfunc(context.mpf, 1, 1)
        self.rows = self.number(self.x)
        wide = len(self.x) < self.x.shape[1]
        gram = np.asarray(self.rows @ self.rows.T if wide else self.rows.T @ self.rows)
        top, bottom = self.ridge.as_integer_ratio()
        gram[np.diag_indices(len(gram))] += context.mpf(top) / bottom
        solved = _eliminate(gram, self.number(np.eye(len(gram))) if wide else self.rows.T)
        self.inverse = self.rows.T @ solved if wide else solved
        self.hat = np.sum(self.rows * self.inverse.T, axis=1)

    def centered(self, y: Array, start: Array) -> Digits:
        """Returns y - X start, of shape (n,), in the digits of this problem."""
        if self.precise:
            return np.asarray(self.number(y) - self.rows @ self.number(start))
        return np.asarray(y - self.x @ start)

    def solve(self, right: Digits) -> Digits:
        """Returns the minimiser m, of shape (d,), for a right side c of shape (n,)."""
        return np.asarray(self.inverse @ right)

    def shrunk(self, vector: Array) -> Array:
        """Returns r (XᵀX + r I)⁻¹ v, of shape (d,), for v of shape (d,)."""
        if self.precise:
            v = self.number(vector)
            return floats(v - self.inverse @ (self.rows @ v))
        inside = self._right @ vector
        outside = vector - self._right.T @ inside if len(self.x) < vector.size else 0.0
        return np.asarray(self._right.T @ (self._shrinkage * inside) + outside)

    def residuals(self, right: Digits) -> Digits:
        """Returns c - X m, of shape (n,)."""
        return np.asarray(right - self.rows @ self.solve(right))


def floats(values: Digits) -> Array:
    """Returns the values, rounded."""
    return np.asarray(values, dtype=np.float64)


def remove_each(kept: LeastSquares, full: LeastSquares, y: Array, start: Array) -> Removed | None:
    """Remove each row in turn.

    Args:
        kept: the problem at the ridge that holds for the rows that stay.
        full: the problem of all rows.
        y: targets of shape (n,), of which c is y - X start.
        start: of shape (d,).

    Returns:
        The changes; None if some problem has no unique minimiser, as far as floats can tell.
    """
    if kept.precise or full.precise or float(np.max(kept.hat)) > _LEVERAGE:
        for problem in (kept, full):
            if not problem.precise:
                problem._solve_precisely()
    hat = kept.hat
    if kept.ridge == 0:
        for row in np.flatnonzero(floats(hat) > _LEVERAGE):
            if not full_rank(np.delete(kept.x, row, axis=0)):
                return None
    right = full.centered(y, start)
    before, origin = full.solve(right), kept.solve(right)
    out = kept.residuals(right) / (1 - hat)  # the residuals of the rows removed
    steps = kept.inverse.T * out[:, None]
    shift = before - origin
    grown = hat * out + kept.rows @ shift  # out, less the residual that the row had
    moves = origin - steps
    norm = np.sum((moves + before) * -(steps + shift), axis=1)
    return Removed(floats(moves), floats(grown * (2 * out - grown)), floats(norm))


def _eliminate(matrix: Digits, right: Digits) -> Digits:
    # Gauss and Jordan; the pivots of a positive definite matrix are positive.
    table = np.concatenate([matrix, right], axis=1)
    for step in range(len(matrix)):
        table[step] = table[step] / table[step, step]
        others = np.arange(len(matrix)) != step
        table[others] = table[others] - table[others, step][:, None] * table[step]
    return table[:, len(matrix) :]
