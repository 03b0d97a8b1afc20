"""Risk bounds from uniform stability, the classical one and three sharper ones.

They bound the risk from above with probability at least 1 - delta over the sample, for losses in
[0, C]; `stability` is the beta of *removal*, and theorems about replacement get 2 beta.
"""

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds import checks
from lora_bounds.bounds._risk import BOUNDED, IID, SYMMETRIC, risk_bound, risk_inputs
from lora_bounds.results import Assumption, BoundResult
from lora_bounds.rounding import quiet

UNIFORMLY_STABLE = Assumption(
    "uniform stability",
    "abs(l(z; θ(S)) - l(z; θ(S^i))) <= beta for every sample S, every i and every z, at this n",
)


@checks.broadcasting
def uniform_stability_bound(
    *,
    n: ArrayLike,
    delta: ArrayLike,
    stability: ArrayLike,
    loss_range: ArrayLike,
    empirical_risk: ArrayLike,
) -> BoundResult:
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
    with quiet():
        size, failure, largest, risk = risk_inputs(n, delta, loss_range, empirical_risk)
        beta = checks.numbers("stability", stability, "[0, inf]")
        # Written as sums of terms that cannot be infinity times 0.
        deviation = np.sqrt(-np.log(failure) / 2.0)
        per_example = np.where(deviation == 0.0, 0.0, 4.0 * beta * deviation * np.sqrt(size))
        per_example = np.where(beta == 0.0, 0.0, per_example)
        value = risk + 2.0 * beta + per_example + largest * (deviation / np.sqrt(size))
        return risk_bound(
            value,
            failure,
            largest,
            "Bousquet-Elisseeff",
            "Bousquet and Elisseeff 2002, Theorem 12",
            (IID, BOUNDED, SYMMETRIC, UNIFORMLY_STABLE),
        )


@checks.broadcasting
def feldman_vondrak_2018(
    *,
    n: ArrayLike,
    delta: ArrayLike,
    stability: ArrayLike,
    loss_range: ArrayLike,
    empirical_risk: ArrayLike,
) -> BoundResult:
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
    with quiet():
        size, failure, largest, risk = risk_inputs(n, delta, loss_range, empirical_risk)
        beta = checks.numbers("stability", stability, "[0, inf]")
        root = np.hypot(2.0 * np.sqrt(largest) * np.sqrt(beta), largest / np.sqrt(size))
        value = risk + 8.0 * root * np.sqrt(np.log(8.0) - np.log(failure))
        return risk_bound(
            value,
            failure,
            largest,
            "Feldman-Vondrak 2018",
            "Feldman and Vondrak 2018, arXiv 1812.09859, Theorem 1.2",
            (IID, BOUNDED, SYMMETRIC, UNIFORMLY_STABLE),
        )


@checks.broadcasting
def feldman_vondrak(
    *,
    n: ArrayLike,
    delta: ArrayLike,
    stability: ArrayLike,
    loss_range: ArrayLike,
    empirical_risk: ArrayLike,
    constant: ArrayLike,
) -> BoundResult:
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
    with quiet():
        size, failure, largest, risk = risk_inputs(n, delta, loss_range, empirical_risk)
        checks.count("n", n, least=2)
        beta = checks.numbers("stability", stability, "[0, inf]")
        c = checks.numbers("constant", constant, "(0, inf)")
        log_n, log_failure = np.log(size), -np.log(failure)
        stable = np.where(beta == 0.0, 0.0, 2.0 * beta * log_n * (log_n + log_failure))
        value = risk + c * (stable + largest * np.sqrt(log_failure / size))
        named = Assumption("constant", "the theorem holds with the constant c that was given")
        return risk_bound(
            value,
            failure,
            largest,
            "Feldman-Vondrak 2019",
            "Feldman and Vondrak 2019, arXiv 1902.10710, Theorem 1.1",
            (IID, BOUNDED, SYMMETRIC, UNIFORMLY_STABLE, named),
        )


@checks.broadcasting
def bousquet_klochkov_zhivotovskiy(
    *,
    n: ArrayLike,
    delta: ArrayLike,
    stability: ArrayLike,
    loss_range: ArrayLike,
    empirical_risk: ArrayLike,
) -> BoundResult:
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
    with quiet():
        size, failure, largest, risk = risk_inputs(n, delta, loss_range, empirical_risk)
        gamma = 2.0 * checks.numbers("stability", stability, "[0, inf]")
        order = np.maximum(2.0, -np.log(failure))
        # frexp is exact: size - 1 < 2^exponent <= 2 (size - 1), so exponent = ⌈log2 size⌉.
        doublings = np.where(size == 1.0, 0.0, np.frexp(size - 1.0)[1].astype(np.float64))
        chained = np.where((gamma == 0.0) | (doublings == 0.0), 0.0, gamma * doublings * order)
        spread = 24.0 * np.sqrt(2.0) * chained + 4.0 * largest * np.sqrt(order / size)
        return risk_bound(
            risk + 2.0 * gamma + np.e * spread,
            failure,
            largest,
            "Bousquet-Klochkov-Zhivotovskiy",
            "Bousquet, Klochkov and Zhivotovskiy 2020, arXiv 1910.07833, Lemma 7 and Theorem 4",
            (IID, BOUNDED, SYMMETRIC, UNIFORMLY_STABLE),
        )
