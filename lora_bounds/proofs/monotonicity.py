"""Prop. 4.2 and Thm 4.4 move as announced, at fixed constants."""

from typing import Any

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Prop. 4.2 / Thm 4.4, monotone"


def prove() -> Proof:
    """Prove monotonicity of both bounds in p, n, delta, lambda, eta, Lmin and C.

    Returns:
        The checked argument.
    """
    z3 = require_z3()
    argument = Argument(
        "At fixed other constants and Lmin + 2 lambda q > 0, beta = 2 eta^2/((Lmin + 2 lambda q) "
        "n) and the gap term sqrt((C^2 + 24 C eta^2/(Lmin + 2 lambda q))/(2 n delta)) do not "
        "increase in p on [0, 1], in lambda >= 0, Lmin, n, delta, and do not decrease in eta and "
        "C. Measured constants change with p, so this is no statement about training."
    )
    p1, p2, lam, lam2, least, least2 = z3.Reals("p1 p2 lam lam2 least least2")
    d1, d2, x, y = z3.Reals("d1 d2 x y")

    def q(p: Any) -> Any:
        return 2 * p - p * p

    argument.implies("q rises on [0, 1]", [p1 >= 0, p1 <= p2, p2 <= 1], q(p1) <= q(p2))
    q1, q2 = z3.Reals("q1 q2")
    argument.implies(
        "Lmin + 2 lambda q rises in q, in lambda and in Lmin",
        [q1 >= 0, q1 <= q2, lam >= 0, lam <= lam2, least <= least2],
        z3.And(
            least + 2 * lam * q1 <= least + 2 * lam * q2,
            least + 2 * lam * q1 <= least + 2 * lam2 * q1,
            least + 2 * lam * q1 <= least2 + 2 * lam * q1,
        ),
    )
    top = z3.Real("top")
    argument.implies(
        "top/d falls in d > 0 for top >= 0 (beta in p, lambda, Lmin; x = top/d1, y = top/d2)",
        [top >= 0, d1 > 0, d1 <= d2, x * d1 == top, y * d2 == top],
        y <= x,
    )
    n1, n2 = z3.Reals("n1 n2")
    argument.implies(
        "beta falls in n (d = (Lmin + 2 lambda q) n)",
        [d1 > 0, n1 > 0, n1 <= n2],
        d1 * n1 <= d1 * n2,
    )
    eta1, eta2 = z3.Reals("eta1 eta2")
    argument.implies(
        "beta rises in eta", [eta1 >= 0, eta1 <= eta2, d1 > 0], 2 * eta1 * eta1 <= 2 * eta2 * eta2
    )
    c1, c2, b1, b2 = z3.Reals("c1 c2 b1 b2")
    argument.implies(
        "C^2 + 24 C b rises in C and in b = eta^2/(Lmin + 2 lambda q)",
        [c1 >= 0, c1 <= c2, b1 >= 0, b1 <= b2],
        c1 * c1 + 24 * c1 * b1 <= c2 * c2 + 24 * c2 * b2,
    )
    delta1, delta2 = z3.Reals("delta1 delta2")
    argument.implies(
        "2 n delta rises in n and in delta",
        [n1 > 0, n1 <= n2, delta1 > 0, delta1 <= delta2],
        2 * n1 * delta1 <= 2 * n2 * delta2,
    )
    argument.implies("the square root keeps the order", [x >= 0, y >= 0, x * x <= y * y], x <= y)
    beta, count, size, eta, denominator = z3.Reals("beta count size eta denominator")
    argument.implies(
        "Thm 4.4 is Lemma 4.3 at the beta of Prop. 4.2: 12 C n beta = 24 C eta^2/(Lmin + 2 lambda "
        "q)",
        [denominator > 0, count > 0, size >= 0, beta * (denominator * count) == 2 * eta * eta],
        12 * size * count * beta * denominator == 24 * size * eta * eta,
    )
    argument.argued(
        "n beta does not depend on n, so the gap term is exactly a constant over sqrt(n delta)"
    )
    return argument.done()
