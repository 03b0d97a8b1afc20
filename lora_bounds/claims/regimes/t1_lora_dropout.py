"""T1 for the ensemble of a linear layer trained with LoRA Dropout."""

import numpy as np

from lora_bounds.exact.dropout_regimes import (
    dropout_limit_risks,
    dropout_turning_ratio,
    sampled_dropout_risks,
)
from lora_bounds.exact.spectra import marchenko_pastur
from lora_bounds.rounding import Array
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, sweep
from lora_bounds.trial.trends import page_trend

_DROPOUT_RATES = np.array([0.02, 0.06, 0.1, 0.15, 0.3, 0.5, 0.7, 0.9])


_TURN = 4  # rates up to 0.15 lie before the turn down, at noise 0


_CHANCE = 1e-6


def _layers() -> list[tuple[int, Array]]:
    def correlated(d: int, rho: float) -> Array:
        return np.asarray(rho ** np.abs(np.subtract.outer(np.arange(d), np.arange(d))))

    return [(n, correlated(10, rho)) for n in (20, 40) for rho in (0.0, 0.5)]


def dropout_gap_under_noise() -> Sweep:
    """Returns 1e-6 minus Page's p-value for a falling gap, with noise variance = signal power."""
    slacks = []
    for n, sigma in _layers():
        found = sampled_dropout_risks(
            n=n, second_moment=sigma, dropout=_DROPOUT_RATES, samples=60, seed=40
        )
        trend = page_trend(found.gap(noise_to_signal=1.0), direction="decreasing")
        slacks.append(_CHANCE - trend.p_value)
    scope = "d = 10, n 20 and 40, correlation 0 and 0.5, 60 samples each, Page's test"
    return Sweep(scope, slacks, 4 * _CHANCE)


def dropout_gap_without_noise() -> Sweep:
    """Returns 1e-6 minus Page's p-values for a rise up to p = 0.15 and a fall from p = 0.3 on."""
    slacks = []
    for n, sigma in _layers():
        found = sampled_dropout_risks(
            n=n, second_moment=sigma, dropout=_DROPOUT_RATES, samples=400, seed=41
        )
        gap = found.gap(noise_to_signal=0.0)
        slacks.append(_CHANCE - page_trend(gap[:, :_TURN], direction="increasing").p_value)
        slacks.append(_CHANCE - page_trend(gap[:, _TURN:], direction="decreasing").p_value)
    scope = "d = 10, n 20 and 40, correlation 0 and 0.5, 400 samples each, Page's test"
    return Sweep(scope, slacks, 8 * _CHANCE)


def dropout_limit() -> Sweep:
    """Returns how much the limit of the gap falls at each p, at noise variance 0.21 of signal.

    And 0.201 minus the turning ratio there.
    """
    rates, slacks = np.linspace(0.002, 0.998, 499), []
    for aspect in (0.1, 0.4, 0.5, 0.8, 1.0, 1.5, 3.0, 10.0, 100.0, 1e4):
        spectrum = marchenko_pastur(aspect=aspect)
        found = dropout_limit_risks(
            aspect_spectrum=spectrum, dropout=rates, signal_power=1.0, noise_variance=0.21
        )
        slacks += list(-np.diff(np.asarray(found.gap)))
        ratio = np.asarray(dropout_turning_ratio(aspect_spectrum=spectrum, dropout=rates))
        slacks += list(0.201 - ratio)
        if aspect <= 0.5:
            slacks += list(ALGEBRA - ratio)
    return Sweep("n/d 0.1 to 1e4, p 0.002 to 0.998", slacks)


CLAIMS = (
    Claim(
        id="T1, LoRA Dropout",
        paper_item="T1, linear layer",
        statement=(
            "For the ensemble of a linear layer trained with LoRA Dropout the gap falls with p if "
            "noise variance is the signal's, and without noise rises at first and then falls."
        ),
        assumptions=(
            "squared loss, full rank, minimum of the expected masked loss on the sample",
            "Gaussian inputs, n/d 2 or 4 in the samples; isotropic ones in the limit",
        ),
        evidence=(
            sweep(dropout_gap_under_noise),
            sweep(dropout_gap_without_noise),
            sweep(dropout_limit),
        ),
        recorded=Verdict.HOLDS,
        formula="limit: critical ratio below 0.201; 0 for n/d <= 1/2",
        functions=(
            "exact.dropout_regimes.sampled_dropout_risks",
            "exact.dropout_regimes.dropout_limit_risks",
            "exact.dropout_regimes.dropout_turning_ratio",
        ),
    ),
)
