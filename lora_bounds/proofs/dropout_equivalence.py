"""LoRA Dropout at rate p against scaled input dropout at rate q = 2p - p^2, linear layer."""

from lora_bounds.proofs.masks import diagonal, generic_layer, mean_and_variance
from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Linear layer, equivalence with dropout"


def prove() -> Proof:
    """Prove equality of the expected objectives for diagonal Sigma, and their difference otherwise.

    Returns:
        The checked argument.
    """
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
    lora_mean, lora_variance = mean_and_variance("row_column", b / k**2, a, sigma, p)
    drop_mean, drop_variance = mean_and_variance("activation", b, a, sigma, q)
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
