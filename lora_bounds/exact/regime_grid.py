"""The regimes of `ridge_regimes` on a grid: at which rates p does the gap rise?"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy.optimize import brentq

from lora_bounds.bounds.sparsity import dropout_rate
from lora_bounds.domains import (
    OneNonNegative,
    OnePositive,
    Reals,
    Vector,
    Whole,
    checked,
    freeze,
    kernel_of,
)
from lora_bounds.exact.ridge_regimes import CriticalRatio, critical_ratio, turning_ratio
from lora_bounds.exact.spectra import MOST, Spectrum, marchenko_pastur, wishart_spectrum
from lora_bounds.rounding import Array

_LEAST = 1e-10  # where the search for the turn begins, relative to the w of the boundary


@dataclass(frozen=True)
class Rise:
    """The rates between which the gap rises with p; outside of them it falls.

    Attributes:
        start: p at which the gap turns up.
        end: p at which it turns down again, or 1.
    """

    start: float
    end: float


@dataclass(frozen=True, eq=False)
class RegimeMap:
    """The regimes on a grid; the arrays are read-only.

    Attributes:
        aspects: n/d as realised, of shape (a,).
        regularizations: λ, of shape (l,).
        noise_to_signal: σ²/S, of shape (s,).
        critical: critical ratios, of shape (a, l).
        rise_start: p at which the gap turns up, of shape (a, l, s); NaN where it never does.
        rise_end: p at which it turns down again, or 1; NaN where it never rises.
    """

    aspects: Array
    regularizations: Array
    noise_to_signal: Array
    critical: Array
    rise_start: Array
    rise_end: Array

    def __post_init__(self) -> None:
        freeze(**vars(self))


@checked
def rising_rates(
    *, spectrum: Spectrum, regularization: OnePositive, noise_to_signal: OneNonNegative
) -> Rise | None:
    """Find the rates p between which the gap rises.

    Args:
        spectrum: of XᵀX/n.
        regularization: λ, positive and finite.
        noise_to_signal: σ²/S, at least 0.

    Returns:
        The interval, or None where the gap falls on all of [0, 1]. There is at most one interval
        because r(w) has one maximum (seen on every grid tried; not proved).
    """
    boundary = kernel_of(critical_ratio)(spectrum=spectrum, regularization=regularization)
    return _rise(spectrum, regularization, noise_to_signal, boundary)


def _rise(spectrum: Spectrum, lam: float, noise: float, boundary: CriticalRatio) -> Rise | None:
    if boundary.ratio <= noise:
        return None

    def excess(log_weight: float) -> float:
        weight = np.exp(log_weight)
        return float(kernel_of(turning_ratio)(spectrum=spectrum, weight=weight)) - noise

    def rate(log_weight: float) -> float:
        share = min(float(np.exp(log_weight)) / (2.0 * lam), 1.0)
        return float(kernel_of(dropout_rate)(drop_probability=share))

    top, last = float(np.log(boundary.weight)), float(np.log(2.0 * lam))
    least = top + float(np.log(_LEAST))
    start = rate(brentq(excess, least, top)) if excess(least) < 0.0 else 0.0
    end = rate(brentq(excess, top, last)) if excess(last) < 0.0 else 1.0
    return Rise(start, end)


@checked
def regime_map(
    *,
    aspects: Annotated[Any, Vector("", "[1e-100, 1e100]")],
    regularizations: Annotated[Any, Vector("", "(0, inf)")],
    noise_to_signal: Annotated[Any, Vector("", "[0, inf)")],
    d: Annotated[int, Whole(1, MOST)] | None = None,
) -> RegimeMap:
    """Map the regimes over n/d, λ and the noise-to-signal ratio.

    Args:
        aspects: values of n/d, positive.
        regularizations: values of λ, positive and finite.
        noise_to_signal: values of σ²/S, at least 0.
        d: number of inputs, for the exact map at n = max(1, round(d n/d)); None for the limit.

    Returns:
        The map; a grid of 30 x 6 x 30 takes about ten seconds.
    """
    ratios, lambdas, noises = aspects, regularizations, noise_to_signal
    if d is not None:
        Reals(f"(0, {MOST}]")("aspects", ratios * d)
    spectra = [
        marchenko_pastur(aspect=float(a))
        if d is None
        else kernel_of(wishart_spectrum)(n=max(1, round(float(a) * d)), d=d)
        for a in ratios
    ]
    critical = np.empty((ratios.size, lambdas.size))
    ends = np.full((2, ratios.size, lambdas.size, noises.size), np.nan)
    for i, spectrum in enumerate(spectra):
        for j, lam in enumerate(lambdas.tolist()):
            boundary = kernel_of(critical_ratio)(spectrum=spectrum, regularization=lam)
            critical[i, j] = boundary.ratio
            for k, noise in enumerate(noises.tolist()):
                rise = _rise(spectrum, lam, noise, boundary)
                if rise is not None:
                    ends[:, i, j, k] = rise.start, rise.end
    realised = np.array([s.aspect for s in spectra])
    return RegimeMap(realised, lambdas, noises, critical, ends[0].copy(), ends[1].copy())
