"""Bounds from data that training never saw: the yardstick for every other bound.

They need no property of the model, only that the n held-out examples are independent of it.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaincc, betainccinv, betaincinv

from lora_bounds import checks, rounding
from lora_bounds._risk import BOUNDED, IID, risk_inputs
from lora_bounds.pac_bayes import kl_inverse
from lora_bounds.results import Assumption, BoundResult, Direction, conclude, confidence_of
from lora_bounds.rounding import Array, quiet

UNSEEN = Assumption("unseen data", "the held-out examples played no part in training or selection")

# Scipy's incomplete beta functions and their inverses are compared with balls in the tests. They
# fail for some tails of 1e-300; from 1e-100 on they are within this slack.
_INVERSE_SLACK = 1e-11
_LEAST_TAIL = 1e-100


@checks.broadcasting
def hoeffding(
    *,
    n: ArrayLike,
    delta: ArrayLike,
    empirical_risk: ArrayLike,
    loss_range: ArrayLike,
    direction: Direction = "upper",
) -> BoundResult:
    """Bound the risk by Hoeffding's inequality: R <= Rhat + C sqrt(ln(1/δ) / (2n)).

    With probability at least 1-δ over the held-out sample; the lower bound likewise, with a minus.

    Args:
        n: number of held-out examples, at least 1.
        delta: failure probability δ in [0, 1].
        empirical_risk: mean held-out loss, in [0, C].
        loss_range: C, positive.
        direction: which side to bound.

    Returns:
        The bound on R; vacuous at or above C (below 0, for the lower one).

    >>> round(hoeffding(n=1000, delta=0.05, empirical_risk=0.1, loss_range=1.0).value, 4)
    0.1387
    """
    with quiet():
        checks.choice("direction", direction, ("upper", "lower"))
        size, failure, largest, risk = risk_inputs(n, delta, loss_range, empirical_risk)
        slack = np.asarray(largest * np.sqrt(-np.log(failure) / 2.0 / size))
        if direction == "upper":
            value, trivial = risk + slack, largest
        else:
            # Each side is rounded before the difference, which may cancel.
            value, trivial = np.maximum(rounding.down(risk) - rounding.up(slack), 0.0), np.zeros(())
        return _held_out(
            value, failure, trivial, direction, "Hoeffding", "Hoeffding 1963, Theorem 1"
        )


@checks.broadcasting
def clopper_pearson(
    *,
    n: ArrayLike,
    delta: ArrayLike,
    errors: ArrayLike,
    direction: Direction = "upper",
) -> BoundResult:
    """Bound a 0-1 risk by the exact binomial tail.

    The upper bound is the largest R under which at most ``errors`` mistakes in n have probability
    δ or more; it holds with probability at least 1-δ over the held-out sample. For δ below 1e-100
    Chernoff's bound, a little wider, takes its place unless no example or every one is a mistake.

    Args:
        n: number of held-out examples, at least 1.
        delta: failure probability δ in [0, 1].
        errors: number of mistakes among them.
        direction: which side to bound.

    Returns:
        The bound on R in [0, 1].

    >>> round(clopper_pearson(n=100, delta=0.05, errors=0).value, 6)
    0.029513
    """
    with quiet():
        checks.choice("direction", direction, ("upper", "lower"))
        size = checks.count("n", n)
        failure = checks.numbers("delta", delta, "[0, 1]")
        wrong = checks.count("errors", errors, least=0)
        checks.at_most("errors", wrong, "n", size)
        if direction == "upper":
            value, trivial = _upper(size, failure, wrong), np.ones(())
        else:
            value, trivial = _lower(size, failure, wrong), np.zeros(())
        return _held_out(
            value, failure, trivial, direction, "Clopper-Pearson", "Clopper and Pearson 1934"
        )


def _upper(size: Array, failure: Array, wrong: Array) -> Array:
    right = size - wrong
    a, b = wrong + 1.0, np.maximum(right, 1.0)
    root = np.asarray(betainccinv(a, b, failure))
    sound = np.abs(betaincc(a, b, root) - failure) <= 1e-6 * failure
    sound &= failure >= _LEAST_TAIL
    chernoff = np.asarray(kl_inverse(empirical_risk=wrong / size, bound=_exponent(size, failure)))
    general = np.where(sound, root * (1.0 + _INVERSE_SLACK), chernoff)
    none = -np.expm1(np.log(failure) / size)
    value = np.where(wrong == 0.0, none, general)
    certain = (right == 0.0) | (failure == 0.0)
    return np.where(certain, 1.0, np.minimum(value, 1.0))


def _lower(size: Array, failure: Array, wrong: Array) -> Array:
    right = size - wrong
    a, b = np.maximum(wrong, 1.0), right + 1.0
    root = np.asarray(betaincinv(a, b, failure))
    sound = np.abs(betainc(a, b, root) - failure) <= 1e-6 * failure
    sound &= failure >= _LEAST_TAIL
    chernoff = np.asarray(kl_inverse(empirical_risk=right / size, bound=_exponent(size, failure)))
    # 1 - chernoff cancels, so an absolute amount is taken off.
    general = np.where(sound, root * (1.0 - _INVERSE_SLACK), np.maximum(1 - chernoff - 1e-15, 0.0))
    every = np.exp(np.log(failure) / size) * (1.0 - 5e-13)
    value = np.where(right == 0.0, every, general)
    return np.where((wrong == 0.0) | (failure == 0.0), 0.0, value)


def _exponent(size: Array, failure: Array) -> Array:
    # P(mean of n on the far side) <= exp(-n kl), Chernoff.
    return np.asarray(rounding.up(-np.log(failure) / size))


def _held_out(
    value: Array, failure: Array, trivial: Array, direction: Direction, name: str, source: str
) -> BoundResult:
    return conclude(
        value,
        name=name,
        source=source,
        assumptions=(IID, UNSEEN) if name == "Clopper-Pearson" else (IID, UNSEEN, BOUNDED),
        direction=direction,
        confidence=confidence_of(failure),
        trivial=trivial,
    )
