"""Exact risks of ridge regression over p, for inputs from a few equally likely atoms.

Targets are x.theta* plus noise, theta0 = 0. The expectation over the sample is a sum over all
multisets of atoms, that over the noise a formula. With w = 2 lambda q the risks depend on lambda
and p through w alone.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import factorial, prod

import numpy as np

from lora_bounds.rounding import Array

RIDGE_WEIGHTS = np.logspace(-3, 3, 61)


@dataclass(frozen=True)
class Curves:
    """Expected risks at each w, per unit of squared signal and per unit of noise variance.

    Attributes:
        signal_train: from the bias alone.
        signal_test: from the bias alone.
        noise_train: from unit noise alone.
        noise_test: from unit noise alone.
        power: theta*^T Sigma theta*, the signal's variance.
    """

    signal_train: Array
    signal_test: Array
    noise_train: Array
    noise_test: Array
    power: float


def curves(atoms: Array, truth: Array, n: int, weights: Array = RIDGE_WEIGHTS) -> Curves:
    """Expected risks over all samples of n atoms."""
    picks = list(combinations_with_replacement(range(len(atoms)), n))
    orders = [factorial(n) / prod(map(factorial, Counter(pick).values())) for pick in picks]
    chance = np.array(orders) / len(atoms) ** n
    x = atoms[np.array(picks)]
    sigma, moment = atoms.T @ atoms / len(atoms), np.einsum("kni,knj->kij", x, x) / n
    rows = []
    for w in weights:
        inverse = np.linalg.inv(moment + w * np.eye(len(truth)))
        bias = -w * inverse @ truth
        spread = inverse @ moment @ inverse
        shrunk = np.einsum("kij,kji->k", inverse, moment)
        twice = np.einsum("kij,kji->k", spread, moment)
        rows.append(
            (
                chance @ np.einsum("ki,kij,kj->k", bias, moment, bias) / 2,
                chance @ np.einsum("ki,ij,kj->k", bias, sigma, bias) / 2,
                chance @ (1 - (2 * shrunk - twice) / n) / 2,
                chance @ (1 + np.einsum("ij,kji->k", sigma, spread) / n) / 2,
            )
        )
    signal_train, signal_test, noise_train, noise_test = np.array(rows).T
    power = float(truth @ sigma @ truth)
    return Curves(signal_train, signal_test, noise_train, noise_test, power)


def critical_ratio_of(law: Curves) -> float:
    """The noise variance over signal power under which the gap of a law turns up somewhere.

    The gap is linear in the noise variance, and its noise part falls at every step.
    """
    signal = np.diff(law.signal_test - law.signal_train)
    noise = np.diff(law.noise_test - law.noise_train)
    return float(np.max(signal / -noise)) / law.power
