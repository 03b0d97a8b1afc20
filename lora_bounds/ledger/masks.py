"""Sweeps on the masks: the formulas of Eqs. 2 and 9 to 11 against summation over masks."""

import numpy as np

from lora_bounds.bounds.laws import MASK_LAWS
from lora_bounds.bounds.sparsity import (
    drop_probability,
    dropout_rate,
    dropped_norm,
    inner_maximum,
    keep_probability,
    mask_moments,
    sparsity_penalty,
)
from lora_bounds.ledger.enumeration import masked_updates
from lora_bounds.ledger.evidence import ALGEBRA, IDENTITY, Sweep, agreement

_RATES = np.linspace(0.0, 1.0, 41)
_INNER = np.linspace(0.05, 0.95, 19)


def zeros_of_the_masked_update() -> Sweep:
    """Returns the share of zeros in Bhat Ahat, summed over masks, against q(p)."""
    slacks = []
    for p in _RATES:
        updates, probability = masked_updates(
            "row_column", np.ones((2, 2)), np.ones((2, 3)), float(p)
        )
        dropped = probability @ (updates == 0).mean(axis=(1, 2))
        slacks.append(agreement(dropped, drop_probability(dropout=p), IDENTITY))
    return Sweep("2 x 3 layer, every mask, 41 rates p in [0, 1]", slacks)


def round_trips() -> Sweep:
    """Returns how well the rate of q(p) is p again, and q + (1-q) is 1."""
    p = np.linspace(0.0, 1.0, 100_001)
    q = drop_probability(dropout=p)
    back = np.asarray(dropout_rate(drop_probability=q))
    # Near p = 1 the inverse is ill-conditioned: an error e in q moves p by e / (2 (1-p)).
    room = IDENTITY / np.maximum(1.0 - p, 1e-6)
    whole = agreement(q + np.asarray(keep_probability(dropout=p)), np.ones_like(p), IDENTITY)
    return Sweep("100,001 rates p in [0, 1]", np.append(room - np.abs(back - p), whole))


def dropped_norms() -> Sweep:
    """Returns E norm(d * update)^2, summed over (correlated) masks, against q norm^2."""
    rng = np.random.default_rng(0)
    slacks = []
    for p in _RATES:
        b, a = rng.standard_normal((2, 2)), rng.standard_normal((2, 3))
        updates, probability = masked_updates("row_column", b, a, float(p))
        lost = probability @ ((b @ a - updates) ** 2).sum(axis=(1, 2))
        squared = float(((b @ a) ** 2).sum())
        slacks.append(agreement(lost, dropped_norm(dropout=p, squared_norm=squared), IDENTITY))
        penalty = sparsity_penalty(dropout=p, regularization=3.0, squared_norm=squared)
        slacks.append(agreement(3 * lost, penalty, IDENTITY))
    return Sweep("2 x 3 layers of rank 2, every mask, 41 rates p in [0, 1]", slacks)


def feasible_updates() -> Sweep:
    """Returns the room that Eq. 9 leaves: E norm(d * update)^2 must be 0, and it is not."""
    p, norm = np.meshgrid(_RATES[1:], np.logspace(-6, 6, 25))
    return Sweep(
        "p in (0, 1], norm^2 in [1e-6, 1e6]",
        -np.asarray(dropped_norm(dropout=p, squared_norm=norm)),
    )


def inner_maxima() -> Sweep:
    """Returns the inner maximum of Eq. 10: the loss at a zero update, infinite off it."""
    off = inner_maximum(loss=0.3, dropout=_RATES[1:], squared_norm=1e-12)
    at = inner_maximum(loss=0.3, dropout=_RATES, squared_norm=0.0)
    slack = np.where(np.isinf(off), 1.0, -1.0)
    return Sweep("p in [0, 1]", np.append(slack, agreement(at, np.full(41, 0.3), IDENTITY)))


def mask_correlations() -> Sweep:
    """Returns the moments of each law, summed over masks, against the formulas."""
    slacks = []
    for law in MASK_LAWS:
        if law == "none":
            continue
        for p in _INNER:
            factors, probability = masked_updates(law, np.ones((2, 1)), np.ones((1, 2)), float(p))
            flat = factors.reshape(len(factors), 4)  # entries 00, 01, 10, 11
            mean = probability @ flat
            covariance = (flat - mean).T @ (probability[:, None] * (flat - mean))
            variance = covariance[0, 0]
            expected = mask_moments(law=law, dropout=p)
            pairs = [
                (mean[0], expected.mean),
                (variance, expected.variance),
                (covariance[0, 1] / variance, expected.same_row),
                (covariance[0, 2] / variance, expected.same_column),
                (covariance[0, 3] / variance, expected.elsewhere),
            ]
            slacks += [agreement(got, want, ALGEBRA) for got, want in pairs]
    return Sweep("four laws, 2 x 2 layer, every mask, 19 rates p in [0.05, 0.95]", slacks)


def independence_of_entries() -> Sweep:
    """Returns the correlation of two entries that share a row, which independence would make 0."""
    return Sweep(
        "19 rates p in [0.05, 0.95]",
        -np.asarray(mask_moments(law="row_column", dropout=_INNER).same_row),
    )


def rank_mask_sparsity() -> Sweep:
    """Returns the zero entries that masking the rank dimension adds; the paper says none."""
    extra = [
        float(keep_probability(dropout=p)) * p**rank for p in _INNER for rank in (1, 2, 4, 8, 16)
    ]
    return Sweep("p in [0.05, 0.95], rank 1 to 16", -np.array(extra))
