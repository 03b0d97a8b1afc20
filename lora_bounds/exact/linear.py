"""Exact results for a linear layer under masks: no sampling, no asymptotics.

The layer is W0 x + (masked B A) x with squared loss (1/2)‖y - output‖². With Σ = E[x xᵀ],
G = E[(y - W0 x) xᵀ] and Δ = B A, the expected masked loss is the risk of the mean update plus half
of the mask variance, and both are polynomials in Σ. A sample's own moments may stand for Σ and G.
"""

from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from lora_bounds.bounds.laws import LawName, MaskLaw, MaskMoments, mask_law
from lora_bounds.domains import (
    Matrix,
    OneNonNegative,
    OneRate,
    OneSize,
    Real,
    SecondMoment,
    exact,
    formula,
    kernel_of,
    unchecked,
)
from lora_bounds.rounding import Array

QuadraticLaw: TypeAlias = Literal["row_column", "activation", "entrywise", "none"]
Moment: TypeAlias = Annotated[Any, SecondMoment("inputs")]
Down: TypeAlias = Annotated[Any, Matrix("rank", "inputs")]
Up: TypeAlias = Annotated[Any, Matrix("outputs", "rank")]
CrossMoment: TypeAlias = Annotated[Any, Matrix("outputs", "inputs")]


def _moments(law: LawName, dropout: float) -> MaskMoments:
    found: MaskMoments = kernel_of(MaskLaw.moments)(mask_law(law), dropout=np.asarray(dropout))
    return found


@formula
def mean_factor(*, law: LawName, dropout: OneRate) -> float:
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
    return float(mask_law(law).unchecked_mean(np.asarray(dropout)))


@exact
def mask_variance(
    *, law: LawName, a: Down, b: Up, second_moment: Moment, dropout: OneRate
) -> float:
    """Compute V = E‖output - E[output given x]‖², the noise that the masks put on the output.

    With k = 1-p and D = diag(Σ):

    - row_column: p k³ tr(Δ Σ Δᵀ) + p k² tr(Δ D Δᵀ);
    - activation: (p/k) tr(Δ D Δᵀ);
    - rank: p k Σ_j ‖B_j‖² A_j Σ A_jᵀ, over columns of B and rows of A;
    - entrywise: p k tr(Δ D Δᵀ).

    Args:
        law: one of `MASK_LAWS`, see `lora_bounds.bounds.laws.mask_law`.
        a: A, of shape (rank, inputs).
        b: B, of shape (outputs, rank).
        second_moment: Σ, of shape (inputs, inputs).
        dropout: the rate p in [0, 1]; below 1 under the activation law.

    Returns:
        The variance, summed over outputs.

    >>> mask_variance(law="row_column", b=[[1.0]], a=[[1.0]], second_moment=[[1.0]], dropout=0.5)
    0.1875
    """
    moments = _moments(law, dropout)
    if law == "rank":
        terms = np.sum(b**2, axis=0) * np.sum((a @ second_moment) * a, axis=1)
        return float(moments.variance) * float(np.sum(terms))
    update = b @ a
    # Entries of one row meet in an output: their covariance weighs Σ, what is left its diagonal.
    common = float(moments.variance) * float(moments.same_row)
    own = float(moments.variance) - common
    full = float(np.sum((update @ second_moment) * update)) if common else 0.0
    return common * full + own * float(np.sum(update**2 * np.diag(second_moment)))


@exact
def masked_objective(
    *,
    law: LawName,
    a: Down,
    b: Up,
    second_moment: Moment,
    cross_moment: CrossMoment,
    target_moment: OneNonNegative,
    dropout: OneRate,
) -> float:
    """Compute the expected masked loss E (1/2)‖y - W0 x - (masked B A) x‖², over data and masks.

    It is also the expectation of Eq. 7 for every number of mask draws.

    Args:
        law: one of `MASK_LAWS`, see `lora_bounds.bounds.laws.mask_law`.
        a: A, of shape (rank, inputs).
        b: B, of shape (outputs, rank).
        second_moment: Σ, of shape (inputs, inputs).
        cross_moment: G = E[(y - W0 x) xᵀ], of shape (outputs, inputs).
        target_moment: E‖y - W0 x‖², at least 0.
        dropout: the rate p in [0, 1].

    Returns:
        The risk of the mean update plus half the mask variance.

    Raises:
        ValueError: if the cross moment is not of the update's shape.
    """
    variance = unchecked(mask_variance)(
        law=law, b=b, a=a, second_moment=second_moment, dropout=dropout
    )
    update = kernel_of(mean_factor)(law=law, dropout=dropout) * (b @ a)
    if cross_moment.shape != update.shape:
        raise ValueError(
            f"cross_moment must be {update.shape}, got cross_moment of {cross_moment.shape}"
        )
    quadratic = float(np.sum((update @ second_moment) * update))
    risk = (target_moment - 2.0 * float(np.sum(update * cross_moment)) + quadratic) / 2.0
    return risk + variance / 2.0


@exact
def effective_moment(
    *, law: QuadraticLaw, second_moment: Moment, dropout: Annotated[float, Real("[0, 1)")]
) -> Array:
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
    moments = _moments(law, dropout)
    spread = float(moments.variance) / float(moments.mean) ** 2
    common = spread * float(moments.same_row)
    full, diagonal = 1.0 + common, spread - common
    return full * second_moment + diagonal * np.diag(np.diag(second_moment))


@exact
def minimizer(
    *,
    law: QuadraticLaw,
    second_moment: Moment,
    cross_moment: Annotated[Any, Matrix()],
    dropout: OneRate,
    rank: OneSize | None = None,
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
    if len(second_moment) != cross_moment.shape[1]:
        raise ValueError(
            f"cross_moment must have {len(second_moment)} columns, got cross_moment of "
            f"{cross_moment.shape}"
        )
    if dropout == 1.0 and law != "none":
        return np.zeros_like(cross_moment)
    rate = 0.0 if law == "none" else dropout
    moment = unchecked(effective_moment)(law=law, second_moment=second_moment, dropout=rate)
    values, vectors = np.linalg.eigh(moment)
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    inverse = np.where(kept, 1.0 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    half = (vectors * inverse) @ vectors.T
    whitened = cross_moment @ half
    if rank is not None:
        left, singular, right = np.linalg.svd(whitened, full_matrices=False)
        whitened = (left[:, :rank] * singular[:rank]) @ right[:rank]
    return whitened @ half


@exact
def trained_update(*, cross_moment: CrossMoment, second_moment: Moment, dropout: OneRate) -> Array:
    """Compute the B A to which LoRA Dropout trains a linear layer of full rank.

    B A = G (k Σ + p diag(Σ))⁻¹: least squares at p = 0, one-variable-at-a-time regression at
    p = 1. The ensemble then multiplies it by k²; mask-free inference does not.

    Args:
        cross_moment: G, of shape (outputs, inputs).
        second_moment: Σ, of shape (inputs, inputs).
        dropout: the rate p in [0, 1].

    Returns:
        B A, of shape (outputs, inputs); of least norm where it is not unique.

    >>> trained_update(second_moment=[[2.0]], cross_moment=[[1.0]], dropout=0.9)
    array([[0.5]])
    """
    mixed = (1.0 - dropout) * second_moment + dropout * np.diag(np.diag(second_moment))
    return np.asarray(cross_moment @ np.linalg.pinv(mixed, hermitian=True))
