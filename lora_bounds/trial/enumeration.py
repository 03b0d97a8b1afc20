"""Every mask of a small layer with its probability: the slow route that the sweeps compare with."""

from itertools import product

import numpy as np

from lora_bounds.bounds.laws import LawName
from lora_bounds.rounding import Array


def _bits(size: int, drop: float) -> tuple[Array, Array]:
    """Returns all 0/1 vectors (2^size, size) of entries that are 0 with probability ``drop``."""
    bits = np.array(list(product((0.0, 1.0), repeat=size)))
    return bits, np.prod(np.where(bits == 1, 1 - drop, drop), axis=1)


def masked_updates(law: LawName, b: Array, a: Array, p: float) -> tuple[Array, Array]:
    """The masked updates of one layer under every mask.

    Args:
        law: as in `lora_bounds.bounds.laws.mask_law`.
        b: B, of shape (n1, r).
        a: A, of shape (r, n2).
        p: the rate of the law's own bits.

    Returns:
        The updates, of shape (masks, n1, n2), and the probabilities of the masks.
    """
    (rows, rank), columns = b.shape, a.shape[1]
    update = b @ a
    if law == "row_column":
        left, left_probability = _bits(rows, p)
        right, right_probability = _bits(columns, p)
        kept = left[:, None, :, None] * right[None, :, None, :]
        probability = np.outer(left_probability, right_probability).ravel()
        return kept.reshape(-1, rows, columns) * update, probability
    if law == "activation":
        kept, probability = _bits(columns, p)
        return kept[:, None, :] / (1 - p) * update, probability
    if law == "rank":
        kept, probability = _bits(rank, p)
        return np.einsum("ir,kr,rj->kij", b, kept, a), probability
    if law == "entrywise":
        kept, probability = _bits(rows * columns, p)
        return kept.reshape(-1, rows, columns) * update, probability
    return update[None], np.ones(1)


def mean_and_variance(updates: Array, probability: Array, sigma: Array) -> tuple[Array, float]:
    """Mean update and mask variance E norm(hhat - E[hhat | x])^2 by summation over masks.

    Args:
        updates: of shape (masks, n1, n2).
        probability: of shape (masks,).
        sigma: second moment of the inputs, (n2, n2).

    Returns:
        The mean, of shape (n1, n2), and the variance.
    """
    mean = np.tensordot(probability, updates, 1)
    apart = updates - mean
    return mean, float(np.einsum("k,kij,jl,kil->", probability, apart, sigma, apart))
