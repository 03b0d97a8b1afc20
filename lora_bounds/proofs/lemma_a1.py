"""Lemma A.1, steps A.3 to A.6, and Prop. 4.2 (A.2), for objectives that are quadratic."""

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Lemma A.1 / Prop. 4.2"


def prove() -> Proof:
    """Prove the stability constant of Lemma A.1 from the assumptions its proof really uses.

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "u = theta(S) minimises F_S = (1/n) sum_j l_j + c norm(. - theta0)^2, v = theta(S^i) "
        "minimises F_R, the same without x_i and with factor 1/(n-1). Assume (1) F_S(v) - F_S(u) "
        ">= (Lmin/2 + c) norm(v-u)^2 (exact when l is quadratic; an assumption otherwise), (2) "
        "every L_lambda(x_j; .) = l_j + c norm^2 is eta-Lipschitz on the segment [u, v], (3) Lmin "
        "+ 2c > 0. Then norm(v-u) <= 2 eta/((Lmin+2c) n) and every per-example difference is at "
        "most 2 eta^2/((Lmin+2c) n). For quadratic l half of both constants suffices. c = lambda "
        "is Lemma A.1, c = lambda q is Prop. 4.2."
    )
    h1, h2, d1, d2, least, c = z3.Reals("h1 h2 d1 d2 least c")
    argument.implies(
        "A.3, quadratic case in the eigenbasis (two coordinates, then summed): "
        "(1/2) sum h_j d_j^2 + c sum d_j^2 >= (Lmin/2 + c) norm(d)^2",
        [h1 >= least, h2 >= least],
        (h1 * d1 * d1 + h2 * d2 * d2) / 2 + c * (d1 * d1 + d2 * d2)
        >= (least / 2 + c) * (d1 * d1 + d2 * d2),
    )
    t, slope, bend = sympy.symbols("t slope bend")
    quadratic = slope * t + bend * t**2 / 2
    argument.zero(
        "a quadratic equals its second-order expansion (no remainder)",
        quadratic - (slope * t + quadratic.diff(t, 2) * t**2 / 2),
    )
    n, gap_s, gap_r, diff, eta, d, m, change = z3.Reals("n gap_s gap_r diff eta d m change")
    argument.implies(
        "A.4: n F_S = (n-1) F_R + L_lambda(x_i), F_R(v) <= F_R(u): "
        "F_S(v) - F_S(u) <= (L_lambda(x_i;v) - L_lambda(x_i;u))/n",
        [n >= 2, n * gap_s == (n - 1) * gap_r + diff, gap_r <= 0],
        gap_s * n <= diff,
    )
    argument.implies(
        "A.5: with A.3 and eta-Lipschitz: (Lmin/2 + c) norm(v-u)^2 <= eta norm(v-u)/n",
        [n >= 2, n * gap_s <= diff, diff <= eta * d, gap_s >= m / 2 * d * d, d >= 0, m > 0],
        n * m * d * d <= 2 * eta * d,
    )
    argument.implies(
        "A.6: norm(v-u) <= 2 eta/((Lmin+2c) n)",
        [n >= 2, m > 0, d >= 0, eta >= 0, n * m * d * d <= 2 * eta * d],
        n * m * d <= 2 * eta,
    )
    scaled = z3.Real("scaled")  # n m, one product fewer for the solver
    argument.implies(
        "A.6: every per-example difference <= eta norm(v-u) <= 2 eta^2/((Lmin+2c) n)",
        [scaled > 0, eta >= 0, d >= 0, scaled * d <= 2 * eta, change <= eta * d],
        scaled * change <= 2 * eta * eta,
    )
    inner = z3.Real("inner")  # <grad F_S(v) - grad F_S(u), v - u>
    argument.implies(
        "differentiable l: n grad F_S(v) = grad L_lambda(x_i; v) since grad F_R(v) = 0, and for "
        "quadratics (Lmin+2c) norm(v-u)^2 <= inner, so norm(v-u) <= eta/((Lmin+2c) n): half of A.6",
        [n >= 2, m > 0, d >= 0, m * d * d <= inner, n * inner <= eta * d, eta >= 0],
        n * m * d <= eta,
    )
    argument.argued("m = Lmin + 2c; the absolute value: apply the last line to both signs")
    return argument.done()
