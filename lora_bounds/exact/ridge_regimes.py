"""Where the generalization gap of sparsity-regularised ridge falls with p, and where it rises.

The inputs are independent standard Gaussians, the targets xᵀθ* plus noise, θ0 = 0, the objective
that of `exact.ridge`, so p acts through w = 2 λ q(p) alone. With μ the eigenvalues of XᵀX/n
(`lora_bounds.exact.spectra`: exact for each n and d, or in the limit) and means over the spectrum,

    gap(w) = (S/2) E[(1-μ) w²/(μ+w)²] + (σ²/2) (d/n) E[μ (1+μ+2w)/(μ+w)²],

S = ‖θ*‖² being the signal power and σ² the noise variance. The noise part falls with w. The signal
part rises from 0 and falls back to 0. So at each w the gap rises if, and only if, σ²/S is below

    r(w) = (n/d) (w/(1+w)) (1 - E[μ²/(μ+w)³] / E[μ/(μ+w)³]).

Inputs of variance s² have the same gap with λ/s² for λ and s² ‖θ*‖² for S.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.optimize import minimize_scalar

from lora_bounds.bounds.sparsity import dropout_rate
from lora_bounds.domains import (
    Extended,
    NonNegative,
    OneNonNegative,
    Real,
    checked,
    kernel_of,
    representable,
)
from lora_bounds.exact.spectra import Spectrum
from lora_bounds.rounding import Array, Numbers, plain, quiet

# r(w) is searched for its maximum on this grid of w and refined next to the best point.
_LEAST, _MOST, _POINTS = 1e-8, 1e8, 321
_INFINITE = 1e100  # w of infinity and this one are the same in double precision


@dataclass(frozen=True, eq=False)
class SpectralRisks:
    """Expected risks of a minimiser, over inputs and noise.

    Attributes:
        train: expected empirical risk.
        test: expected risk on fresh data.
        gap: ``test - train``, computed without cancellation.
    """

    train: Numbers
    test: Numbers
    gap: Numbers


@dataclass(frozen=True)
class CriticalRatio:
    """The boundary between the regimes.

    Attributes:
        ratio: the gap is non-increasing on all of [0, 1] in p if, and only if, noise variance
            over signal power is at least this; 0 where it falls at any ratio.
        weight: the w = 2 λ q at which the gap still rises for ratios just below; NaN if none.
        dropout: the rate p there; NaN if none, or where λ is infinite.
    """

    ratio: float
    weight: float
    dropout: float


@checked
def shrinkage_risks(
    *,
    spectrum: Spectrum,
    shrinkage: Array,
    signal_power: OneNonNegative,
    noise_variance: OneNonNegative,
) -> SpectralRisks:
    """Compute the expected risks of θ = g(XᵀX/n) Xᵀy/n for a function g of the eigenvalues.

    Args:
        spectrum: of XᵀX/n.
        shrinkage: μ g(μ) at the eigenvalues, in [0, 1] and 0 where μ is; shape (..., nodes).
        signal_power: S = ‖θ*‖², at least 0.
        noise_variance: σ², at least 0.

    Returns:
        The risks, of the shape of ``shrinkage`` without its last axis.
    """
    missing = (1.0 - shrinkage) ** 2
    gained = missing * (1.0 - spectrum.values)
    return _risks(spectrum, shrinkage, missing, gained, signal_power, noise_variance)


def _risks(
    spectrum: Spectrum,
    shrinkage: Array,
    missing: Array,
    gained: Array,
    signal: float,
    noise: float,
) -> SpectralRisks:
    # missing is (1 - shrinkage)², gained has the mean of missing (1 - μ).
    values, weights = spectrum.values, spectrum.weights
    share = noise / spectrum.aspect
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.where(values == 0.0, 0.0, shrinkage**2 / values)
    fitted = (2.0 * shrinkage - shrinkage**2) @ weights
    spread = squares @ weights
    test = (signal * (missing @ weights) + noise + share * spread) / 2.0
    # σ² (1 - (d/n) E[1 - missing]), without cancellation: a kernel (n < d) fits all the noise.
    kernel = values == 0.0
    free = 0.0 if kernel.any() else noise * ((spectrum.aspect - 1.0) / spectrum.aspect)
    unfit = free + share * (missing @ np.where(kernel, 0.0, weights))
    train = (signal * (missing @ (weights * values)) + unfit) / 2.0
    gap = (signal * (gained @ weights) + share * (spread + fitted)) / 2.0
    return SpectralRisks(*(plain(np.asarray(risk)) for risk in (train, test, gap)))


@checked
def ridge_risks(
    *,
    spectrum: Spectrum,
    weight: NonNegative,
    signal_power: OneNonNegative,
    noise_variance: OneNonNegative,
) -> SpectralRisks:
    """Compute the expected risks of ridge regression, over inputs, noise and fresh data.

    Dobriban and Wager 2018 and Hastie, Montanari, Rosset and Tibshirani 2022 have the limit.

    Args:
        spectrum: `wishart_spectrum` for given n and d, or `marchenko_pastur` for the limit.
        weight: w = 2 λ q, at least 0; at 0 the least-squares fit of least norm.
        signal_power: S, at least 0.
        noise_variance: σ², at least 0.

    Returns:
        The risks, of the shape of ``weight``; test risk and gap are infinite at w = 0 where least
        squares has no finite variance (abs(n - d) <= 1, or n/d = 1 in the limit).

    >>> from lora_bounds.exact.spectra import wishart_spectrum
    >>> spectrum = wishart_spectrum(n=10, d=3)
    >>> risks = ridge_risks(spectrum=spectrum, weight=0.0, signal_power=1.0, noise_variance=1.0)
    >>> round(risks.train, 12), round(risks.test, 12)  # (1 - d/n)/2, (1 + d/(n-d-1))/2
    (0.35, 0.75)
    """
    values, column = spectrum.values, weight[..., None]
    sums = np.where(values > 0.0, values + column, 1.0)
    missing = np.where(values > 0.0, column / sums, 1.0) ** 2
    # The mean of μ is 1: less missing at μ = 1, the terms of the gap are all positive.
    tail = (1.0 + values + 2.0 * column) / (1.0 + column) / (1.0 + column)
    with quiet():
        gained = missing * (1.0 - values) ** 2 * tail
        risks = _risks(spectrum, values / sums, missing, gained, signal_power, noise_variance)
    sure = np.where((weight == 0.0) & (not spectrum.invertible), risks.train, risks.test)
    representable((risks.train, sure), "signal_power", "noise_variance")
    if spectrum.invertible or noise_variance == 0.0:
        return risks
    infinite = weight == 0.0
    return SpectralRisks(
        risks.train,
        plain(np.where(infinite, np.inf, risks.test)),
        plain(np.where(infinite, np.inf, risks.gap)),
    )


@checked
def turning_ratio(*, spectrum: Spectrum, weight: Extended) -> Numbers:
    """Compute r(w): the gap rises with p at w = 2 λ q exactly if σ²/S is below it.

    Args:
        spectrum: of XᵀX/n.
        weight: w, in [0, inf].

    Returns:
        r(w), of the shape of ``weight``: 0 at w = 0 and -(d+1)/d at infinity.
    """
    w = np.asarray(np.minimum(weight, _INFINITE))
    column, values = w[..., None], spectrum.values
    # μ/(μ+w)³ but for a factor that keeps it from under- and overflow for every w.
    least = float(values[values > 0.0].min(initial=np.inf))
    positive = np.where(values > 0.0, values, 1.0)
    steep = ((least + column) / (positive + column)) ** 3
    total = np.sum(values * steep * spectrum.weights, axis=-1)
    if spectrum.aspect < 1.0:
        short = 1.0 - np.sum(values**2 * steep * spectrum.weights, axis=-1) / total
    else:
        # The mean of 1 - μ under it; that of μ itself is 1, so the same at μ = 1 is taken off
        # first: both are near 0 where n/d is large.
        whole = 1.0 + column
        part = (values + column) / whole
        above = values * steep * (1.0 + part + part**2) / whole - ((least + column) / whole) ** 3
        short = np.sum((1.0 - values) ** 2 * above * spectrum.weights, axis=-1) / total
    return np.where(w > 0.0, spectrum.aspect * (w / (1.0 + w)) * short, 0.0)


def _peak(spectrum: Spectrum, most: float) -> tuple[float, float]:
    # The w in (0, most] at which r is largest, and r there.
    grid = np.geomspace(min(_LEAST, most / 2.0), most, _POINTS)
    ratio = kernel_of(turning_ratio)
    ratios = ratio(spectrum=spectrum, weight=grid)
    best = int(ratios.argmax())
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, _POINTS - 1)]
    found = minimize_scalar(
        lambda x: -float(ratio(spectrum=spectrum, weight=np.exp(x))),
        bounds=(np.log(low), np.log(high)), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    refined = float(-found.fun)
    if refined > ratios[best]:
        return float(np.exp(found.x)), refined
    return float(grid[best]), float(ratios[best])


@checked
def critical_ratio(
    *, spectrum: Spectrum, regularization: Annotated[float, Real("(0, inf]")] = np.inf
) -> CriticalRatio:
    """Compute the noise-to-signal ratio that parts the regimes: the maximum of r over w <= 2 λ.

    Args:
        spectrum: `wishart_spectrum` for given n and d, or `marchenko_pastur` for the limit.
        regularization: λ in (0, inf].

    Returns:
        The boundary.

    >>> from lora_bounds.exact.spectra import marchenko_pastur
    >>> critical_ratio(spectrum=marchenko_pastur(aspect=0.38)).ratio
    0.0
    >>> round(critical_ratio(spectrum=marchenko_pastur(aspect=1e6)).ratio, 5)
    0.33333
    """
    weight, ratio = _peak(spectrum, min(2.0 * regularization, _MOST))
    if ratio <= 0.0:
        return CriticalRatio(0.0, np.nan, np.nan)
    share = min(weight / (2.0 * regularization), 1.0)
    rate = float(kernel_of(dropout_rate)(drop_probability=share))
    return CriticalRatio(ratio, weight, rate if np.isfinite(regularization) else np.nan)
