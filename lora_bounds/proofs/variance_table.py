"""Mean and variance of the masked linear layer under each mask law, from all masks."""

from typing import Any

from lora_bounds.bounds.laws import LawName
from lora_bounds.proofs.masks import diagonal, generic_layer, mean_and_variance
from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Linear layer, mask moments"


def prove() -> Proof:
    """Prove the first two moments of hhat - W0 x for four mask laws.

    Returns:
        The checked argument.
    """
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
        mean, variance = mean_and_variance(law, b, a, sigma, p)
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
