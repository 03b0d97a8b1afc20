"""Mean and variance of a masked linear layer under each law of the masks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_bounds.bounds.laws import LawName
from lora_bounds.claims.linear_layer.layers_by_enumeration import (
    LAYER_RATES,
    draw_layer,
    layer_ok,
    layer_variance,
    random_layer,
)
from lora_bounds.claims.symbolic_masks import diagonal, generic_layer, symbolic_moments
from lora_bounds.exact.linear import mask_variance, mean_factor
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Sides, equal, pair
from lora_bounds.trial.enumeration import masked_updates, mean_and_variance
from lora_bounds.trial.evidence import ALGEBRA, Sweep, agreement, proof, sweep, unseen
from lora_bounds.trial.proof import Argument, Proof
from lora_bounds.trial.search import Problem


def prove_variance_table() -> Proof:
    """Prove the first two moments of hhat - W0 x for four mask laws."""
    argument = Argument(
        "hhat = W0 x + (masked BA) x, masks independent of x, Sigma = E xx^T, Delta = BA, k = 1-p, "
        "D = diag(Sigma), V = E norm(hhat - E[hhat|x])^2. LoRA Dropout: mean k^2 Delta, "
        "V = p k^3 tr(Delta Sigma Delta^T) + p k^2 tr(Delta D Delta^T). Activation dropout with "
        "1/k: mean Delta, V = (p/k) tr(Delta D Delta^T). Rank masks: mean k Delta, "
        "V = p k sum_j norm(B_j)^2 A_j Sigma A_j^T. Entrywise: mean k Delta, "
        "V = p k tr(Delta D Delta^T)."
    )
    b, a, sigma, p = generic_layer(2, 2, 2)
    k = 1 - p
    delta, diag = b * a, diagonal(sigma)
    full = (delta * sigma * delta.T).trace()
    own = (delta * diag * delta.T).trace()
    components = sum(
        (b[:, j].T * b[:, j])[0] * (a[j, :] * sigma * a[j, :].T)[0] for j in range(b.cols)
    )
    expected: dict[LawName, tuple[Any, Any]] = {
        "row_column": (k**2 * delta, p * k**3 * full + p * k**2 * own),
        "activation": (delta, p / k * own),
        "rank": (k * delta, p * k * components),
        "entrywise": (k * delta, p * k * own),
    }
    for law, (mean_formula, variance_formula) in expected.items():
        mean, variance = symbolic_moments(law, b, a, sigma, p)
        argument.zero(
            f"{law}: mean of the update, 2 x 2 of rank 2, every mask", mean - mean_formula
        )
        argument.zero(f"{law}: variance, 2 x 2 of rank 2, every mask", variance - variance_formula)
    argument.argued(
        "any shape: norm^2 is a sum over rows i of terms Delta_ij Delta_ij' Sigma_jj' times the "
        "covariance of two mask entries of row i; only the patterns j = j' and j != j' occur "
        "(for rank masks: pairs of components, equal or not), and 2 x 2 of rank 2 contains both"
    )
    return argument.done()


def _table_row(law: LawName) -> Sweep:
    rng, slacks = np.random.default_rng(9), []
    for _ in range(500):
        b, a, sigma, _ = random_layer(rng)
        for p in LAYER_RATES:
            mean, variance = mean_and_variance(*masked_updates(law, b, a, p), sigma)
            found = mask_variance(law=law, b=b, a=a, second_moment=sigma, dropout=p)
            slacks.append(agreement(found, variance, ALGEBRA))
            slacks.append(agreement(mean_factor(law=law, dropout=p) * (b @ a), mean, ALGEBRA))
    return Sweep("500 random 2 x 3 layers of rank 2, every mask, 4 rates", slacks, unseen(500))


def row_column_row() -> Sweep:
    """Returns mean and variance under LoRA Dropout against summation over masks."""
    return _table_row("row_column")


def activation_row() -> Sweep:
    """Returns mean and variance under activation dropout against summation over masks."""
    return _table_row("activation")


def rank_row() -> Sweep:
    """Returns mean and variance under rank masks against summation over masks."""
    return _table_row("rank")


def entrywise_row() -> Sweep:
    """Returns mean and variance under entrywise masks against summation over masks."""
    return _table_row("entrywise")


def variance_sides(law: Any, rate: Callable[[float], float] = lambda p: p) -> Sides:
    """Claim that LoRA Dropout has the mask variance of a law."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        s11, s12, s22 = (float(s) for s in problem["sigma"])
        p = float(problem["p"])
        formula = mask_variance(
            law=law,
            b=np.ones((1, 1)),
            a=np.array([[float(u) for u in problem["update"]]]),
            second_moment=np.array([[s11, s12], [s12, s22]]),
            dropout=rate(p),
        )
        return equal(float(layer_variance(problem)), float(formula))

    return sides


_TABLE = (
    ("LoRA Dropout", row_column_row, "k^2 Delta; p k^3 tr(D S D^T) + p k^2 tr(D diag(S) D^T)"),
    ("activation dropout", activation_row, "Delta; (p/k) tr(D diag(S) D^T)"),
    ("rank masks", rank_row, "k Delta; p k sum_j norm(B_j)^2 (A_j S A_j^T)"),
    ("entrywise masks", entrywise_row, "k Delta; p k tr(D diag(S) D^T)"),
)


_CONTROLS = (
    pair(
        "mask variance, independent entries",
        "LoRA Dropout has the variance of independent entries dropped at rate q",
        draw_layer,
        layer_ok,
        false=variance_sides("entrywise", lambda p: 2 * p - p * p),
        true=variance_sides("row_column"),
    ),
    pair(
        "mask variance, activation dropout",
        "LoRA Dropout at rate p has the variance of activation dropout at rate p",
        draw_layer,
        layer_ok,
        false=variance_sides("activation"),
        true=variance_sides("row_column"),
    ),
)

CLAIMS = (
    *(
        Claim(
            id=f"Linear layer, {name}",
            paper_item="Linear layer, mask moments",
            statement=f"Mean update and mask variance of a linear layer under {name}.",
            assumptions=("masks are independent of the input",),
            evidence=(proof(prove_variance_table), sweep(row)),
            recorded=Verdict.PROVED,
            formula=f"mean; variance: {formula}   (D = Delta, S = Sigma, k = 1-p)",
            functions=("exact.linear.mask_variance", "exact.linear.mean_factor"),
            controls=_CONTROLS if name == "LoRA Dropout" else (),
        )
        for name, row, formula in _TABLE
    ),
)
