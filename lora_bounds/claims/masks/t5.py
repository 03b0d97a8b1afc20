"""T5: the expected sparsity of the masked update is q(p); masks of the rank dimension add to it."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from lora_bounds.bounds.sparsity import keep_probability
from lora_bounds.claims.masks.eq_2 import zeros_of_the_masked_update
from lora_bounds.claims.masks.eq_11 import prove_mask_covariance
from lora_bounds.claims.one_parameter import exact_drop_probability
from lora_bounds.claims.symbolic_masks import keep_vectors
from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import equal, pair
from lora_bounds.trial.evidence import Sweep, counterexample, proof, sweep
from lora_bounds.trial.proof import Argument, Proof
from lora_bounds.trial.search import Problem

_INNER = np.linspace(0.05, 0.95, 19)


def prove_rank_masks() -> Proof:
    """Prove the sparsity with and without rank masks."""
    import sympy

    argument = Argument(
        "Factors with no accidental cancellation (every nonempty partial sum over components is "
        "nonzero). Rows and columns masked at rate p: an entry of Bhat Ahat is zero with "
        "probability q = 2p - p^2. With the r components masked too: q + (1-q) p^r. So rank masks "
        "add sparsity only on the event that all r components are dropped, (1-q) p^r: not "
        "nothing, as the paper has it, but vanishing fast in r."
    )
    p, r = sympy.symbols("p r", positive=True)
    q = 2 * p - p**2
    for rank in (1, 2, 3):
        zero: sympy.Expr = sympy.Integer(0)
        for (row, column), outer in keep_vectors(2, p):
            for components, inner in keep_vectors(rank, p):
                if not (row and column and any(components)):
                    zero += outer * inner
        argument.zero(
            f"r = {rank}: all {2 ** (rank + 2)} masks give q + (1-q) p^{rank}",
            zero - q - (1 - q) * p**rank,
        )
        alone = sum(prob for keep, prob in keep_vectors(rank, p) if not any(keep))
        argument.zero(f"r = {rank}: rank masks alone give p^{rank}", alone - p**rank)
    rate = sympy.Rational(1, 2)
    at_half = ((1 - q) * p**r).subs({p: rate, r: 8})
    argument.check(
        "p = 1/2, r = 8 (the paper's setting): 1/1024", at_half == sympy.Rational(1, 1024)
    )
    return argument.done()


def rank_mask_sparsity() -> Sweep:
    """Returns the zero entries that masking the rank dimension adds; the paper says none."""
    extra = [
        float(keep_probability(dropout=p)) * p**rank for p in _INNER for rank in (1, 2, 4, 8, 16)
    ]
    return Sweep("p in [0.05, 0.95], rank 1 to 16", -np.array(extra))


def replay_rank_masks_add_sparsity(data: Data) -> Replay:
    """Replay the probability of a zero with the rank dimension masked."""
    p, rank = data["p"], data["rank"]
    zero = Fraction(0)
    for row, column, *components in product((0, 1), repeat=2 + rank):
        prob = Fraction(1)
        for bit in (row, column, *components):
            prob *= (1 - p) if bit else p
        # Entry = row * column * (number of kept components): all terms 1, no cancellation.
        zero += prob if row * column * sum(components) == 0 else 0
    q = exact_drop_probability(p)
    steps = [
        f"rank {rank}, every a_j = b_j = 1, p = {p}: without rank masks an entry is 0 with "
        f"probability {q}",
        f"with the rank dimension masked as well: {zero} (all {2 ** (2 + rank)} masks summed)",
    ]
    return replayed(zero, q, steps)


def _rank_draw(rng: np.random.Generator) -> Problem:
    return {"p": rng.uniform(0.05, 0.95), "rank": int(rng.integers(1, 6))}


def _rank_ok(problem: Problem) -> bool:
    return 0 < problem["p"] < 1 and problem["rank"] >= 1


def rank_sparsity(problem: Problem) -> tuple[Any, Any]:
    """Rank masks alone: the share of zero entries (all r components dropped) is p^r."""
    return equal(_zero_share(problem), problem["p"] ** problem["rank"])


def rank_as_sparse(problem: Problem) -> tuple[Any, Any]:
    """Claim that rank masks alone give the sparsity q of LoRA Dropout."""
    p = problem["p"]
    return 2 * p - p * p, _zero_share(problem)


def _zero_share(problem: Problem) -> Any:
    p, total = problem["p"], 0
    for keep in product((0, 1), repeat=problem["rank"]):
        probability = 1
        for bit in keep:
            probability = probability * ((1 - p) if bit else p)
        total += probability * (sum(keep) == 0)  # all factors 1: nothing cancels
    return total


CLAIMS = (
    Claim(
        id="T5",
        paper_item="T5, sparsity is q(p)",
        statement="The expected sparsity of the masked update is q(p).",
        assumptions=("the unmasked update has no zero entry",),
        evidence=(proof(prove_mask_covariance), sweep(zeros_of_the_masked_update)),
        recorded=Verdict.PROVED,
        formula="E[share of zeros] = q(p)",
        functions=("bounds.sparsity.drop_probability",),
    ),
    Claim(
        id="T5, rank masks",
        paper_item="T5, Eq. 2, rank masks",
        statement="Masking the rank dimension as well adds no sparsity.",
        assumptions=("no accidental cancellation between components",),
        evidence=(
            counterexample(replay_rank_masks_add_sparsity),
            proof(prove_rank_masks, of_the_contrary=True),
            sweep(rank_mask_sparsity),
        ),
        recorded=Verdict.REFUTED,
        formula="P(zero) = q + (1-q) p^r, not q",
        functions=("bounds.sparsity.keep_probability",),
        controls=(
            pair(
                "rank masks as sparse as q",
                "rank masks at rate p zero an entry with probability q",
                _rank_draw,
                _rank_ok,
                false=rank_as_sparse,
                true=rank_sparsity,
            ),
        ),
    ),
)
