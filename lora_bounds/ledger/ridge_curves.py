"""Exact risks of ridge regression over p: the sweeps behind the predicted trends T1 to T3.

Inputs come from a few equally likely atoms, targets are x.theta* plus noise, theta0 = 0. The
expectation over the sample is a sum over all multisets of atoms, that over the noise a formula.
With w = 2 lambda q the risks depend on lambda and p through w alone.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, factorial, prod

import numpy as np

from lora_bounds.exact.ridge import expected_risks, population_risk, ridge_fit
from lora_bounds.ledger.evidence import ALGEBRA, Sweep, agreement, unseen
from lora_bounds.problems import make_regression
from lora_bounds.rounding import Array

_WEIGHTS = np.logspace(-3, 3, 61)


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


def curves(atoms: Array, truth: Array, n: int, weights: Array = _WEIGHTS) -> Curves:
    """Expected risks over all samples of n atoms.

    Args:
        atoms: equally likely inputs, of shape (atoms, d).
        truth: theta*, of shape (d,).
        n: sample size.
        weights: values of w = 2 lambda q.

    Returns:
        The curves over w.
    """
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


def _laws(seed: int, count: int) -> list[Curves]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        d = int(rng.integers(1, 4))
        atoms, truth = rng.standard_normal((5, d)), rng.standard_normal(d)
        found.append(curves(atoms, truth, n=int(rng.integers(3, 7))))
    return found


_LAWS = "random laws on 5 atoms, d <= 3, n 3 to 6, w = 2 lambda q from 1e-3 to 1e3"


def critical_ratio_of(law: Curves) -> float:
    """The noise variance over signal power under which the gap of a law turns up somewhere.

    The gap is linear in the noise variance, and its noise part falls at every step.

    Args:
        law: the curves.

    Returns:
        The ratio; negative where the gap falls whatever the noise.
    """
    signal = np.diff(law.signal_test - law.signal_train)
    noise = np.diff(law.noise_test - law.noise_train)
    return float(np.max(signal / -noise)) / law.power


def risks_against_formula() -> Sweep:
    """Returns the ridge risks of `exact.ridge` against the sums over samples used here."""
    rng, slacks = np.random.default_rng(17), []
    for _ in range(300):
        d, n = int(rng.integers(1, 4)), 2
        atoms, truth = rng.standard_normal((4, d)), rng.standard_normal(d)
        sigma, noise = atoms.T @ atoms / 4, float(rng.uniform(0, 2))
        lam, p = float(10 ** rng.uniform(-1, 1)), float(rng.uniform(0.1, 1))
        law = curves(atoms, truth, n, np.array([2 * lam * (2 * p - p * p)]))
        sums = np.zeros(3)
        for index in np.ndindex(*(4,) * n):
            found = expected_risks(
                inputs=atoms[list(index)],
                truth=truth,
                second_moment=sigma,
                noise=noise,
                regularization=lam,
                dropout=p,
            )
            sums += np.array([found.train, found.test, found.gap]) / 4**n
        train = law.signal_train[0] + noise**2 * law.noise_train[0]
        test = law.signal_test[0] + noise**2 * law.noise_test[0]
        slacks.append(agreement(sums, [train, test, test - train], ALGEBRA))
        found_risk = population_risk(
            solution=np.zeros(d), truth=truth, second_moment=sigma, noise=noise
        )
        slacks.append(agreement(found_risk, (law.power + noise**2) / 2, ALGEBRA))
    return Sweep("300 random laws on 4 atoms, all samples of 2", slacks, unseen(300))


def gap_rate_in_n() -> Sweep:
    """Returns 0.1 minus the distance of the measured rate of the expected gap from -1/2.

    One parameter, inputs of square 1 or 4: the sample is a binomial count, summed exactly.
    """
    sizes, slacks = (100, 400, 1600), []
    for w, noise in ((0.1, 1.0), (1.0, 1.0), (1.0, 0.1)):
        gaps = []
        for n in sizes:
            ones = np.arange(n + 1)
            chance = np.array([float(comb(n, int(k)) / 2**n) for k in ones])
            moment = (ones + 4.0 * (n - ones)) / n
            bias = (w / (moment + w)) ** 2 * (2.5 - moment)
            spread = noise**2 / n * moment * (2.5 + moment + 2 * w) / (moment + w) ** 2
            gaps.append(float(chance @ (bias + spread)) / 2)
        rates = np.diff(np.log(gaps)) / np.diff(np.log(sizes))
        slacks += list(0.1 - np.abs(rates + 0.5))
    return Sweep("n 100 to 1600, three settings", slacks)


def training_risk_over_p() -> Sweep:
    """Returns how much the training risk of ridge rises from one p to the next."""
    rng, slacks = np.random.default_rng(18), []
    for _ in range(500):
        data = make_regression(
            n=12,
            d=3,
            condition_number=float(10 ** rng.uniform(0, 3)),
            noise=float(10 ** rng.uniform(-2, 1)),
            seed=int(rng.integers(2**32)),
        )
        lam = float(10 ** rng.uniform(-2, 2))
        risks = [
            ridge_fit(
                inputs=data.inputs, targets=data.targets, regularization=lam, dropout=float(p)
            ).train_risk
            for p in np.linspace(0, 1, 11)
        ]
        slacks += list(np.diff(risks) / risks[-1] + ALGEBRA)
    return Sweep("500 random ridge problems, 11 rates p in [0, 1]", slacks, unseen(500))


def _turns(law: Curves, noise: float) -> list[float]:
    """Returns the fall of the test risk at the first step of w and its rise at the last."""
    steps = np.diff(law.signal_test + noise * law.noise_test) / law.power
    return [-float(steps[0]), float(steps[-1])]


def u_shape_without_noise() -> Sweep:
    """Returns the fall at the first step and the rise at the last, with noiseless targets."""
    return Sweep(
        f"100 {_LAWS}", [s for law in _laws(19, 100) for s in _turns(law, 0.0)], unseen(100)
    )


def u_shape_with_noise() -> Sweep:
    """Returns the same with noise variance 0.1 to 10 times the signal power."""
    rng = np.random.default_rng(20)
    laws = _laws(20, 500)
    slacks = [s for law in laws for s in _turns(law, law.power * 10 ** rng.uniform(-1, 1))]
    return Sweep(f"500 {_LAWS}", slacks, unseen(500))
