"""The sparsity regulariser of LoRA Dropout: arXiv 2404.09610 v1, Eqs. 9 to 11.

LoRA Dropout at rate p masks rows of B and columns of A (law row_column). An entry of the masked
update survives if both of its masks do, so it is dropped with probability
q(p) = 1 - (1-p)² = p (2-p):

>>> drop_probability(dropout=0.5)
0.75
"""

from typing import Annotated, Any

import numpy as np

from lora_bounds.bounds.laws import MASK_LAWS as MASK_LAWS
from lora_bounds.bounds.laws import LawName, MaskMoments, mask_law
from lora_bounds.bounds.laws import MaskLaw as MaskLaw
from lora_bounds.domains import (
    Extended,
    Matrix,
    NonNegative,
    Number,
    OneRate,
    Positive,
    Probability,
    Rate,
    SecondMoment,
    formula,
    kernel_of,
    representable,
)
from lora_bounds.rounding import Numbers

# The paper's own law, of which q and λ q here speak.
_PAPER = mask_law("row_column")


@formula
def drop_probability(*, dropout: Rate) -> Numbers:
    """Compute q(p) = 2p - p², the rate at which entries of the update are dropped (before Eq. 9).

    Args:
        dropout: the rate p in [0, 1].

    Returns:
        q, accurate to the last place even where p is within 1e-16 of 0.
    """
    return _PAPER.unchecked_drop(dropout)


@formula
def keep_probability(*, dropout: Rate) -> Numbers:
    """Compute 1 - q(p) = (1-p)², accurate where p is near 1.

    Args:
        dropout: the rate p in [0, 1].

    Returns:
        The probability that an entry of the update survives.
    """
    return np.asarray(_PAPER.unchecked_mean(dropout))


@formula
def dropout_rate(*, drop_probability: Probability) -> Numbers:
    """Compute the rate p at which entries are dropped with a given probability: q's inverse.

    Args:
        drop_probability: q in [0, 1].

    Returns:
        p = 1 - sqrt(1-q), written q / (1 + sqrt(1-q)) so that a small q is not lost.

    >>> dropout_rate(drop_probability=0.75)
    0.5
    """
    return drop_probability / (1.0 + np.sqrt(1.0 - drop_probability))


@formula
def mask_moments(*, law: LawName, dropout: Rate) -> MaskMoments:
    """Compute mean, variance and correlations of the mask that a law puts on the update.

    Eq. 11 needs the mean alone. The variance and the correlations are what it leaves out: under
    LoRA Dropout entries of one row or column fall together.

    Args:
        law: one of `MASK_LAWS`, see `lora_bounds.bounds.laws.mask_law`; under ``"rank"`` the
            moments are those of the factor of one rank-one term.
        dropout: the rate p of the law's own bits, in [0, 1]; below 1 under ``"activation"``, whose
            factor 1/(1-p) is then infinite.

    Returns:
        The moments, of the shape of ``dropout``.

    >>> mask_moments(law="row_column", dropout=0.5).same_row == 1 / 3
    True
    """
    return kernel_of(MaskLaw.moments)(mask_law(law), dropout=dropout)


@formula
def dropped_norm(*, dropout: Rate, squared_norm: NonNegative) -> Numbers:
    """Compute E‖d ⊙ Δθ‖² = q(p) ‖Δθ‖², the left side of the constraint of Eq. 9.

    It is 0 only for p = 0 or Δθ = 0: Eq. 9 admits no fine-tuning at all.

    Args:
        dropout: the rate p in [0, 1].
        squared_norm: ‖θ - θ0‖², at least 0.

    Returns:
        The expected squared norm of the dropped entries.
    """
    return _PAPER.unchecked_drop(dropout) * squared_norm


@formula
def inner_maximum(*, loss: Number, dropout: Rate, squared_norm: NonNegative) -> Numbers:
    """Compute the inner maximum of Eq. 10 over λ ≥ 0.

    Args:
        loss: L(θ0 + Δθ).
        dropout: the rate p in [0, 1].
        squared_norm: ‖Δθ‖², at least 0.

    Returns:
        The loss where the constraint of Eq. 9 holds, else infinity.

    >>> inner_maximum(loss=0.3, dropout=0.5, squared_norm=1e-9)
    inf
    """
    return np.where((dropout == 0.0) | (squared_norm == 0.0), loss, np.inf)


@formula
def penalty_weight(*, dropout: Rate, regularization: Extended) -> Numbers:
    """Compute λ q(p), the weight of ‖θ - θ0‖² in Eq. 11.

    Args:
        dropout: the rate p in [0, 1].
        regularization: λ in [0, inf].

    Returns:
        The weight; 0 for p = 0 even where λ is infinite, since nothing is then dropped.
    """
    return _PAPER.unchecked_drop(dropout) * np.where(dropout == 0.0, 0.0, regularization)


@formula
def root_penalty_weight(*, dropout: Rate, regularization: Extended) -> Numbers:
    """Compute sqrt(λ q(p)), which keeps its accuracy where λ q(p) would underflow.

    Args:
        dropout: the rate p in [0, 1].
        regularization: λ in [0, inf].

    Returns:
        The square root of `penalty_weight`.
    """
    finite = np.where(dropout == 0.0, 0.0, regularization)
    return np.sqrt(dropout) * np.sqrt(2.0 - dropout) * np.sqrt(finite)


@formula
def sparsity_penalty(
    *, dropout: Rate, regularization: Extended, squared_norm: NonNegative
) -> Numbers:
    """Compute the penalty of Eq. 11: λ E‖d ⊙ (θ-θ0)‖² = λ q(p) ‖θ-θ0‖².

    Independence of the mask's entries is not needed: only E[d] enters.

    Args:
        dropout: the rate p in [0, 1].
        regularization: λ in [0, inf]; the paper leaves it free.
        squared_norm: ‖θ - θ0‖², at least 0.

    Returns:
        The penalty; 0 at θ = θ0 even where λ is infinite.

    >>> sparsity_penalty(dropout=0.5, regularization=2.0, squared_norm=4.0)
    6.0
    """
    weight = kernel_of(penalty_weight)(dropout=dropout, regularization=regularization)
    return np.where(squared_norm == 0.0, 0.0, weight) * squared_norm


@formula
def induced_regularization(*, dropout: Rate, input_scale: Positive) -> Numbers:
    """Compute the λ that LoRA Dropout itself brings to a linear layer: s² / (2 (1-q)).

    For squared loss and inputs with E[x xᵀ] = s² I, the expected masked loss is the risk of the
    mean update E plus λ q ‖E‖² with this λ: Eq. 11 with λ no longer free (`induced_regularizer`).

    Args:
        dropout: the rate p in [0, 1].
        input_scale: s, positive.

    Returns:
        λ; infinite at p = 1, where the penalty of Eq. 11 stays finite.

    >>> induced_regularization(dropout=0.5, input_scale=1.0)
    2.0
    """
    return (input_scale / (1.0 - dropout)) ** 2 / 2.0


@formula
def induced_regularizer(
    *,
    mean_update: Annotated[Any, Matrix("outputs", "inputs")],
    second_moment: Annotated[Any, SecondMoment("inputs")],
    dropout: OneRate,
) -> float:
    """Compute what LoRA Dropout adds to the risk of a linear layer with squared loss, exactly.

    With k = 1-p and the mean update E = k² B A it is
    (1/2) [ (p/k) tr(E Σ Eᵀ) + (p/k²) tr(E diag(Σ) Eᵀ) ], half of the mask variance.

    Args:
        mean_update: E, a matrix of shape (outputs, inputs).
        second_moment: Σ = E[x xᵀ], of shape (inputs, inputs).
        dropout: the rate p in [0, 1].

    Returns:
        The regulariser; 0 at p = 0 or E = 0, else infinite at p = 1.

    >>> induced_regularizer(mean_update=[[1.0]], second_moment=[[1.0]], dropout=0.5)
    1.5
    """
    if dropout == 0.0:
        return 0.0
    full = float(np.sum((mean_update @ second_moment) * mean_update))
    diagonal = float(np.sum(mean_update**2 * np.diag(second_moment)))
    representable((full, diagonal), "mean_update", "second_moment")
    if dropout == 1.0:
        return np.inf if diagonal > 0.0 else 0.0
    k = 1.0 - dropout
    return (dropout / k * full + dropout / k**2 * diagonal) / 2.0
