"""The mean eigenvalue distribution of XᵀX/n for Gaussian X: exact for each n and d, and its limit.

Whatever is linear in the spectrum of the sample's second moment (the expected risks of ridge
regression are) is then a sum over the nodes of a quadrature. Both distributions come in the same
form, so every function of `lora_bounds.exact.ridge_regimes` takes either.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, lgamma, log, log2, sqrt
from typing import Annotated

import numpy as np
from numpy.polynomial import legendre

from lora_bounds.domains import Call, Is, Real, Vector, Whole, checked, freeze
from lora_bounds.rounding import Array

_ORDER = 16  # Gauss-Legendre nodes a panel
_REACH = 9.0  # P(a singular value lies farther out than its limit) <= exp(-9²/2) < 3e-18
_MOST_HALVINGS = 505  # then eigenvalues underflow
_TRACE_TOLERANCE = 1e-9
MOST = 10**5  # beyond it, exponentials underflow for every number of inputs but a few


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A quadrature for E (1/d) tr f(XᵀX/n); the arrays are read-only.

    Attributes:
        values: eigenvalues μ, at least 0. Where n < d, one of them is the 0 of the kernel.
        weights: of sum 1, such that the mean of f is ``weights @ f(values)``.
        aspect: n/d, examples per input.
        invertible: whether the eigenvalues that are not 0 have a finite mean of 1/μ; without it
            the risk of least squares is infinite.
    """

    values: Array
    weights: Array
    aspect: float
    invertible: bool

    def __post_init__(self) -> None:
        freeze(values=self.values, weights=self.weights)
        call = Call()
        Vector("nodes", "[0, inf)")("values", self.values, call)
        Vector("nodes")("weights", self.weights, call)
        Real("(0, inf)")("aspect", self.aspect)
        Is(bool)("invertible", self.invertible)


@dataclass(frozen=True, eq=False)
class _Panels:
    # Gauss-Legendre panels side by side: nodes and weights of shape (panels, order).
    nodes: Array
    weights: Array
    half: Array


def _panels(edges: Array) -> _Panels:
    x, w = legendre.leggauss(_ORDER)
    half, middle = np.diff(edges) / 2.0, (edges[1:] + edges[:-1]) / 2.0
    return _Panels(middle[:, None] + half[:, None] * x, half[:, None] * w, half)


def _graded(edges: Array, halvings: int = 24) -> Array:
    # The first panel is halved towards its start again and again: 1/(μ + w) is steep there.
    step = edges[1] - edges[0]
    inner = edges[0] + step * 0.5 ** np.arange(halvings, 0, -1)
    return np.concatenate([edges[:1], inner, edges[1:]])


def _antiderivatives(values: Array, panels: _Panels) -> tuple[Array, Array]:
    # Running integrals of functions (m, panels, order) to each node, and whole integrals (m,).
    x, _ = legendre.leggauss(_ORDER)
    modes = np.linalg.inv(legendre.legvander(x, _ORDER - 1))
    to_node = np.stack(
        [legendre.legval(x, legendre.legint(mode, lbnd=-1)) for mode in modes.T], axis=1
    )
    whole = np.einsum("jpo,po->jp", values, panels.weights)
    inside = values @ to_node.T * panels.half[None, :, None]
    before = np.cumsum(whole, axis=1) - whole
    return (inside + before[:, :, None]).reshape(len(values), -1), whole.sum(axis=1)


def _functions(size: int, excess: int, t: Array) -> Array:
    # t^excess exp(-t²/2) times Laguerre polynomials of t², orthonormal on t > 0.
    alpha, x = excess - 0.5, t**2
    found = np.empty((size, t.size))
    power = excess * np.log(t) if excess else 0.0
    found[0] = np.exp(power - x / 2.0 + (log(2.0) - lgamma(alpha + 1.0)) / 2.0)
    if size > 1:
        found[1] = (alpha + 1.0 - x) / sqrt(alpha + 1.0) * found[0]
    for j in range(1, size - 1):
        past = (2 * j + alpha + 1.0 - x) * found[j] - sqrt(j * (j + alpha)) * found[j - 1]
        found[j + 1] = past / sqrt((j + 1) * (j + 1 + alpha))
    return found


@lru_cache(maxsize=256)
def _wishart(small: int, large: int) -> tuple[Array, Array]:
    # Squared singular values of a (large x small) Gaussian matrix, as nodes and weights.
    bottom, top = sqrt(large) - sqrt(small) - _REACH, sqrt(large) + sqrt(small) + _REACH
    edges = np.linspace(max(bottom, 0.0), top, 4 * small + 41)
    panels = _panels(_graded(edges) if bottom <= 0.0 else edges)
    t, mass = panels.nodes.ravel(), panels.weights.ravel()
    basis = _functions(small, large - small, t)
    running, total = _antiderivatives(basis.reshape(small, -1, _ORDER), panels)
    signed = 2.0 * running - total[:, None]  # ∫ sgn(t - s) basis(s) ds
    pfaffian = np.zeros((small + small % 2,) * 2)
    skew = (signed * mass) @ basis.T
    pfaffian[:small, :small] = (skew - skew.T) / 2.0
    if small % 2:
        pfaffian[:small, small], pfaffian[small, :small] = total, -total
    inverse = np.linalg.inv(pfaffian)
    density = np.sum((inverse[:small, :small] @ signed) * basis, axis=0)
    if small % 2:
        density += inverse[small, :small] @ basis
    return t**2, density * mass


@checked
def wishart_spectrum(
    *, n: Annotated[int, Whole(1, MOST)], d: Annotated[int, Whole(1, MOST)]
) -> Spectrum:
    """Compute the exact mean eigenvalue distribution of XᵀX/n, X (n, d) with entries N(0, 1).

    The eigenvalues have joint density prod_i w(μ_i) prod_{i<j} |μ_i - μ_j| (Muirhead 1982,
    Theorem 3.2.18). Integrals of prod_i (1 + ε f(μ_i)) under such a density are Pfaffians (de
    Bruijn 1955); the derivative at ε = 0 gives E Σ f(μ_i), hence the density of one eigenvalue.
    Quadrature is in the singular value t, where every integrand is smooth.

    Args:
        n: number of examples, at least 1.
        d: number of inputs, at least 1.

    Returns:
        The distribution. Moments agree with their closed forms to about 1e-14.

    Raises:
        ArithmeticError: if the density misses the mean of the trace, as it does from n = d = 350
            or so on; `marchenko_pastur` is close there.

    >>> found = wishart_spectrum(n=5, d=2)
    >>> round(float(found.weights @ found.values**2), 12)  # 1 + (d + 1)/n
    1.6
    """
    small, large = min(n, d), max(n, d)
    with np.errstate(under="ignore"):
        squares, mass = _wishart(small, large)
    # The mean of tr(XᵀX) is n d. Where exponentials underflow, an end of the spectrum goes missing.
    if not abs(mass @ squares / (n * d) - 1.0) <= _TRACE_TOLERANCE:
        raise ArithmeticError(f"n and d are too large for the exact density, got n={n} and d={d}")
    values, weights = squares / n, mass / d
    if n < d:
        values = np.append(0.0, values)
        weights = np.append((d - n) / d, weights)
    return Spectrum(values, np.array(weights), n / d, large - small >= 2)


@checked
def marchenko_pastur(*, aspect: Annotated[float, Real("[1e-100, 1e20]")]) -> Spectrum:
    """Compute the limit of `wishart_spectrum` as n and d grow with n/d fixed.

    Marchenko and Pastur 1967. With γ = d/n the eigenvalues that are not 0 fill
    [(1-√γ)², (1+√γ)²]; μ = 1 + γ - 2 √γ cos θ makes the density (2/π) sin²θ/μ in θ.

    Args:
        aspect: n/d, in [1e-100, 1e20]: beyond, eigenvalues are 1 to double precision.

    Returns:
        The distribution.

    >>> found = marchenko_pastur(aspect=2.0)
    >>> round(float(found.weights @ found.values**2), 12)  # 1 + d/n
    1.5
    """
    root = sqrt(1.0 / aspect)
    # 1 - √γ and the θ at which the rest of μ is its square: 1/μ peaks there, so panels go below.
    edge = (aspect - 1.0) / aspect / (1.0 + root)
    peak, step = abs(edge) / sqrt(root), np.pi / 64
    halvings = ceil(log2(step / peak)) + 4 if peak > 0.0 else _MOST_HALVINGS
    grid = _graded(np.linspace(0.0, np.pi, 65), min(max(halvings, 24), _MOST_HALVINGS))
    panels = _panels(grid)
    theta = panels.nodes.ravel()
    # (1-√γ)² + 4 √γ sin²(θ/2), which does not cancel near θ = 0.
    values = edge**2 + 4.0 * root * np.sin(theta / 2.0) ** 2
    weights = 2.0 / np.pi * np.sin(theta) ** 2 / values * panels.weights.ravel()
    if aspect < 1.0:
        values, weights = np.append(0.0, values), np.append(1.0 - aspect, weights)
    return Spectrum(values, weights, aspect, aspect != 1.0)
