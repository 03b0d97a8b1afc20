"""Generalization bounds from stability: Lemma 4.3 and Thm 4.4 of arXiv 2404.09610 v1.

Every function here bounds the risk R from above by the empirical risk plus a slack, with
probability at least 1 - delta over the draw of n independent examples, for losses in [0, C]. The
bound is vacuous where it is at least C. `stability` is always about *removal* of one example (as in
`lora_bounds.bounds.stability`); theorems stated for replacement get 2 beta in its place.
"""

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds import checks
from lora_bounds.bounds._risk import BOUNDED, IID, SYMMETRIC, risk_bound, risk_inputs
from lora_bounds.bounds.sparsity import root_penalty_weight
from lora_bounds.bounds.stability import CLOSE, CURVATURE, LIPSCHITZ_REGULARISED, MINIMISERS, PSD
from lora_bounds.bounds.uniform_risk import (
    bousquet_klochkov_zhivotovskiy,
    feldman_vondrak,
    feldman_vondrak_2018,
    uniform_stability_bound,
)
from lora_bounds.results import Assumption, BoundResult
from lora_bounds.rounding import Array, Numbers, lower_root, plain, quiet, quotient

__all__ = [
    "bousquet_klochkov_zhivotovskiy",
    "feldman_vondrak",
    "feldman_vondrak_2018",
    "least_delta",
    "lemma_4_3",
    "theorem_4_4",
    "uniform_stability_bound",
]

_PAPER = "arXiv 2404.09610 v1"

HYPOTHESIS_STABLE = Assumption(
    "pointwise hypothesis stability",
    "E abs(l(z_i; θ(S^i)) - l(z_i; θ(S))) <= beta for every i, at this n",
)


def _chebyshev(
    size: Array, failure: Array, largest: Array, over: tuple[Array, ...], under: tuple[Array, ...]
) -> Array:
    # hypot(C / sqrt(2 n delta), sqrt(C) over / (under sqrt(delta))), the shape of Lemma 4.3.
    root = np.sqrt(failure)
    floor = quotient((largest,), (np.sqrt(2.0), np.sqrt(size), root))
    scaled = quotient((np.sqrt(largest), *over), (*under, root))
    still = np.any(np.broadcast_arrays(*(term == 0.0 for term in over)), axis=0)
    return np.hypot(floor, np.where(still, 0.0, scaled))


@checks.broadcasting
def lemma_4_3(
    *,
    n: ArrayLike,
    delta: ArrayLike,
    stability: ArrayLike,
    loss_range: ArrayLike,
    empirical_risk: ArrayLike,
) -> BoundResult:
    """Bound the risk from pointwise hypothesis stability, as Lemma 4.3 prints it.

    R <= Rhat + sqrt((C² + 12 C n β) / (2 n δ)) with probability at least 1-δ over the sample.
    Origin: Bousquet and Elisseeff 2002, Theorem 11. The paper's sentence swaps the names of R and
    Rhat; this is the direction its proof gives. It pays 1/δ, not log(1/δ), and is vacuous at
    least where δ <= C² / (2 n (C - Rhat)²), whatever β (see `least_delta`).

    Args:
        n: sample size, at least 1.
        delta: failure probability δ in [0, 1]; at 0 the bound is infinite.
        stability: β in [0, inf].
        loss_range: C, positive.
        empirical_risk: Rhat in [0, C].

    Returns:
        The bound on R.

    >>> lemma_4_3(n=1000, delta=0.05, stability=0.0, loss_range=1.0, empirical_risk=0.0).vacuous
    False
    """
    with quiet():
        size, failure, largest, risk = risk_inputs(n, delta, loss_range, empirical_risk)
        beta = checks.numbers("stability", stability, "[0, inf]")
        slack = _chebyshev(size, failure, largest, (np.sqrt(6.0) * np.sqrt(beta),), ())
        assumptions = (IID, BOUNDED, SYMMETRIC, HYPOTHESIS_STABLE)
        return risk_bound(
            risk + slack, failure, largest, "Lemma 4.3", f"{_PAPER}, Lemma 4.3", assumptions
        )


@checks.broadcasting
def theorem_4_4(
    *,
    n: ArrayLike,
    delta: ArrayLike,
    lipschitz: ArrayLike,
    curvature: ArrayLike,
    regularization: ArrayLike,
    dropout: ArrayLike,
    loss_range: ArrayLike,
    empirical_risk: ArrayLike,
) -> BoundResult:
    """Bound the risk of LoRA Dropout, as Thm 4.4 prints it.

    R <= Rhat + sqrt((C² + 24 C η² / (Lmin + 2 λ q)) / (2 n δ)) with probability at least 1-δ over
    the sample: Lemma 4.3 at the β of Prop. 4.2. It never falls below Rhat + C / sqrt(2 n δ). That
    β is the stability of the regularised loss, so R, Rhat and C are of that loss too, unless η also
    bounds the slope of the plain one.

    Args:
        n: sample size, at least 1.
        delta: failure probability δ in [0, 1]; at 0 the bound is infinite.
        lipschitz: η, the Lipschitz constant of the *regularised* loss of one example.
        curvature: Lmin, the least eigenvalue of the Hessian of L at the optimum, at least 0.
        regularization: λ in [0, inf].
        dropout: the rate p in [0, 1].
        loss_range: C, positive.
        empirical_risk: Rhat in [0, C].

    Returns:
        The bound on R; infinite where Lmin + 2 λ q = 0 and η > 0.

    >>> theorem_4_4(
    ...     n=3668, delta=0.05, lipschitz=1.0, curvature=0.0, regularization=1.0, dropout=0.5,
    ...     loss_range=1.0, empirical_risk=0.1).vacuous
    False
    """
    with quiet():
        size, failure, largest, risk = risk_inputs(n, delta, loss_range, empirical_risk)
        eta = checks.numbers("lipschitz", lipschitz, "[0, inf)")
        least = checks.numbers("curvature", curvature, "[0, inf)")
        weight = root_penalty_weight(dropout=dropout, regularization=regularization)
        denominator = lower_root(np.hypot(np.sqrt(least), np.sqrt(2.0) * weight))
        over, under = (np.asarray(np.sqrt(12.0)), eta), (denominator, np.sqrt(size))
        slack = _chebyshev(size, failure, largest, over, under)
        assumptions = (IID, BOUNDED, SYMMETRIC, MINIMISERS, CLOSE, PSD, CURVATURE)
        return risk_bound(
            risk + slack,
            failure,
            largest,
            "Thm 4.4",
            f"{_PAPER}, Thm 4.4",
            (*assumptions, LIPSCHITZ_REGULARISED),
        )


@checks.broadcasting
def least_delta(*, n: ArrayLike, loss_range: ArrayLike, empirical_risk: ArrayLike) -> Numbers:
    """Compute the δ at or below which Lemma 4.3 and Thm 4.4 are vacuous whatever the stability.

    Args:
        n: sample size, at least 1.
        loss_range: C, positive.
        empirical_risk: Rhat in [0, C].

    Returns:
        C² / (2 n (C - Rhat)²), at most 1; where it is 1 no δ helps.

    >>> least_delta(n=50, loss_range=1.0, empirical_risk=0.5)
    0.04
    """
    with quiet():
        size, _, largest, risk = risk_inputs(n, 1.0, loss_range, empirical_risk)
        ratio = largest / (largest - risk)  # infinite where Rhat = C, and then n divides first
        return plain(np.minimum(ratio * (ratio / size) / 2.0, 1.0))
