"""Claims on sparsity: Eqs. 2 and 9 to 11, the remark on p -> 1, and trend T5."""

import numpy as np

from lora_bounds.claims import Claim, Verdict
from lora_bounds.ledger.enumeration import masked_updates
from lora_bounds.ledger.evidence import (
    ALGEBRA,
    IDENTITY,
    Sweep,
    agreement,
    counterexample,
    proof,
    sweep,
)
from lora_bounds.sparsity import (
    MASK_LAWS,
    drop_probability,
    dropout_rate,
    dropped_norm,
    inner_maximum,
    keep_probability,
    mask_moments,
    sparsity_penalty,
)

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


CLAIMS = (
    Claim(
        id="Eq. 2",
        paper_item="Eq. 2, q(p)",
        statement="An entry of the masked update is dropped with probability q(p) = 1-(1-p)^2.",
        assumptions=("masks of rows of B and columns of A are independent of each other",),
        evidence=(proof("sparsity-penalty"), sweep(zeros_of_the_masked_update), sweep(round_trips)),
        recorded=Verdict.PROVED,
        formula="q = 1 - (1-p)^2 = 2p - p^2",
        functions=(
            "sparsity.drop_probability",
            "sparsity.keep_probability",
            "sparsity.dropout_rate",
        ),
    ),
    Claim(
        id="Eq. 9",
        paper_item="Eq. 9",
        statement="The constraint E norm(d*dtheta)^2 = 0 leaves room for fine-tuning at p > 0.",
        assumptions=(),
        evidence=(
            counterexample("eq-9-degenerate"),
            proof("degeneracy", of_the_contrary=True),
            sweep(feasible_updates),
        ),
        recorded=Verdict.REFUTED,
        formula="min L(theta0 + dtheta)  subject to  E_d norm(d*dtheta)^2 = 0",
        functions=("sparsity.dropped_norm",),
    ),
    Claim(
        id="Audit 1",
        paper_item="Eq. 9, Eq. 10, Eq. 11",
        statement=(
            "Eq. 9 is degenerate: for p > 0 only dtheta = 0 is feasible and Eq. 10 equals "
            "L(theta0); Eq. 11 at one finite lambda is a surrogate, not a consequence."
        ),
        assumptions=(),
        evidence=(proof("degeneracy"), sweep(inner_maxima)),
        recorded=Verdict.PROVED,
        formula="E_d norm(d*dtheta)^2 = q norm(dtheta)^2",
        functions=("sparsity.dropped_norm", "sparsity.inner_maximum"),
    ),
    Claim(
        id="Eq. 10",
        paper_item="Eq. 10",
        statement="The minimum over dtheta of the maximum over lambda is a fine-tuned model.",
        assumptions=("some dtheta improves on theta0",),
        evidence=(proof("degeneracy", of_the_contrary=True),),
        recorded=Verdict.REFUTED,
        formula="min_dtheta max_lambda L(theta0 + dtheta) + lambda E_d norm(d*dtheta)^2",
        functions=("sparsity.inner_maximum",),
    ),
    Claim(
        id="Eq. 11",
        paper_item="Eq. 11",
        statement="The sparsity penalty equals lambda q norm(theta-theta0)^2.",
        assumptions=("each entry is dropped with probability q; no independence is needed",),
        evidence=(proof("sparsity-penalty"), sweep(dropped_norms)),
        recorded=Verdict.PROVED,
        formula="L_lambda = L + lambda E_d norm(d*(theta-theta0))^2 = L + lambda q norm(.)^2",
        functions=(
            "sparsity.sparsity_penalty",
            "sparsity.penalty_weight",
            "sparsity.root_penalty_weight",
            "sparsity.dropped_norm",
        ),
    ),
    Claim(
        id="Eq. 11, independent entries",
        paper_item="Eq. 11, d ~ Bern(q)",
        statement="The entries of the mask of the update are independent Bernoulli variables.",
        assumptions=("0 < p < 1",),
        evidence=(sweep(independence_of_entries),),
        recorded=Verdict.REFUTED,
        formula="corr(d_ij, d_ij') = 0",
        functions=("sparsity.mask_moments",),
    ),
    Claim(
        id="Audit 2",
        paper_item="Eq. 2, Eq. 11",
        statement=(
            "Mask entries that share a row or a column have correlation k/(1+k), others none; the "
            "mean, hence Eq. 11, does not see it; the variance of the number of zeros does."
        ),
        assumptions=("0 < p < 1",),
        evidence=(proof("mask-covariance"), sweep(mask_correlations)),
        recorded=Verdict.PROVED,
        formula="cov = p k^3, corr = k/(1+k), k = 1-p",
        functions=("sparsity.mask_moments",),
    ),
    Claim(
        id="Remark p -> 1",
        paper_item="Remark p -> 1",
        statement="Under Eq. 11 the rate p -> 1 amounts to no fine-tuning.",
        assumptions=("one finite lambda",),
        evidence=(
            counterexample("full-dropout-limit"),
            proof("full-dropout-limit", of_the_contrary=True),
        ),
        recorded=Verdict.REFUTED,
        formula="argmin L_lambda -> theta0 as p -> 1",
        functions=("sparsity.sparsity_penalty",),
    ),
    Claim(
        id="Audit 12",
        paper_item="Remark p -> 1",
        statement=(
            "At p = 1 the penalty of Eq. 11 is the finite lambda norm^2; the exact induced "
            "regulariser of a linear layer diverges like q/(1-q)."
        ),
        assumptions=("linear layer and squared loss for the second half",),
        evidence=(proof("full-dropout-limit"),),
        recorded=Verdict.PROVED,
        formula="lambda q norm^2 -> lambda norm^2;  (s^2/2) (q/(1-q)) norm(E)^2 -> infinity",
        functions=("sparsity.sparsity_penalty", "sparsity.induced_regularization"),
    ),
    Claim(
        id="T5",
        paper_item="T5, sparsity is q(p)",
        statement="The expected sparsity of the masked update is q(p).",
        assumptions=("the unmasked update has no zero entry",),
        evidence=(proof("mask-covariance"), sweep(zeros_of_the_masked_update)),
        recorded=Verdict.PROVED,
        formula="E[share of zeros] = q(p)",
        functions=("sparsity.drop_probability",),
    ),
    Claim(
        id="T5, rank masks",
        paper_item="T5, Eq. 2, rank masks",
        statement="Masking the rank dimension as well adds no sparsity.",
        assumptions=("no accidental cancellation between components",),
        evidence=(
            counterexample("rank-masks-add-sparsity"),
            proof("rank-masks", of_the_contrary=True),
            sweep(rank_mask_sparsity),
        ),
        recorded=Verdict.REFUTED,
        formula="P(zero) = q + (1-q) p^r, not q",
        functions=("sparsity.keep_probability",),
    ),
)
