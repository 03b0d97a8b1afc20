"""The regulariser that LoRA Dropout really adds to a linear layer, and its lambda (Eq. 11)."""

from lora_bounds.proofs.masks import diagonal, generic_layer, masked_updates
from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Eq. 11, exact lambda"


def prove() -> Proof:
    """Prove the induced regulariser and lambda = s^2 / (2(1-q)) for Sigma = s^2 I.

    Returns:
        The checked argument.
    """
    import sympy

    argument = Argument(
        "Loss (1/2) norm(y - hhat)^2, E = k^2 Delta the mean update. The expected LoRA-Dropout "
        "objective is the risk of E plus (1/2)[(p/k) tr(E Sigma E^T) + (p/k^2) tr(E D E^T)]. For "
        "Sigma = s^2 I this is lambda q norm(E)_F^2 with lambda = s^2/(2(1-q)); written in the raw "
        "Delta it is (s^2/2) q(1-q) norm(Delta)_F^2."
    )
    b, a, sigma, p = generic_layer(2, 1, 2)
    k, q = 1 - p, 2 * p - p**2
    delta = b * a
    # E (1/2) norm(y - Delta_m x)^2 = (1/2)(E norm(y)^2 - 2 tr(Delta_m C^T) + tr(Delta_m Sigma
    # Delta_m^T)), C = E y x^T with y counted from W0 x.
    cross = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"c{i}{j}"))
    energy = sympy.Symbol("yy")

    def risk(update: sympy.Matrix) -> sympy.Expr:
        fit = (update * cross.T).trace()
        return (energy - 2 * fit + (update * sigma * update.T).trace()) / 2

    objective = sum(prob * risk(update) for update, prob in masked_updates("row_column", b, a, p))
    mean = k**2 * delta
    penalty = (
        p / k * (mean * sigma * mean.T).trace()
        + p / k**2 * (mean * diagonal(sigma) * mean.T).trace()
    ) / 2
    argument.zero(
        "expected masked loss = risk(E) + penalty(E), 2 x 2 update, all 16 masks",
        objective - risk(mean) - penalty,
    )
    s = sympy.Symbol("s")
    isotropic = {sigma[0, 0]: s**2, sigma[1, 1]: s**2, sigma[0, 1]: 0}
    norm_mean = sum(e**2 for e in mean)
    norm_delta = sum(e**2 for e in delta)
    argument.zero("p/k + p/k^2 = q/(1-q)", p / k + p / k**2 - q / (1 - q))
    argument.zero(
        "Sigma = s^2 I: penalty = lambda q norm(E)^2 with lambda = s^2/(2(1-q))",
        penalty.subs(isotropic) - s**2 / (2 * (1 - q)) * q * norm_mean,
    )
    argument.zero(
        "the same in the raw update: (s^2/2) q (1-q) norm(Delta)^2",
        penalty.subs(isotropic) - s**2 / 2 * q * (1 - q) * norm_delta,
    )
    argument.argued(
        "any shape: the mask moments are those of the linear layer, proved for any shape"
    )
    return argument.done()
