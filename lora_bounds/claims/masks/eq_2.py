"""Eq. 2: an entry of the masked update is dropped with probability q(p) = 1 - (1-p)^2."""

import numpy as np

from lora_bounds.bounds.sparsity import drop_probability, dropout_rate, keep_probability
from lora_bounds.claims.masks.eq_11 import prove_sparsity_penalty
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.enumeration import masked_updates
from lora_bounds.trial.evidence import IDENTITY, Sweep, agreement, proof, sweep

_RATES = np.linspace(0.0, 1.0, 41)


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


CLAIMS = (
    Claim(
        id="Eq. 2",
        paper_item="Eq. 2, q(p)",
        statement="An entry of the masked update is dropped with probability q(p) = 1-(1-p)^2.",
        assumptions=("masks of rows of B and columns of A are independent of each other",),
        evidence=(
            proof(prove_sparsity_penalty),
            sweep(zeros_of_the_masked_update),
            sweep(round_trips),
        ),
        recorded=Verdict.PROVED,
        formula="q = 1 - (1-p)^2 = 2p - p^2",
        functions=(
            "bounds.sparsity.drop_probability",
            "bounds.sparsity.keep_probability",
            "bounds.sparsity.dropout_rate",
        ),
    ),
)
