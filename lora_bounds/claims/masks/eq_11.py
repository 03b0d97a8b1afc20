"""Eq. 11: the sparsity penalty is lambda q norm(theta - theta0)^2, whatever the joint law of d."""

from typing import Any

import numpy as np

from lora_bounds.bounds.laws import MASK_LAWS
from lora_bounds.bounds.sparsity import (
    drop_probability,
    dropped_norm,
    mask_moments,
    sparsity_penalty,
)
from lora_bounds.claims.linear_layer.layers_by_enumeration import draw_layer, layer_ok
from lora_bounds.claims.masks.eq_2 import prove_sparsity_penalty
from lora_bounds.claims.symbolic_masks import keep_vectors
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import equal, pair
from lora_bounds.trial.enumeration import masked_updates
from lora_bounds.trial.evidence import ALGEBRA, IDENTITY, Sweep, agreement, proof, sweep
from lora_bounds.trial.proof import Argument, Proof
from lora_bounds.trial.search import Problem

_RATES = np.linspace(0.0, 1.0, 41)


_INNER = np.linspace(0.05, 0.95, 19)


def prove_mask_covariance() -> Proof:
    """Prove the covariances of the mask entries and show a quantity where they matter."""
    import sympy

    argument = Argument(
        "Keep indicators b_i a_j of LoRA Dropout (k = 1-p): covariance p k^3 and correlation "
        "k/(1+k) for entries sharing a row or a column, 0 for entries sharing neither. The number "
        "of kept entries has mean n1 n2 k^2 and variance n1 n2 q(1-q) + n1 n2 (n1+n2-2) p k^3, "
        "against n1 n2 q(1-q) for independent entries."
    )
    p = sympy.Symbol("p")
    k, q = 1 - p, 2 * p - p**2
    rows, columns = 2, 3
    outcomes = [
        (row, col, row_p * col_p)
        for row, row_p in keep_vectors(rows, p)
        for col, col_p in keep_vectors(columns, p)
    ]

    def covariance(first: tuple[int, int], second: tuple[int, int]) -> sympy.Expr:
        both = sum(
            prob * row[first[0]] * col[first[1]] * row[second[0]] * col[second[1]]
            for row, col, prob in outcomes
        )
        return sympy.expand(both - k**4)

    argument.zero("same row: covariance p k^3", covariance((0, 0), (0, 1)) - p * k**3)
    argument.zero("same column: covariance p k^3", covariance((0, 0), (1, 0)) - p * k**3)
    argument.zero("neither: covariance 0", covariance((0, 0), (1, 1)))
    argument.zero("variance of one entry q(1-q)", covariance((0, 0), (0, 0)) - q * (1 - q))
    argument.zero("correlation p k^3 / (q(1-q)) = k/(1+k)", p * k**3 / (q * (1 - q)) - k / (1 + k))
    kept = [(sum(row) * sum(col), prob) for row, col, prob in outcomes]
    mean = sum(count * prob for count, prob in kept)
    variance = sum(count**2 * prob for count, prob in kept) - mean**2
    argument.zero("2 x 3: mean number of kept entries 6 k^2", mean - rows * columns * k**2)
    argument.zero(
        "2 x 3: its variance is 6 q(1-q) + 6 (2+3-2) p k^3, not 6 q(1-q)",
        variance - rows * columns * (q * (1 - q) + (rows + columns - 2) * p * k**3),
    )
    argument.argued(
        "any shape: each entry shares its row with n2-1 and its column with n1-1 others"
    )
    return argument.done()


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


def independence_of_entries() -> Sweep:
    """Returns the correlation of two entries that share a row, which independence would make 0."""
    return Sweep(
        "19 rates p in [0.05, 0.95]",
        -np.asarray(mask_moments(law="row_column", dropout=_INNER).same_row),
    )


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


def drop_share(problem: Problem) -> Any:
    """Probability that an entry of the update is dropped."""
    # An entry survives when its row and its column do: enumerate the four outcomes.
    p = problem["p"]
    return p * p + 2 * p * (1 - p)


def q_true(problem: Problem) -> tuple[Any, Any]:
    """The drop probability q, against the four outcomes enumerated."""
    return equal(drop_share(problem), drop_probability(dropout=float(problem["p"])))


CLAIMS = (
    Claim(
        id="Eq. 11",
        paper_item="Eq. 11",
        statement="The sparsity penalty equals lambda q norm(theta-theta0)^2.",
        assumptions=("each entry is dropped with probability q; no independence is needed",),
        evidence=(proof(prove_sparsity_penalty), sweep(dropped_norms)),
        recorded=Verdict.PROVED,
        formula="L_lambda = L + lambda E_d norm(d*(theta-theta0))^2 = L + lambda q norm(.)^2",
        functions=(
            "bounds.sparsity.sparsity_penalty",
            "bounds.sparsity.penalty_weight",
            "bounds.sparsity.root_penalty_weight",
            "bounds.sparsity.dropped_norm",
        ),
        controls=(
            pair(
                "Eq. 11, q replaced by p",
                "an entry of the update is dropped with probability p",
                draw_layer,
                layer_ok,
                false=lambda s: equal(drop_share(s), s["p"]),
                true=q_true,
            ),
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
        functions=("bounds.sparsity.mask_moments",),
    ),
    Claim(
        id="Audit 2",
        paper_item="Eq. 2, Eq. 11",
        statement=(
            "Mask entries that share a row or a column have correlation k/(1+k), others none; the "
            "mean, hence Eq. 11, does not see it; the variance of the number of zeros does."
        ),
        assumptions=("0 < p < 1",),
        evidence=(proof(prove_mask_covariance), sweep(mask_correlations)),
        recorded=Verdict.PROVED,
        formula="cov = p k^3, corr = k/(1+k), k = 1-p",
        functions=("bounds.sparsity.mask_moments",),
    ),
)
