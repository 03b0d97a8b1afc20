"""Eq. 2: an entry of the masked update is dropped with probability q(p) = 1 - (1-p)^2."""

import numpy as np

from lora_bounds.bounds.sparsity import drop_probability, dropout_rate, keep_probability
from lora_bounds.claims.symbolic_masks import keep_vectors
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.enumeration import masked_updates
from lora_bounds.trial.evidence import IDENTITY, Sweep, agreement, proof, sweep
from lora_bounds.trial.proof import Argument, Proof

_RATES = np.linspace(0.0, 1.0, 41)


def prove_sparsity_penalty() -> Proof:
    """Prove the last step of Eq. 11 and that dependence between entries cannot change it."""
    import sympy

    argument = Argument(
        "With rows of B and columns of A masked at rate p, an entry of the update is dropped with "
        "probability q = 1 - (1-p)^2 = 2p - p^2, and L + lambda E_d norm(d*(theta-theta0))^2 = "
        "L + lambda q norm(theta-theta0)^2, whatever the joint law of d."
    )
    p, lam = sympy.symbols("p lambda")
    q = 2 * p - p**2
    dropped = sum(
        row_p * col_p * (1 - row[0] * col[0])
        for row, row_p in keep_vectors(1, p)
        for col, col_p in keep_vectors(1, p)
    )
    argument.zero("P(d = 1) = 1 - (1-p)^2 = 2p - p^2, the 4 outcomes summed", dropped - q)
    argument.zero("1 - (1-p)^2 = 2p - p^2", 1 - (1 - p) ** 2 - q)
    joint = sympy.symbols("j00 j01 j10 j11")  # any joint law of two entries d1, d2
    t1, t2 = sympy.symbols("t1 t2")
    expected = sum(
        prob * (d1 * t1**2 + d2 * t2**2)
        for prob, (d1, d2) in zip(joint, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True)
    )
    marginal_1, marginal_2 = joint[2] + joint[3], joint[1] + joint[3]
    argument.zero(
        "for two entries with an arbitrary joint law the penalty is P(d1) t1^2 + P(d2) t2^2",
        expected - marginal_1 * t1**2 - marginal_2 * t2**2,
    )
    argument.zero(
        "with both marginals q: lambda E norm(d*t)^2 = lambda q norm(t)^2",
        (lam * expected - lam * q * (t1**2 + t2**2)).subs(
            {joint[2]: q - joint[3], joint[1]: q - joint[3]}
        ),
    )
    argument.argued("more entries: the penalty is a sum over entries, expectation is linear")
    argument.check("q(0) = 0 and q(1) = 1", q.subs(p, 0) == 0 and q.subs(p, 1) == 1)
    return argument.done()


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
