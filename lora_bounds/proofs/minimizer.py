"""The global minimum of the expected LoRA-Dropout objective of a linear layer."""

from lora_bounds.proofs.masks import diagonal
from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Linear layer, closed-form minimiser"


def prove() -> Proof:
    """Prove E = G M^-1 (full rank) and E = [G M^(-1/2)]_r M^(-1/2) (rank r), both global.

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "M = Sigma/k + (p/k^2) diag(Sigma) positive definite, G = E[(y - W0 x)x^T], 0 <= p < 1. "
        "The objective equals const + (1/2) norm(E R - G R^-1)_F^2 with R = M^(1/2), hence the "
        "global minimum over all E is G M^-1, over rank <= r it is [G M^(-1/2)]_r M^(-1/2) "
        "(Eckart-Young), and over factors (B, A) it is the same since BA ranges over all updates "
        "of rank <= r."
    )
    p = sympy.Symbol("p")
    k = 1 - p
    r = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"r{min(i, j)}{max(i, j)}"))
    e = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"e{i}{j}"))
    g = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"g{i}{j}"))
    sigma = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"s{min(i, j)}{max(i, j)}"))
    m = sigma / k + p / k**2 * diagonal(sigma)
    quadratic = (e * sigma * e.T).trace() / 2 - (g * e.T).trace()
    penalty = (
        p / k * (e * sigma * e.T).trace() + p / k**2 * (e * diagonal(sigma) * e.T).trace()
    ) / 2
    argument.zero(
        "risk + induced regulariser = (1/2) tr(E M E^T) - tr(G E^T) + const",
        quadratic + penalty - (e * m * e.T).trace() / 2 + (g * e.T).trace(),
    )
    residual = e * r - g * r.inv()
    argument.zero(
        "completing the square with M = R^2, R symmetric: (1/2) norm(E R - G R^-1)^2 - "
        "(1/2) norm(G R^-1)^2",
        (e * r * r * e.T).trace() / 2
        - (g * e.T).trace()
        - (residual * residual.T).trace() / 2
        + (g * r.inv() * r.inv() * g.T).trace() / 2,
    )
    stationary = g * (r * r).inv()
    argument.zero("gradient E M - G vanishes at E = G M^-1", stationary * r * r - g)
    argument.zero("the square vanishes there too", stationary * r - g * r.inv())
    # Eckart-Young for H = G R^-1. Fix an orthonormal column space U of X = U W; best W is U^T H.
    angle_c, angle_s = sympy.symbols("c s")
    u = sympy.Matrix([angle_c, angle_s])
    w = sympy.Matrix([[sympy.Symbol("w0"), sympy.Symbol("w1")]])
    h = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"h{i}{j}"))
    gap = h - u * w
    split = (
        (h * h.T).trace()
        - (u.T * h * h.T * u)[0]
        + ((w - u.T * h) * (w - u.T * h).T)[0]
        - (gap * gap.T).trace()
    )
    argument.zero(
        "norm(H - U W)^2 = norm(H)^2 - norm(U^T H)^2 + norm(W - U^T H)^2 when U^T U = 1",
        sympy.rem(sympy.expand(split), angle_c**2 + angle_s**2 - 1, angle_c),
    )
    top, rest, threshold, weight = z3.Reals("top rest threshold weight")
    argument.implies(
        "singular value t_i >= t_r (i <= r), 0 <= w_i <= 1: t_i (1 - w_i) >= t_r (1 - w_i)",
        [top >= threshold, threshold >= 0, weight >= 0, weight <= 1],
        top * (1 - weight) >= threshold * (1 - weight),
    )
    argument.implies(
        "singular value t_i <= t_r (i > r), w_i >= 0: t_i w_i <= t_r w_i",
        [rest >= 0, rest <= threshold, weight >= 0, weight <= 1],
        rest * weight <= threshold * weight,
    )
    argument.argued(
        "norm(U^T H)^2 = sum_i t_i w_i with t_i = sigma_i(H)^2, w_i in [0, 1], sum w_i = r; adding "
        "both lines, sum_{i<=r} t_i - sum_i t_i w_i >= t_r (r - sum_i w_i) = 0: the truncated SVD "
        "is best; rank(E R) = rank(E) because R is invertible"
    )
    return argument.done()
