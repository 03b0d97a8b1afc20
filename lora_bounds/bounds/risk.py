"""Generalization bounds from stability: Lemma 4.3 and Thm 4.4 of arXiv 2404.09610 v1, and sharper.

Every function here bounds the risk R from above by the empirical risk plus a slack, with
probability at least 1 - delta over the draw of n independent examples, for losses in [0, C]. The
bound is vacuous where it is at least C. `stability` is always about *removal* of one example (as in
`lora_bounds.bounds.stability`); theorems stated for replacement get 2 beta in its place.
"""

from typing import Annotated

import numpy as np

from lora_bounds.bounds.sparsity import root_penalty_weight
from lora_bounds.bounds.stability import CLOSE, CURVATURE, LIPSCHITZ_REGULARISED, MINIMISERS, PSD
from lora_bounds.domains import (
    Extended,
    NonNegative,
    Positive,
    Probability,
    Rate,
    Risk,
    Size,
    Wholes,
    formula,
    kernel_of,
)
from lora_bounds.results import Assumption, bound
from lora_bounds.rounding import Array, Numbers, lower_root, quotient

IID = Assumption("i.i.d. sample", "the n examples are independent draws from one distribution")
BOUNDED = Assumption("bounded loss", "every loss lies in [0, C]")
SYMMETRIC = Assumption("symmetric algorithm", "θ(S) does not depend on the order of the sample")
HYPOTHESIS_STABLE = Assumption(
    "pointwise hypothesis stability",
    "E abs(l(z_i; θ(S^i)) - l(z_i; θ(S))) <= beta for every i, at this n",
)
UNIFORMLY_STABLE = Assumption(
    "uniform stability",
    "abs(l(z; θ(S)) - l(z; θ(S^i))) <= beta for every sample S, every i and every z, at this n",
)
NAMED_CONSTANT = Assumption("constant", "the theorem holds with the constant c that was given")

_PAPER = "arXiv 2404.09610 v1"


def _chebyshev(
    size: Array, failure: Array, largest: Array, over: tuple[Array, ...], under: tuple[Array, ...]
) -> Array:
    # hypot(C / sqrt(2 n delta), sqrt(C) over / (under sqrt(delta))), the shape of Lemma 4.3.
    root = np.sqrt(failure)
    floor = quotient((largest,), (np.sqrt(2.0), np.sqrt(size), root))
    scaled = quotient((np.sqrt(largest), *over), (*under, root))
    still = np.any(np.broadcast_arrays(*(term == 0.0 for term in over)), axis=0)
    return np.hypot(floor, np.where(still, 0.0, scaled))


@bound("Lemma 4.3", f"{_PAPER}, Lemma 4.3", IID, BOUNDED, SYMMETRIC, HYPOTHESIS_STABLE)
def lemma_4_3(
    *,
    n: Size,
    delta: Probability,
    stability: Extended,
    loss_range: Positive,
    empirical_risk: Risk,
) -> Array:
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
    over = (np.sqrt(6.0) * np.sqrt(stability),)
    return empirical_risk + _chebyshev(n, delta, loss_range, over, ())


@bound(
    "Thm 4.4",
    f"{_PAPER}, Thm 4.4",
    *(IID, BOUNDED, SYMMETRIC, MINIMISERS, CLOSE, PSD, CURVATURE, LIPSCHITZ_REGULARISED),
)
def theorem_4_4(
    *,
    n: Size,
    delta: Probability,
    lipschitz: NonNegative,
    curvature: NonNegative,
    regularization: Extended,
    dropout: Rate,
    loss_range: Positive,
    empirical_risk: Risk,
) -> Array:
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
    weight = kernel_of(root_penalty_weight)(dropout=dropout, regularization=regularization)
    denominator = lower_root(np.hypot(np.sqrt(curvature), np.sqrt(2.0) * weight))
    over, under = (np.asarray(np.sqrt(12.0)), lipschitz), (denominator, np.sqrt(n))
    return empirical_risk + _chebyshev(n, delta, loss_range, over, under)


@formula
def least_delta(*, n: Size, loss_range: Positive, empirical_risk: Risk) -> Numbers:
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
    ratio = loss_range / (loss_range - empirical_risk)  # infinite where Rhat = C: n divides first
    return np.minimum(ratio * (ratio / n) / 2.0, 1.0)


@bound(
    "Bousquet-Elisseeff",
    "Bousquet and Elisseeff 2002, Theorem 12",
    *(IID, BOUNDED, SYMMETRIC, UNIFORMLY_STABLE),
)
def uniform_stability_bound(
    *,
    n: Size,
    delta: Probability,
    stability: Extended,
    loss_range: Positive,
    empirical_risk: Risk,
) -> Array:
    """Bound the risk from uniform stability: Bousquet and Elisseeff 2002, Theorem 12.

    R <= Rhat + 2 β + (4 n β + C) sqrt(ln(1/δ) / (2 n)) with probability at least 1-δ over the
    sample. The proof uses β only to bound what replacing one example does (by 2 β), so S^i may
    keep the factor 1/n.

    Args:
        n: sample size, at least 1.
        delta: failure probability δ in [0, 1]; at 0 the bound is infinite.
        stability: β in [0, inf], uniform.
        loss_range: C, positive.
        empirical_risk: Rhat in [0, C].

    Returns:
        The bound on R.
    """
    # Written as sums of terms that cannot be infinity times 0.
    deviation = np.sqrt(-np.log(delta) / 2.0)
    per_example = np.where(deviation == 0.0, 0.0, 4.0 * stability * deviation * np.sqrt(n))
    per_example = np.where(stability == 0.0, 0.0, per_example)
    tail = loss_range * (deviation / np.sqrt(n))
    return empirical_risk + 2.0 * stability + per_example + tail


@bound(
    "Feldman-Vondrak 2018",
    "Feldman and Vondrak 2018, arXiv 1812.09859, Theorem 1.2",
    *(IID, BOUNDED, SYMMETRIC, UNIFORMLY_STABLE),
)
def feldman_vondrak_2018(
    *,
    n: Size,
    delta: Probability,
    stability: Extended,
    loss_range: Positive,
    empirical_risk: Risk,
) -> Array:
    """Bound the risk from uniform stability: Feldman and Vondrak 2018, with its constant.

    R <= Rhat + 8 C sqrt((2 γ/C + 1/n) ln(8/δ)) with probability at least 1-δ over the sample,
    where γ = 2 β is uniform stability under replacement (arXiv 1812.09859, Theorem 1.2, stated
    there for C = 1).

    Args:
        n: sample size, at least 1.
        delta: failure probability δ in [0, 1]; at 0 the bound is infinite.
        stability: β in [0, inf], uniform.
        loss_range: C, positive.
        empirical_risk: Rhat in [0, C].

    Returns:
        The bound on R.
    """
    root = np.hypot(2.0 * np.sqrt(loss_range) * np.sqrt(stability), loss_range / np.sqrt(n))
    return empirical_risk + 8.0 * root * np.sqrt(np.log(8.0) - np.log(delta))


@bound(
    "Feldman-Vondrak 2019",
    "Feldman and Vondrak 2019, arXiv 1902.10710, Theorem 1.1",
    *(IID, BOUNDED, SYMMETRIC, UNIFORMLY_STABLE, NAMED_CONSTANT),
)
def feldman_vondrak(
    *,
    n: Annotated[Size, Wholes(2)],
    delta: Probability,
    stability: Extended,
    loss_range: Positive,
    empirical_risk: Risk,
    constant: Positive,
) -> Array:
    """Bound the risk from uniform stability: Feldman and Vondrak 2019, up to its constant.

    R <= Rhat + c (γ ln(n) ln(n/δ) + C sqrt(ln(1/δ) / n)) with probability at least 1-δ over the
    sample, where γ = 2 β is uniform stability under replacement (arXiv 1902.10710, Theorem 1.1).
    The theorem says that a c exists and does not name it, so whoever calls this must.

    Args:
        n: sample size, at least 2.
        delta: failure probability δ in [0, 1]; at 0 the bound is infinite.
        stability: β in [0, inf], uniform.
        loss_range: C, positive.
        empirical_risk: Rhat in [0, C].
        constant: c, positive.

    Returns:
        The bound on R.
    """
    log_n, log_failure = np.log(n), -np.log(delta)
    stable = np.where(stability == 0.0, 0.0, 2.0 * stability * log_n * (log_n + log_failure))
    slack = constant * (stable + loss_range * np.sqrt(log_failure / n))
    return empirical_risk + slack


@bound(
    "Bousquet-Klochkov-Zhivotovskiy",
    "Bousquet, Klochkov and Zhivotovskiy 2020, arXiv 1910.07833, Lemma 7 and Theorem 4",
    *(IID, BOUNDED, SYMMETRIC, UNIFORMLY_STABLE),
)
def bousquet_klochkov_zhivotovskiy(
    *,
    n: Size,
    delta: Probability,
    stability: Extended,
    loss_range: Positive,
    empirical_risk: Risk,
) -> Array:
    """Bound the risk from uniform stability: Bousquet, Klochkov and Zhivotovskiy 2020.

    R <= Rhat + 2 γ + e (24 sqrt(2) γ ⌈log2 n⌉ m + 4 C sqrt(m / n)) with m = max(2, ln(1/δ)), with
    probability at least 1-δ over the sample; γ = 2 β is uniform stability under replacement.

    Constants: n (R - Rhat) is within 2 γ n of a sum of g_i with E[g_i given the others] = 0,
    abs E[g_i given z_i] <= C and bounded differences 2 γ (arXiv 1910.07833, Lemma 7), whose moment
    of order m >= 2 is at most 12 sqrt(2) m n (2 γ) ⌈log2 n⌉ + 4 C sqrt(m n) (Theorem 4). Markov's
    inequality at e times the m-th moment leaves the probability e^-m <= δ. The paper states the
    result with an unnamed constant and ln(e/δ); this spells it out and asks only m >= 2.

    Args:
        n: sample size, at least 1.
        delta: failure probability δ in [0, 1]; at 0 the bound is infinite.
        stability: β in [0, inf], uniform.
        loss_range: C, positive.
        empirical_risk: Rhat in [0, C].

    Returns:
        The bound on R.
    """
    gamma, order = 2.0 * stability, np.maximum(2.0, -np.log(delta))
    # frexp is exact: n - 1 < 2^exponent <= 2 (n - 1), so exponent = ⌈log2 n⌉.
    doublings = np.where(n == 1.0, 0.0, np.frexp(n - 1.0)[1].astype(np.float64))
    chained = np.where((gamma == 0.0) | (doublings == 0.0), 0.0, gamma * doublings * order)
    spread = 24.0 * np.sqrt(2.0) * chained + 4.0 * loss_range * np.sqrt(order / n)
    return empirical_risk + 2.0 * gamma + np.e * spread
