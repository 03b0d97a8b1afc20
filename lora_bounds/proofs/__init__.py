"""Machine-checked proofs, one file a claim. Nothing heavy is imported until a proof runs.

Examples:
    >>> from lora_bounds.proofs import all_proofs
    >>> proof = all_proofs()["sparsity-penalty"]()
    >>> proof.holds, proof.method
    (True, 'sympy')
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from lora_bounds.trial.proof import Proof

MODULES = (
    "degeneracy",
    "sparsity_penalty",
    "mask_covariance",
    "rank_masks",
    "lemma_a1",
    "lipschitz",
    "uniform_stability",
    "gauge",
    "monotonicity",
    "lemma_4_3",
    "floor",
    "full_dropout_limit",
    "jensen",
    "ensemble_size",
    "ensemble_variance",
    "variance_table",
    "induced_regularizer",
    "dropout_equivalence",
    "minimizer",
    "regression_limits",
    "replace_one",
    "theorem_12",
    "dropout_kl",
    "kl_moment",
    "training_risk",
)

__all__ = ["MODULES", "Proof", "all_proofs", "claim"]


def _prove(module: str) -> Proof:
    proof: Proof = import_module(f"lora_bounds.proofs.{module}").prove()
    return proof


def all_proofs() -> dict[str, Callable[[], Proof]]:
    """Every proof by its id; calling one runs it.

    Returns:
        Map from id (the module's name with dashes) to a function that runs the proof.
    """
    return {module.replace("_", "-"): partial(_prove, module) for module in MODULES}


def claim(proof_id: str) -> str:
    """The item of the paper (or the result) that a proof is about.

    Args:
        proof_id: A key of `all_proofs`.

    Returns:
        For instance ``"Thm 4.5"``.

    Raises:
        ValueError: There is no such proof.
    """
    module = proof_id.replace("-", "_")
    if module not in MODULES:
        raise ValueError(f"no proof with proof_id={proof_id!r}; known: {', '.join(all_proofs())}")
    text: str = import_module(f"lora_bounds.proofs.{module}").CLAIM
    return text
