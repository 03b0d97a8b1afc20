"""The repaired Prop. 4.2: uniform stability from strong convexity (no Hessian at a point)."""

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Prop. 4.2, repaired"


def prove() -> Proof:
    """Prove abs(l(z;u) - l(z;v)) <= rho^2/(2 c n) with c = lambda q.

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "l convex and rho-Lipschitz in theta, c = lambda q > 0, u minimises F_S = (1/n) sum_j l_j "
        "+ c norm(. - theta0)^2, v minimises F_R = F_S - l_i/n (factor 1/n kept). Then norm(u-v) "
        "<= rho/(2cn) and, for every z, abs(l(z;u) - l(z;v)) <= rho^2/(2cn). Replacing a point "
        "instead of removing it costs at most twice that. No Hessian and no closeness is assumed. "
        "(Bousquet and Elisseeff 2002, Theorem 22.)"
    )
    t, a, b = sympy.symbols("t a b")
    argument.zero(
        "norm((1-t)a + tb)^2 = (1-t) norm(a)^2 + t norm(b)^2 - t(1-t) norm(a-b)^2, one coordinate",
        ((1 - t) * a + t * b) ** 2 - (1 - t) * a**2 - t * b**2 + t * (1 - t) * (a - b) ** 2,
    )
    argument.argued("so F_S and F_R (convex + c norm^2) are 2c-strongly convex; coordinates add up")
    gap, c, d2, step = z3.Reals("gap c d2 step")
    argument.implies(
        "quadratic growth at a minimiser: 0 <= (1-t)*0 + t*gap - c t(1-t) d^2 for all t in (0,1) "
        "gives gap >= c d^2 (t = (c d^2 - gap)/(2 c d^2) contradicts the opposite)",
        [
            c > 0,
            d2 > 0,
            gap >= 0,
            z3.Implies(
                gap < c * d2,
                z3.And(
                    2 * step * (c * d2) == c * d2 - gap,
                    step * gap - step * (c * d2) + step * step * (c * d2) >= 0,
                ),
            ),
        ],
        gap >= c * d2,
    )
    argument.implies(
        "the step used lies in (0, 1)",
        [c > 0, d2 > 0, gap >= 0, gap < c * d2, 2 * step * (c * d2) == c * d2 - gap],
        z3.And(step > 0, step < 1),
    )
    n, s_u, s_v, r_u, r_v, l_u, l_v, rho, d = z3.Reals("n s_u s_v r_u r_v l_u l_v rho d")
    argument.implies(
        "both growths added, F_S - F_R = l_i/n: 2 c d^2 <= (l_i(v) - l_i(u))/n",
        [
            n >= 1,
            s_v - s_u >= c * d * d,
            r_u - r_v >= c * d * d,
            n * (s_u - r_u) == l_u,
            n * (s_v - r_v) == l_v,
        ],
        n * (2 * c * d * d) <= l_v - l_u,
    )
    k = z3.Real("k")  # 2 c n
    argument.implies(
        "rho-Lipschitz: norm(u-v) <= rho/(2cn)",
        [k > 0, rho >= 0, d >= 0, k * d * d <= l_v - l_u, l_v - l_u <= rho * d],
        k * d <= rho,
    )
    change = z3.Real("change")
    argument.implies(
        "for every z: abs(l(z;u) - l(z;v)) <= rho norm(u-v) <= rho^2/(2cn)",
        [k > 0, rho >= 0, d >= 0, k * d <= rho, change <= rho * d, -change <= rho * d],
        z3.And(k * change <= rho * rho, -k * change <= rho * rho),
    )
    m_u, m_v = z3.Reals("m_u m_v")  # mean loss of the other points
    argument.implies(
        "S^i with factor 1/(n-1): n (F_S - F_R) = l_i - mean of the others, so "
        "2 c n norm(u-v) <= 2 rho and both constants double",
        [
            k > 0,
            rho >= 0,
            d >= 0,
            k * d * d <= (l_v - l_u) - (m_v - m_u),
            l_v - l_u <= rho * d,
            m_u - m_v <= rho * d,
        ],
        k * d <= 2 * rho,
    )
    eta = z3.Real("eta")
    argument.implies(
        "smaller than Prop. 4.2 with Lmin = 0 and any eta >= rho: rho^2/(2cn) <= 2 eta^2/(2cn)",
        [k > 0, rho >= 0, eta >= rho],
        rho * rho <= 2 * eta * eta,
    )
    return argument.done()
