"""The raw update BA at the minimum: between least squares and one-variable-at-a-time."""

from lora_bounds.proofs.masks import diagonal
from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Linear layer, raw update at the minimum"


def prove() -> Proof:
    """Prove BA = G (k Sigma + p diag Sigma)^-1 and its limits.

    Returns:
        The checked argument.
    """
    import sympy

    argument = Argument(
        "At the full-rank minimum BA = E/k^2 = G (k Sigma + p diag(Sigma))^-1: G Sigma^-1 (least "
        "squares) at p = 0, G diag(Sigma)^-1 (each variable on its own) as p -> 1. For "
        "Sigma = s^2 I it is G/s^2 for every p, so the whole shrinkage of E is the factor k^2."
    )
    p, s = sympy.symbols("p s")
    k = 1 - p
    g = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"g{i}{j}"))
    sigma = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"s{min(i, j)}{max(i, j)}"))
    m = sigma / k + p / k**2 * diagonal(sigma)
    blend = k * sigma + p * diagonal(sigma)
    argument.zero("k^2 M = k Sigma + p diag(Sigma)", k**2 * m - blend)
    raw = g * m.inv() / k**2
    argument.zero("E/k^2 = G (k Sigma + p diag Sigma)^-1", raw - g * blend.inv())
    argument.zero("p = 0: least squares", (g * blend.inv()).subs(p, 0) - g * sigma.inv())
    argument.zero(
        "p -> 1: one variable at a time",
        (g * blend.inv()).subs(p, 1) - g * diagonal(sigma).inv(),
    )
    isotropic = {sigma[0, 0]: s**2, sigma[1, 1]: s**2, sigma[0, 1]: 0}
    argument.zero("Sigma = s^2 I: BA = G/s^2 whatever p", raw.subs(isotropic) - g / s**2)
    argument.zero("Sigma diagonal: BA does not depend on p", raw.subs(sigma[0, 1], 0).diff(p))
    return argument.done()
