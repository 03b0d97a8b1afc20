"""Stability of regularised fine-tuning: arXiv 2404.09610 v1, Lemma A.1 and Prop. 4.2, and a repair.

Everywhere here stability is about removal: S^i is the sample without its i-th example. All results
are upper bounds on how much the loss at an example then changes; they are in units of the loss.
"""

from typing import Literal, TypeAlias

import numpy as np

from lora_bounds.bounds.sparsity import root_penalty_weight
from lora_bounds.domains import Extended, NonNegative, Rate, Size, formula, kernel_of
from lora_bounds.results import Assumption, bound
from lora_bounds.rounding import Array, Numbers, lower_root

Convention: TypeAlias = Literal["1/n", "1/(n-1)"]

_PAPER = "arXiv 2404.09610 v1"

CURVATURE = Assumption(
    "curvature along the segment",
    "the second-order expansion at θ(S) bounds L_λ(θ(S^i)) - L_λ(θ(S)) from below; true of a "
    "quadratic, while for other losses Lmin at the optimum need not bound the curvature on the way",
)
CLOSE = Assumption("close solutions", "θ(S^i) is close to θ(S) for every i")
MINIMISERS = Assumption("minimisers", "θ(S) and θ(S^i) minimise the regularised empirical risk")
PSD = Assumption("positive semidefinite Hessian", "the Hessian of L at θ(S) has Lmin >= 0")
LIPSCHITZ_REGULARISED = Assumption(
    "Lipschitz regularised loss",
    "the regularised loss of one example is η-Lipschitz between θ(S) and θ(S^i); its quadratic "
    "term makes η grow with λ q (see self_consistent_lipschitz)",
)
LIPSCHITZ_LOSS = Assumption(
    "Lipschitz loss", "the loss of one example is ρ-Lipschitz in the parameters"
)
CONVEX = Assumption("convex loss", "the loss of one example is convex in the parameters")


_AT_THE_OPTIMUM = (MINIMISERS, CLOSE, PSD, CURVATURE)


def _over_n(n: Array, lipschitz: Array, root: Array, factor: float) -> tuple[Array, Array]:
    # factor η² / (root² n), and where that is a limit: 0 without any error.
    # 0/0: without slope nothing moves, however flat the objective.
    ratio = np.where(lipschitz == 0.0, 0.0, lipschitz / np.where(lipschitz == 0.0, 1.0, root))
    still = (ratio == 0.0) & ((lipschitz == 0.0) | np.isinf(root))
    return factor * ratio * (ratio / n), still


def _root_denominator(curvature: Array, dropout: Array, regularization: Array) -> Array:
    # sqrt(Lmin + 2 λ q), which neither overflows nor underflows where the sum would.
    weight = kernel_of(root_penalty_weight)(dropout=dropout, regularization=regularization)
    return lower_root(np.hypot(np.sqrt(curvature), np.sqrt(2.0) * weight))


@bound("Lemma A.1", f"{_PAPER}, Lemma A.1", *_AT_THE_OPTIMUM, LIPSCHITZ_REGULARISED)
def lemma_a1(
    *, n: Size, lipschitz: NonNegative, curvature: NonNegative, regularization: Extended
) -> tuple[Array, Array]:
    """Bound pointwise hypothesis stability under plain l2 regularisation, as Lemma A.1 prints it.

    β = 2 η² / ((Lmin + 2 λ) n). This is a statement about an expectation and holds surely where
    its assumptions do.

    Args:
        n: sample size, at least 1.
        lipschitz: η, the Lipschitz constant of the *regularised* loss of one example.
        curvature: Lmin, the least eigenvalue of the Hessian of L at the optimum, at least 0.
        regularization: λ in [0, inf].

    Returns:
        The bound; infinite where Lmin + 2 λ = 0 and η > 0, and 0 for infinite λ.
    """
    root = lower_root(np.hypot(np.sqrt(curvature), np.sqrt(2.0) * np.sqrt(regularization)))
    return _over_n(n, lipschitz, root, 2.0)


@bound("Prop. 4.2", f"{_PAPER}, Prop. 4.2", *_AT_THE_OPTIMUM, LIPSCHITZ_REGULARISED)
def paper_stability(
    *,
    n: Size,
    lipschitz: NonNegative,
    curvature: NonNegative,
    regularization: Extended,
    dropout: Rate,
) -> tuple[Array, Array]:
    """Bound pointwise hypothesis stability of LoRA Dropout, as Prop. 4.2 prints it.

    β = 2 η² / ((Lmin + 2 λ q) n) with q = 2p - p². It is monotone in p only for a fixed η, and η
    is the constant of a loss that contains λ q ‖θ-θ0‖².

    Args:
        n: sample size, at least 1.
        lipschitz: η, the Lipschitz constant of the *regularised* loss of one example.
        curvature: Lmin, the least eigenvalue of the Hessian of L at the optimum, at least 0.
        regularization: λ in [0, inf].
        dropout: the rate p in [0, 1].

    Returns:
        The bound; infinite where Lmin + 2 λ q = 0 and η > 0, and 0 for infinite λ
        and p > 0.

    >>> result = paper_stability(
    ...     n=100, lipschitz=1.0, curvature=0.0, regularization=1.0, dropout=0.5)
    >>> round(result.value, 9), result.unchecked[3]
    (0.013333333, 'curvature along the segment')
    """
    root = _root_denominator(curvature, dropout, regularization)
    return _over_n(n, lipschitz, root, 2.0)


@formula
def self_consistent_lipschitz(
    *,
    lipschitz: NonNegative,
    regularization: Extended,
    dropout: Rate,
    radius: Extended = np.inf,
) -> Numbers:
    """Bound the Lipschitz constant of the regularised loss, which Prop. 4.2 takes as given.

    On the ball of radius D around θ0 it is at most ρ + 2 λ q D. A minimiser lies within
    D = ρ / (2 λ q), so no more than 2 ρ is needed between two minimisers.

    Args:
        lipschitz: ρ, the Lipschitz constant of the loss of one example without the penalty.
        regularization: λ in [0, inf].
        dropout: the rate p in [0, 1].
        radius: D, a bound on ‖θ-θ0‖ for all the solutions, if one is known.

    Returns:
        ρ + min(2 λ q D, ρ); and ρ where λ q = 0.

    >>> self_consistent_lipschitz(lipschitz=1.0, regularization=1.0, dropout=0.5)
    2.0
    """
    root = kernel_of(root_penalty_weight)(dropout=dropout, regularization=regularization)
    moved = 2.0 * root * radius * root
    slope = np.where((root == 0.0) | (radius == 0.0), 0.0, moved)
    return np.asarray(lipschitz + np.minimum(slope, lipschitz))


@bound(
    "Prop. 4.2, self-consistent",
    f"{_PAPER}, Prop. 4.2 with η = ρ + min(2 λ q D, ρ)",
    *(*_AT_THE_OPTIMUM, LIPSCHITZ_LOSS),
)
def self_consistent_stability(
    *,
    n: Size,
    lipschitz: NonNegative,
    curvature: NonNegative,
    regularization: Extended,
    dropout: Rate,
    radius: Extended = np.inf,
) -> tuple[Array, Array]:
    """Bound pointwise hypothesis stability by Prop. 4.2 with an η that its own premises imply.

    At the optimum η <= 2 ρ, so β = 8 ρ² / ((Lmin + 2 λ q) n): four times what Prop. 4.2 gives to a
    reader who puts the loss's own constant ρ in the place of η.

    Args:
        n: sample size, at least 1.
        lipschitz: ρ, the Lipschitz constant of the loss of one example without the penalty.
        curvature: Lmin, the least eigenvalue of the Hessian of L at the optimum, at least 0.
        regularization: λ in [0, inf].
        dropout: the rate p in [0, 1].
        radius: a bound on ‖θ-θ0‖ for all the solutions, if one is known.

    Returns:
        The bound; infinite where Lmin + 2 λ q = 0 and ρ > 0, and 0 for infinite λ
        and p > 0.
    """
    eta = kernel_of(self_consistent_lipschitz)(
        lipschitz=lipschitz, radius=radius, dropout=dropout, regularization=regularization
    )
    root = _root_denominator(curvature, dropout, regularization)
    return _over_n(n, np.asarray(eta), root, 2.0)


@bound(
    "uniform stability",
    "Bousquet and Elisseeff 2002, Theorem 22, with the penalty of Eq. 11",
    *(MINIMISERS, CONVEX, LIPSCHITZ_LOSS),
)
def uniform_stability(
    *,
    n: Size,
    lipschitz: NonNegative,
    regularization: Extended,
    dropout: Rate,
    convention: Convention = "1/n",
) -> tuple[Array, Array]:
    """Bound uniform stability of the minimiser of Eq. 11 for a convex loss: the repaired Prop. 4.2.

    β = ρ² / (2 λ q n) bounds abs(l(z; θ(S)) - l(z; θ(S^i))) for every sample, i and z, with l the
    loss without the penalty. Both objectives are 2 λ q-strongly convex; adding their growth
    inequalities leaves 2 λ q ‖u-v‖² <= (l(z_i; v) - l(z_i; u))/n, hence ‖u-v‖ <= ρ/(2 λ q n). No
    curvature at a point, no closeness and no Lipschitz penalty is assumed.

    That is for S^i keeping the factor 1/n. With the factor 1/(n-1) the weights of the other
    examples change too, the subgradients at one solution differ by up to 2 ρ/n, and β doubles.
    Replacing one example instead of removing it costs 2 β of the first convention.

    Args:
        n: sample size, at least 1.
        lipschitz: ρ, the Lipschitz constant of the loss of one example in the parameters.
        regularization: λ in [0, inf].
        dropout: the rate p in [0, 1].
        convention: the factor in front of the sum of losses over S^i.

    Returns:
        The bound; infinite for λ q = 0, and 0 for infinite λ and p > 0.

    >>> round(uniform_stability(n=100, lipschitz=1.0, regularization=1.0, dropout=0.5).value, 9)
    0.006666667
    """
    weight = kernel_of(root_penalty_weight)(dropout=dropout, regularization=regularization)
    root = lower_root(np.sqrt(2.0) * weight)
    return _over_n(n, lipschitz, root, 1.0 if convention == "1/n" else 2.0)
