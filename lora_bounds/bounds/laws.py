"""The mask laws: what falls together, how often, and what of it a bound may use.

A law puts a random factor d on each entry of the update B A. It is told apart from the others by
which keep-bits an entry hangs on; every number below follows from that:

>>> mask_law("row_column").drop_probability(dropout=0.5)
0.75
>>> mask_law("row_column").mean(dropout=0.5), mask_law("entrywise").mean(dropout=0.75)
(0.25, 0.25)
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, get_args

import numpy as np

from lora_bounds.domains import OneSize, Rate, Reals, Words, formula
from lora_bounds.rounding import Array, Numbers, plain

LawName: TypeAlias = Literal["row_column", "rank", "activation", "entrywise", "none"]
MASK_LAWS: tuple[LawName, ...] = get_args(LawName)

TensorKind: TypeAlias = Literal["A", "B", "E", "other"]
TENSOR_KINDS: tuple[TensorKind, ...] = get_args(TensorKind)

# The most rows of a layer's input (tokens) that one example takes part in.
Rows: TypeAlias = Annotated[Any, Reals("[1, inf]")]


@dataclass(frozen=True)
class MaskMoments:
    """Moments of the random factors d that multiply the entries of the update.

    A correlation is given as its limit where the variance is 0 (p = 0 and p = 1).

    Attributes:
        mean: E[d].
        variance: Var[d].
        same_row: correlation of two entries in one row.
        same_column: correlation of two entries in one column.
        elsewhere: correlation of two entries that share neither.
    """

    mean: Numbers
    variance: Numbers
    same_row: Numbers
    same_column: Numbers
    elsewhere: Numbers


@dataclass(frozen=True)
class MaskLaw:
    """One law. Its bits are independent, and each is a keep with probability 1-p.

    p is always the rate of the law's own bits. Laws are compared at equal sparsity by giving each
    its own p: entrywise masks at 2p - p² drop as many entries as row and column masks at p.

    Attributes:
        name: as in ``mask=`` and ``law=``.
        bits: how many bits an entry of one rank-one term b_k a_k hangs on; it is kept if all are.
        shared: how many of these two entries have in common that lie in one row, in one column,
            and in neither.
        masked: the tensors whose entries each hang on one bit of their own: an entry is out of use
            where that bit drops.
        as_dropout: whether bits are drawn afresh for each row of the layer's input, and what is
            kept is multiplied by 1/(1-p), as the usual dropout does.
    """

    name: LawName
    bits: int
    shared: tuple[int, int, int]
    masked: frozenset[TensorKind]
    as_dropout: bool = False

    @formula
    def drop_probability(self, *, dropout: Rate, rank: OneSize = 1) -> Numbers:
        """Compute the probability that an entry of the update is dropped.

        At rank 1 it is the q of Eq. 11, whatever the rank of the update: the probability for one of
        the rank-one terms, and so the share of their squared norm that is dropped.

        Args:
            dropout: the rate p in [0, 1].
            rank: number of rank-one terms of the update.

        Returns:
            2p - p² for row_column (before Eq. 9), p for activation (within one row of the input)
            and entrywise, p^rank for rank, where every term must be dropped, and 0 for none.
        """
        return np.asarray(self.unchecked_drop(dropout) ** (rank if "E" in self.masked else 1))

    @formula
    def mean(self, *, dropout: Rate) -> Numbers:
        """Compute the mean of the masked update as a multiple of B A.

        Args:
            dropout: the rate p in [0, 1].

        Returns:
            (1-p)² for row_column, 1-p for rank and entrywise, 1 for none, and 1 for activation but
            at p = 1: there nothing is kept that could be scaled up, and the mean is 0.
        """
        return np.asarray(self.unchecked_mean(dropout))

    def unchecked_mean(self, p: Any) -> Any:
        """As `mean`, for a rate that was checked before: a float stays one, without numpy.

        A compiled forward pass asks for it, and compilers do not look into numpy.

        Args:
            p: The rate.

        Returns:
            The factor, of the kind of ``p``.
        """
        return (p < 1.0) * 1.0 if self.as_dropout else (1.0 - p) ** self.bits

    @formula
    def moments(self, *, dropout: Rate) -> MaskMoments:
        """Compute mean, variance and correlations of the factors d.

        Two entries that share s of their m bits have correlation k^(m-s) (1-k^s) / (1-k^m), with
        k = 1-p.

        Args:
            dropout: the rate p in [0, 1].

        Returns:
            The moments, of the shape of ``dropout``.

        Raises:
            ValueError: if p = 1 under the activation law, whose variance has no limit there.
        """
        if self.as_dropout and np.any(dropout == 1.0):
            raise ValueError("dropout must be below 1 under the activation law, got dropout=1.0")
        k = 1.0 - dropout
        # d is a bit times its scale: Var = P(drop) P(keep) scale².
        scale = 1.0 / k if self.as_dropout else np.ones_like(k)
        variance = self.unchecked_drop(dropout) * (k**self.bits * scale) * scale
        correlations = (self._correlation(shared, k) for shared in self.shared)
        mean = self.unchecked_mean(dropout)
        return MaskMoments(*(plain(item) for item in (mean, variance, *correlations)))

    @formula
    def kl_factor(self, tensor: TensorKind, *, dropout: Rate, rows: Rows = 1) -> Numbers:
        """Compute what share of a tensor's squared move the PAC-Bayes dropout divergence counts.

        Posterior and prior draw the same masks and put the same Gaussian noise on the entries that
        the mask leaves in use, so an entry counts with the probability that it is in use:

        - row_column: an entry of A falls with its column, one of B with its row: 1-p. Each entry
          of E multiplies all rows and columns: 1.
        - rank: the entries of a dropped component are out of use in A, in B and in E: 1-p.
        - activation: the masks fall on inputs. A hypothesis has bits for one example, drawn afresh
          for each of its T rows (tokens), and a column of A is out of use only where all T drop it:
          1 - p^T. B and E multiply what remains of all inputs: 1.
        - entrywise: the masks fall on products of factors; an entry of A is in use for every kept
          entry of a whole column of B A: 1 for A, B and E.
        - none: 1. And 1 for all that carries no mask: a head, a bias, a frozen layer let loose.

        Where a whole layer is dropped nothing of it is in use; that is not counted, which is safe.

        Args:
            tensor: ``"A"``, ``"B"``, ``"E"`` (AdaLoRA's Λ) or ``"other"``.
            dropout: the rate p in [0, 1].
            rows: T, the most rows of the layer's input that one example takes part in, at least 1;
                infinite if there is no limit. Only the activation law asks for it.

        Returns:
            The factor, in [0, 1].
        """
        if tensor in self.masked and self.as_dropout:
            # At p = 1 all rows are dropped, however many they are.
            return np.where(dropout < 1.0, -np.expm1(rows * np.log(dropout)), 0.0)
        share = 1.0 - dropout if tensor in self.masked else np.asarray(1.0)
        return np.broadcast_to(share, np.broadcast_shapes(np.shape(dropout), np.shape(rows)))

    def unchecked_drop(self, p: Array) -> Array:
        """Returns `drop_probability` at rank 1, for rates that were checked before."""
        # 1 - (1-p)^bits without cancellation.
        return (np.zeros_like(p), p, p * (2.0 - p))[self.bits]

    def _correlation(self, shared: int, k: Array) -> Array:
        if shared in (0, self.bits):
            return np.full_like(k, float(shared > 0))
        return k / (1.0 + k)


_LAW = Words(*MASK_LAWS)
_FACTORS: frozenset[TensorKind] = frozenset({"A", "B"})
_LAWS: dict[str, MaskLaw] = {
    law.name: law
    for law in (
        MaskLaw("row_column", 2, (1, 1, 0), _FACTORS),
        MaskLaw("rank", 1, (1, 1, 1), _FACTORS | {"E"}),
        MaskLaw("activation", 1, (0, 1, 0), frozenset({"A"}), as_dropout=True),
        MaskLaw("entrywise", 1, (0, 0, 0), frozenset()),
        MaskLaw("none", 0, (0, 0, 0), frozenset()),
    )
}


def mask_law(law: LawName) -> MaskLaw:
    """Look a law up.

    Args:
        law: ``"row_column"`` is LoRA Dropout (Eq. 2), ``"rank"`` masks rank-one terms,
            ``"activation"`` is the usual dropout on inputs with its factor 1/(1-p),
            ``"entrywise"`` drops entries of B A independently, and ``"none"`` masks nothing.

    Returns:
        The law.

    >>> mask_law("activation").kl_factor("A", dropout=0.5, rows=2)
    0.75
    """
    _LAW("law", law)
    return _LAWS[law]
