"""LoRA Dropout at p against ordinary dropout at q(p), which agree for diagonal Sigma alone."""

from itertools import product

import numpy as np

from lora_bounds.bounds.sparsity import drop_probability
from lora_bounds.claims.one_parameter import exact_drop_probability
from lora_bounds.claims.symbolic_masks import diagonal, generic_layer, symbolic_moments
from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.exact.linear import effective_moment
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, agreement, counterexample, proof, sweep
from lora_bounds.trial.proof import Argument, Proof


def prove_dropout_equivalence() -> Proof:
    """Prove equal expected objectives for diagonal Sigma, and their difference otherwise."""
    argument = Argument(
        "Two linear layers with the same mean update E: one under LoRA Dropout at rate p, one "
        "under activation dropout with 1/(1-q) scaling at rate q = 2p - p^2. Twice the difference "
        "of their expected squared losses is (p/k) tr(E (Sigma - diag Sigma) E^T). So they agree "
        "for every diagonal Sigma, in particular for isotropic inputs."
    )
    b, a, sigma, p = generic_layer(2, 1, 2)
    k, q = 1 - p, 2 * p - p**2
    mean_update = b * a
    # LoRA Dropout reaches the mean update E with the raw factors scaled by 1/k^2 in total.
    lora_mean, lora_variance = symbolic_moments("row_column", b / k**2, a, sigma, p)
    drop_mean, drop_variance = symbolic_moments("activation", b, a, sigma, q)
    argument.zero("both layers have mean update E (LoRA Dropout)", lora_mean - mean_update)
    argument.zero("both layers have mean update E (dropout at q)", drop_mean - mean_update)
    off_diagonal = (mean_update * (sigma - diagonal(sigma)) * mean_update.T).trace()
    argument.zero(
        "V(LoRA Dropout, p) - V(dropout, q) = (p/k) tr(E (Sigma - diag Sigma) E^T), every mask",
        lora_variance - drop_variance - p / k * off_diagonal,
    )
    argument.zero(
        "equal when Sigma is diagonal", (lora_variance - drop_variance).subs(sigma[0, 1], 0)
    )
    argument.argued("equal means give equal risks of the mean, so the objectives differ by V/2")
    return argument.done()


def dropout_at_rate_q() -> Sweep:
    """Returns M of LoRA Dropout at p against M of dropout at q, for diagonal Sigma."""
    rng, slacks = np.random.default_rng(12), []
    for p in np.linspace(0, 0.99, 100):
        q = float(drop_probability(dropout=p))
        sigma = np.diag(rng.uniform(0.1, 3, 4))
        ours = effective_moment(law="row_column", second_moment=sigma, dropout=float(p))
        usual = effective_moment(law="activation", second_moment=sigma, dropout=q)
        slacks.append(agreement(ours / usual.max(), usual / usual.max(), ALGEBRA))
    return Sweep("100 rates in [0, 0.99], random diagonal Sigma", slacks)


def replay_dropout_correlated_inputs(data: Data) -> Replay:
    """Replay both variances for correlated inputs."""
    p, update, s = data["p"], data["mean_update"], data["sigma"]
    k, q = 1 - p, exact_drop_probability(p)
    full = sum(update[i] * s[i][j] * update[j] for i, j in product(range(len(update)), repeat=2))
    own = sum(e * e * s[i][i] for i, e in enumerate(update))
    lora = p / k * full + p / k**2 * own
    dropout = q / (1 - q) * own
    steps = [
        f"one output, mean update E = ({', '.join(map(str, update))}), p = {p}, q = {q}",
        f"E Sigma E^T = {full}, E diag(Sigma) E^T = {own}",
        f"LoRA Dropout at p: V = (p/k) {full} + (p/k^2) {own} = {lora}",
        f"dropout with 1/(1-q) at q: V = (q/(1-q)) {own} = {dropout}",
    ]
    return replayed(lora, dropout, steps)


CLAIMS = (
    Claim(
        id="Linear layer, dropout at rate q",
        paper_item="Linear layer, equivalence with dropout",
        statement="LoRA Dropout at p has the expected loss of scaled dropout at q = 2p - p^2.",
        assumptions=("squared loss",),
        evidence=(
            counterexample(replay_dropout_correlated_inputs),
            proof(prove_dropout_equivalence, assuming="diagonal Sigma, such as isotropic inputs"),
            sweep(dropout_at_rate_q, assuming="diagonal Sigma, such as isotropic inputs"),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="Sigma/k + (p/k^2) diag(Sigma) = Sigma + (q/(1-q)) diag(Sigma)",
        functions=("exact.linear.effective_moment",),
    ),
)
