"""The uniform-stability bound (Bousquet and Elisseeff 2002, Theorem 12) up to McDiarmid."""

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Bousquet-Elisseeff 2002, Theorem 12"


def prove() -> Proof:
    """Prove R <= Rhat + 2 beta + (4 n beta + C) sqrt(ln(1/delta)/(2n)).

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "Uniform stability beta for removing one point, losses in an interval of length C. With "
        "probability at least 1 - delta over S: R <= Rhat + 2 beta + (4 n beta + C) "
        "sqrt(ln(1/delta)/(2n)). McDiarmid's inequality is cited, the rest is checked."
    )
    before, without, after, beta = z3.Reals("before without after beta")
    argument.implies(
        "replacing a point is removing one and adding one: a loss moves by at most 2 beta",
        [beta >= 0, before - without <= beta, without - after <= beta],
        before - after <= 2 * beta,
    )
    risk, risk2, n, size, same, same2, own, own2 = z3.Reals("risk risk2 n size same same2 own own2")
    hat, hat2 = z3.Reals("hat hat2")
    argument.implies(
        "so R - Rhat moves by at most (4 n beta + C)/n: R by 2 beta, the n-1 other losses by 2 "
        "beta each, the exchanged one by at most C",
        [
            n >= 1,
            beta >= 0,
            size >= 0,
            risk - risk2 <= 2 * beta,
            n * hat == same + own,
            n * hat2 == same2 + own2,
            same2 - same <= (n - 1) * (2 * beta),
            own2 - own <= size,
        ],
        n * ((risk - hat) - (risk2 - hat2)) <= 4 * n * beta + size,
    )
    argument.argued("E[R - Rhat] is the mean of replace-one changes (Lemma 7), hence <= 2 beta")
    m, b, c, d = sympy.symbols("n beta C delta", positive=True)
    deviation = (4 * m * b + c) * sympy.sqrt(sympy.log(1 / d) / (2 * m))
    step = (4 * m * b + c) / m
    argument.zero(
        "McDiarmid's exp(-2 eps^2/(n c^2)) with c = (4 n beta + C)/n equals delta at this eps",
        2 * deviation**2 / (m * step**2) - sympy.log(1 / d),
    )
    return argument.done()
