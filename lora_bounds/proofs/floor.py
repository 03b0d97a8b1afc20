"""Thm 4.4 never falls under C/sqrt(2 n delta)."""

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Thm 4.4, floor"


def prove() -> Proof:
    """Prove the floor of Thm 4.4, when it is vacuous, and its price in delta.

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "For every eta, Lmin, lambda, p with Lmin + 2 lambda q > 0 the gap term of Thm 4.4 is at "
        "least C/sqrt(2 n delta); so it is vacuous (>= C) whenever 2 n delta <= 1, and in any "
        "case when n <= (1 + 24 eta^2/(C (Lmin + 2 lambda q)))/(2 delta). It pays 1/delta inside "
        "the root: the ratio to a term in log(1/delta) grows without bound as delta -> 0."
    )
    size, n, delta, eta, denominator, term, level, ratio = z3.Reals(
        "C n delta eta m term level ratio"
    )
    setting = [size > 0, n >= 1, delta > 0, delta <= 1, denominator > 0, ratio >= 0]
    ratio_is = ratio * denominator == eta * eta
    term_is = term * term * (2 * n * delta) == size * size + 24 * size * ratio
    argument.implies(
        "ratio = eta^2/(Lmin + 2 lambda q) is never negative",
        [denominator > 0, ratio_is],
        ratio >= 0,
    )
    argument.implies(
        "term^2 * 2 n delta >= C^2",
        [*setting, term >= 0, term_is],
        term * term * (2 * n * delta) >= size * size,
    )
    scaled = z3.Real("scaled")
    argument.implies(
        "term >= level when level^2 * 2 n delta = C^2 (scaled = 2 n delta)",
        [scaled > 0, term >= 0, level >= 0, level * level * scaled == size * size,
         term * term * scaled >= size * size],
        term >= level,
    )  # fmt: skip
    argument.implies(
        "2 n delta <= 1 makes it vacuous: term >= C",
        [scaled > 0, scaled <= 1, size > 0, term >= 0, term * term * scaled >= size * size],
        term >= size,
    )
    risk = z3.Real("risk")
    argument.implies(
        "2 n delta (C - Rhat)^2 <= C^2 makes it vacuous: Rhat + term >= C",
        [scaled > 0, size > 0, risk >= 0, risk <= size, term >= 0,
         term * term * scaled >= size * size,
         scaled * (size - risk) * (size - risk) <= size * size],
        risk + term >= size,
    )  # fmt: skip
    argument.implies(
        "vacuous exactly when 2 n delta C <= C + 24 ratio",
        [scaled > 0, size > 0, ratio >= 0, term >= 0,
         term * term * scaled == size * size + 24 * size * ratio],
        (term >= size) == (scaled * size <= size + 24 * ratio),
    )  # fmt: skip
    d = sympy.Symbol("delta", positive=True)
    argument.check(
        "(1/delta)/log(1/delta) -> infinity as delta -> 0",
        sympy.limit(1 / (d * sympy.log(1 / d)), d, 0, dir="+") == sympy.oo,
    )
    return argument.done()
