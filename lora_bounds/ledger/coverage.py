"""How often the risk bounds fail, exactly: binomial sums over all samples of a small problem.

Every sweep returns delta minus the probability, over samples, that the risk exceeds the bound.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import binom

from lora_bounds.bounds.held_out import clopper_pearson, hoeffding
from lora_bounds.bounds.pac_bayes import pac_bayes_kl_bound
from lora_bounds.bounds.risk import (
    bousquet_klochkov_zhivotovskiy,
    feldman_vondrak_2018,
    lemma_4_3,
    theorem_4_4,
    uniform_stability_bound,
)
from lora_bounds.bounds.stability import uniform_stability
from lora_bounds.ledger.evidence import Sweep
from lora_bounds.results import BoundResult
from lora_bounds.rounding import Array

_SIZES = (1, 2, 3, 5, 10, 30, 100, 1000)
_DELTAS = (0.9, 0.5, 0.2, 0.05, 1e-3)
_RISKS = np.append(np.linspace(0.0, 1.0, 21), [1e-3, 1e-2, 0.99, 0.999])
_MEANS = 2 * _RISKS - 1


def _linear_learner(bound: Callable[..., BoundResult]) -> list[float]:
    """Returns delta minus the failure probability for regularised linear losses.

    Examples z = -1 or 1 with P(z = 1) = pi; loss T - z t with T = 1/(2c), so rho = 1; objective
    mean loss + c t^2. Its minimiser is t = T mean(z), hence losses lie in [0, 2T].
    """
    slacks = []
    for n in _SIZES:
        ones = np.arange(n + 1)
        for weight in (0.05, 0.5, 5.0):
            reach = 1 / (2 * weight)
            solution = reach * (2 * ones / n - 1)
            empirical = np.clip(reach - solution**2 / reach, 0.0, 2 * reach)
            for delta in _DELTAS:
                limits = bound(
                    n=n, delta=delta, weight=weight, loss_range=2 * reach, empirical_risk=empirical
                ).value
                for pi in _RISKS:
                    fails = reach - (2 * pi - 1) * solution > limits
                    slacks.append(delta - float(binom.pmf(ones, n, pi)[fails].sum()))
    return slacks


_SCOPE = "regularised linear losses, n 1 to 1000, 5 deltas, 25 laws, 3 penalties, all samples"


def _from_uniform(bound: Callable[..., BoundResult]) -> Sweep:
    def with_stability(*, weight: float, n: int, **rest: object) -> BoundResult:
        # At p = 1, q = 1, so the penalty's weight lambda q is lambda.
        beta = uniform_stability(n=n, lipschitz=1.0, regularization=weight, dropout=1.0)
        return bound(n=n, stability=beta.value, **rest)

    return Sweep(_SCOPE, _linear_learner(with_stability))


def lemma_4_3_failures() -> Sweep:
    """Returns delta minus how often Lemma 4.3 fails at the repaired uniform stability."""
    return _from_uniform(lemma_4_3)


def bousquet_elisseeff_failures() -> Sweep:
    """Returns delta minus how often Bousquet and Elisseeff's Theorem 12 fails."""
    return _from_uniform(uniform_stability_bound)


def feldman_vondrak_failures() -> Sweep:
    """Returns delta minus how often Feldman and Vondrak's 2018 bound fails."""
    return _from_uniform(feldman_vondrak_2018)


def bousquet_klochkov_zhivotovskiy_failures() -> Sweep:
    """Returns delta minus how often Bousquet, Klochkov and Zhivotovskiy's bound fails."""
    return _from_uniform(bousquet_klochkov_zhivotovskiy)


def theorem_4_4_failures() -> Sweep:
    """Returns delta minus how often Thm 4.4 fails at the self-consistent eta = 2 rho."""

    def printed(*, weight: float, **rest: float) -> BoundResult:
        return theorem_4_4(lipschitz=2.0, curvature=0.0, regularization=weight, dropout=1.0, **rest)

    return Sweep(_SCOPE, _linear_learner(printed))


def _fixed_predictor(limits: Callable[[int, float], Array]) -> list[float]:
    slacks = []
    for n in _SIZES:
        errors = np.arange(n + 1)
        for delta in _DELTAS:
            above = limits(n, delta)
            for risk in _RISKS:
                failing = float(binom.pmf(errors, n, risk)[risk > above].sum())
                slacks.append(delta - failing)
    return slacks


def hoeffding_failures() -> Sweep:
    """Returns delta minus how often Hoeffding's bound fails."""

    def limits(n: int, delta: float) -> Array:
        rates = np.arange(n + 1) / n
        found = hoeffding(n=n, delta=delta, empirical_risk=rates, loss_range=1.0)
        return np.asarray(found.value)

    return Sweep("0-1 loss, n 1 to 1000, 5 deltas, 25 risks", _fixed_predictor(limits))


def clopper_pearson_failures() -> Sweep:
    """Returns delta minus how often Clopper and Pearson's bound fails."""

    def limits(n: int, delta: float) -> Array:
        return np.asarray(clopper_pearson(n=n, delta=delta, errors=np.arange(n + 1)).value)

    return Sweep("0-1 loss, n 1 to 1000, 5 deltas, 25 risks", _fixed_predictor(limits))


def pac_bayes_failures() -> Sweep:
    """Returns delta minus how often the PAC-Bayes bound fails for the best of K predictors.

    K independent predictors of one risk, prior 1/K each, posterior all on the best: KL = ln K.
    """
    slacks = []
    for count in (1, 4, 64):
        for n in _SIZES:
            errors = np.arange(n + 1)
            for delta in _DELTAS:
                limits = pac_bayes_kl_bound(
                    n=n,
                    delta=delta,
                    kl=float(np.nextafter(np.log(count), np.inf)),
                    empirical_risk=errors / n,
                    loss_range=1.0,
                ).value
                for risk in _RISKS:
                    failing = errors[risk > limits]  # 0 to some k: the bound grows with errors
                    some = binom.cdf(failing.max(), n, risk) if failing.size else 0.0
                    slacks.append(delta - float(-np.expm1(count * np.log1p(-some))))
    return Sweep("best of 1, 4 and 64 predictors, n 1 to 1000, 5 deltas, 25 risks", slacks)
