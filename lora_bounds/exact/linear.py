"""Exact results for a linear layer under masks: no sampling, no asymptotics.

The layer is W0 x + (masked B A) x with squared loss (1/2)‖y - output‖². With Σ = E[x xᵀ],
G = E[(y - W0 x) xᵀ] and Δ = B A, the expected masked loss is the risk of the mean update plus half
of the mask variance, and both are polynomials in Σ. A sample's own moments may stand for Σ and G.
"""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds import checks
from lora_bounds.bounds.laws import MASK_LAWS, LawName, mask_law
from lora_bounds.rounding import Array

QuadraticLaw: TypeAlias = Literal["row_column", "activation", "entrywise", "none"]
_QUADRATIC = tuple(law for law in MASK_LAWS if law != "rank")


def mean_factor(*, law: LawName, dropout: float) -> float:
    """Compute the factor by which the masks multiply the update on average.

    Args:
        law: one of `MASK_LAWS`, see `lora_bounds.bounds.laws.mask_law`.
        dropout: the rate p of the law's own bits, in [0, 1].

    Returns:
        (1-p)² for LoRA Dropout, 1-p for rank and entrywise masks, 1 for none; 1 for activation
        dropout, which rescales (0 at p = 1, where nothing is left to rescale).

    >>> mean_factor(law="row_column", dropout=0.5)
    0.25
    """
    return float(mask_law(law).mean(dropout=checks.number("dropout", dropout, "[0, 1]")))


@checks.representing
def mask_variance(
    *, law: LawName, b: ArrayLike, a: ArrayLike, second_moment: ArrayLike, dropout: float
) -> float:
    """Compute V = E‖output - E[output given x]‖², the noise that the masks put on the output.

    With k = 1-p and D = diag(Σ):

    - row_column: p k³ tr(Δ Σ Δᵀ) + p k² tr(Δ D Δᵀ);
    - activation: (p/k) tr(Δ D Δᵀ);
    - rank: p k Σ_j ‖B_j‖² A_j Σ A_jᵀ, over columns of B and rows of A;
    - entrywise: p k tr(Δ D Δᵀ).

    Args:
        law: one of `MASK_LAWS`, see `lora_bounds.bounds.laws.mask_law`.
        b: B, of shape (outputs, rank).
        a: A, of shape (rank, inputs).
        second_moment: Σ, of shape (inputs, inputs).
        dropout: the rate p in [0, 1]; below 1 under the activation law.

    Returns:
        The variance, summed over outputs.

    >>> mask_variance(law="row_column", b=[[1.0]], a=[[1.0]], second_moment=[[1.0]], dropout=0.5)
    0.1875
    """
    p = checks.number("dropout", dropout, "[0, 1]")
    moments = mask_law(law).moments(dropout=p)
    down = checks.matrix("a", a)
    up = checks.matrix("b", b, columns=down.shape[0])
    sigma = checks.second_moment("second_moment", second_moment, size=down.shape[1])
    if law == "rank":
        terms = np.sum(up**2, axis=0) * np.sum((down @ sigma) * down, axis=1)
        return float(moments.variance) * float(np.sum(terms))
    update = up @ down
    # Entries of one row meet in an output: their covariance weighs Σ, what is left its diagonal.
    common = float(moments.variance) * float(moments.same_row)
    own = float(moments.variance) - common
    full = float(np.sum((update @ sigma) * update)) if common else 0.0
    return common * full + own * float(np.sum(update**2 * np.diag(sigma)))


@checks.representing
def masked_objective(
    *,
    law: LawName,
    b: ArrayLike,
    a: ArrayLike,
    second_moment: ArrayLike,
    cross_moment: ArrayLike,
    target_moment: float,
    dropout: float,
) -> float:
    """Compute the expected masked loss E (1/2)‖y - W0 x - (masked B A) x‖², over data and masks.

    It is also the expectation of Eq. 7 for every number of mask draws.

    Args:
        law: one of `MASK_LAWS`, see `lora_bounds.bounds.laws.mask_law`.
        b: B, of shape (outputs, rank).
        a: A, of shape (rank, inputs).
        second_moment: Σ, of shape (inputs, inputs).
        cross_moment: G = E[(y - W0 x) xᵀ], of shape (outputs, inputs).
        target_moment: E‖y - W0 x‖², at least 0.
        dropout: the rate p in [0, 1].

    Returns:
        The risk of the mean update plus half the mask variance.
    """
    variance = mask_variance(law=law, b=b, a=a, second_moment=second_moment, dropout=dropout)
    update = mean_factor(law=law, dropout=dropout) * (np.asarray(b, float) @ np.asarray(a, float))
    return _risk(update, second_moment, cross_moment, target_moment) + variance / 2.0


def _risk(update: Array, sigma: ArrayLike, cross: ArrayLike, target: float) -> float:
    moment = checks.second_moment("second_moment", sigma, size=update.shape[1])
    g = checks.matrix("cross_moment", cross, columns=update.shape[1])
    if g.shape != update.shape:
        raise ValueError(f"cross_moment must be {update.shape}, got cross_moment of {g.shape}")
    power = checks.number("target_moment", target, "[0, inf)")
    quadratic = float(np.sum((update @ moment) * update))
    return (power - 2.0 * float(np.sum(update * g)) + quadratic) / 2.0


@checks.representing
def effective_moment(*, law: QuadraticLaw, second_moment: ArrayLike, dropout: float) -> Array:
    """Compute M, the matrix with tr(E M Eᵀ) = tr(E Σ Eᵀ) + V for the mean update E.

    M is Σ/k + (p/k²) D for LoRA Dropout, and Σ + (p/k) D for activation dropout and for
    entrywise masks. For Σ = s² I the first at rate p is the second at rate
    2p - p²: with isotropic inputs the two train to the same expected loss.

    Args:
        law: a law whose variance depends on B and A through B A alone (all but rank).
        second_moment: Σ, of shape (inputs, inputs).
        dropout: the rate p in [0, 1).

    Returns:
        M, of shape (inputs, inputs).

    >>> effective_moment(law="row_column", second_moment=[[1.0]], dropout=0.5)
    array([[4.]])
    """
    checks.choice("law", law, _QUADRATIC)
    p = checks.number("dropout", dropout, "[0, 1)")
    sigma = checks.second_moment("second_moment", second_moment)
    moments = mask_law(law).moments(dropout=p)
    spread = float(moments.variance) / float(moments.mean) ** 2
    common = spread * float(moments.same_row)
    full, diagonal = 1.0 + common, spread - common
    return full * sigma + diagonal * np.diag(np.diag(sigma))


@checks.representing
def minimizer(
    *,
    law: QuadraticLaw,
    second_moment: ArrayLike,
    cross_moment: ArrayLike,
    dropout: float,
    rank: int | None = None,
) -> Array:
    """Compute the mean update E that minimises the expected masked loss.

    E = G M⁻¹, or E = [G M^(-1/2)]_r M^(-1/2) among updates of rank r, with [.]_r the truncated
    singular value decomposition. Where M is singular its pseudo-inverse gives the minimiser of
    least norm. The trained B A is E over `mean_factor` (see `trained_update`).

    Args:
        law: a law whose variance depends on B and A through B A alone (all but rank).
        second_moment: Σ, of shape (inputs, inputs).
        cross_moment: G, of shape (outputs, inputs).
        dropout: the rate p in [0, 1].
        rank: the rank r of B A, at least 1; None for no limit.

    Returns:
        E, of shape (outputs, inputs). At p = 1 it is 0, for every law but none.

    Raises:
        ValueError: if the moments do not fit together.

    >>> minimizer(law="row_column", second_moment=[[1.0]], cross_moment=[[2.0]], dropout=0.5)
    array([[0.5]])
    """
    checks.choice("law", law, _QUADRATIC)
    g = checks.matrix("cross_moment", cross_moment)
    p = checks.number("dropout", dropout, "[0, 1]")
    if p == 1.0 and law != "none":
        checks.second_moment("second_moment", second_moment, size=g.shape[1])
        return np.zeros_like(g)
    rate = 0.0 if law == "none" else p
    moment = effective_moment(law=law, second_moment=second_moment, dropout=rate)
    if moment.shape[0] != g.shape[1]:
        raise ValueError(
            f"cross_moment must have {moment.shape[0]} columns, got cross_moment of {g.shape}"
        )
    values, vectors = np.linalg.eigh(moment)
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    inverse = np.where(kept, 1.0 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    half = (vectors * inverse) @ vectors.T
    whitened = g @ half
    if rank is not None:
        r = checks.whole_number("rank", rank)
        left, singular, right = np.linalg.svd(whitened, full_matrices=False)
        whitened = (left[:, :r] * singular[:r]) @ right[:r]
    return whitened @ half


@checks.representing
def trained_update(*, second_moment: ArrayLike, cross_moment: ArrayLike, dropout: float) -> Array:
    """Compute the B A to which LoRA Dropout trains a linear layer of full rank.

    B A = G (k Σ + p diag(Σ))⁻¹: least squares at p = 0, one-variable-at-a-time regression at
    p = 1. The ensemble then multiplies it by k²; mask-free inference does not.

    Args:
        second_moment: Σ, of shape (inputs, inputs).
        cross_moment: G, of shape (outputs, inputs).
        dropout: the rate p in [0, 1].

    Returns:
        B A, of shape (outputs, inputs); of least norm where it is not unique.

    >>> trained_update(second_moment=[[2.0]], cross_moment=[[1.0]], dropout=0.9)
    array([[0.5]])
    """
    g = checks.matrix("cross_moment", cross_moment)
    sigma = checks.second_moment("second_moment", second_moment, size=g.shape[1])
    p = checks.number("dropout", dropout, "[0, 1]")
    mixed = (1.0 - p) * sigma + p * np.diag(np.diag(sigma))
    return np.asarray(g @ np.linalg.pinv(mixed, hermitian=True))
