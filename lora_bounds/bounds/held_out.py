"""Bounds from data that training never saw: the yardstick for every other bound.

They need no property of the model, only that the n held-out examples are independent of it.
"""

from typing import Annotated

import numpy as np

from lora_bounds import rounding
from lora_bounds.bounds import binomial
from lora_bounds.bounds.pac_bayes import kl_inverse
from lora_bounds.bounds.risk import BOUNDED, IID
from lora_bounds.domains import AtMost, Count, Positive, Probability, Risk, Size, formula, kernel_of
from lora_bounds.results import Assumption, BoundResult, Direction, conclude, confidence_of
from lora_bounds.rounding import Array

UNSEEN = Assumption("unseen data", "the held-out examples played no part in training or selection")


@formula
def hoeffding(
    *,
    n: Size,
    delta: Probability,
    empirical_risk: Risk,
    loss_range: Positive,
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
    slack = np.asarray(loss_range * np.sqrt(-np.log(delta) / 2.0 / n))
    if direction == "upper":
        value, trivial = empirical_risk + slack, loss_range
    else:
        # Each side is rounded before the difference, which may cancel.
        low = rounding.down(empirical_risk) - rounding.up(slack)
        value, trivial = np.maximum(low, 0.0), np.zeros(())
    return conclude(
        value,
        name="Hoeffding",
        source="Hoeffding 1963, Theorem 1",
        assumptions=(IID, UNSEEN, BOUNDED),
        direction=direction,
        confidence=confidence_of(delta),
        trivial=trivial,
    )


@formula
def clopper_pearson(
    *,
    n: Size,
    delta: Probability,
    errors: Annotated[Count, AtMost("n")],
    direction: Direction = "upper",
) -> BoundResult:
    """Bound a 0-1 risk by the exact binomial tail.

    The upper bound is the largest R under which at most ``errors`` mistakes in n have probability
    δ or more; it holds with probability at least 1-δ over the held-out sample. The limit is moved
    outward until the tail itself says so (see `lora_bounds.bounds.binomial`). From n = 2^53 on
    Chernoff's bound, a little wider, takes its place.

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
    shape = np.broadcast_shapes(n.shape, delta.shape, errors.shape)
    flat = [np.broadcast_to(item, shape).ravel() for item in (n, errors, delta)]
    value = np.empty(flat[0].shape)
    exact = flat[0] < binomial.LARGEST
    for rows, limit in ((exact, binomial.binomial_limit), (~exact, _chernoff)):
        if rows.any():
            value[rows] = limit(*(item[rows] for item in flat), upper=direction == "upper")
    return conclude(
        value.reshape(shape),
        name="Clopper-Pearson",
        source="Clopper and Pearson 1934",
        assumptions=(IID, UNSEEN),
        direction=direction,
        confidence=confidence_of(delta),
        trivial=np.asarray(float(direction == "upper")),
        exact=True,  # rounded outward where it was computed
    )


def _chernoff(size: Array, wrong: Array, failure: Array, *, upper: bool) -> Array:
    # P(mean of n on the far side) <= exp(-n kl).
    exponent = np.asarray(rounding.up(-np.log(failure) / size))
    risk = wrong / size if upper else (size - wrong) / size
    limit = np.asarray(kernel_of(kl_inverse)(empirical_risk=risk, bound=exponent))
    # 1 - limit cancels, so an absolute amount is taken off.
    value = limit if upper else np.maximum(1.0 - limit - 1e-15, 0.0)
    nothing = (wrong == (size if upper else 0.0)) | (failure == 0.0)
    return np.where(nothing, float(upper), np.minimum(value, 1.0))
