"""Lemma 4.3 under uniform stability, with a smaller constant than the paper's."""

from itertools import product

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Lemma 4.3"


def prove() -> Proof:
    """Prove R <= Rhat + sqrt((C^2 + 8 C n beta)/(2 n delta)) when beta is a uniform stability.

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "A symmetric algorithm, losses in an interval of length C, uniform stability beta for "
        "removing one point. Then E[(R - Rhat)^2] <= (C^2 + 8 C n beta)/(2n), and with "
        "probability at least 1 - delta over S, R <= Rhat + sqrt((C^2 + 8 C n beta)/(2 n delta)), "
        "which is below the sqrt((C^2 + 12 C n beta)/(2 n delta)) of Lemma 4.3. Pointwise "
        "hypothesis stability alone is not enough (see the counterexample to Lemma 4.3)."
    )
    # Two atoms, n = 2, symmetric algorithm: one free loss for each (multiset, point).
    weights = sympy.symbols("w0:2")

    def loss(sample: tuple[int, ...], point: int) -> sympy.Symbol:
        return sympy.Symbol("l_" + "".join(map(str, sorted(sample))) + f"_{point}")

    n = 2
    square = exchange = swapped_terms = sympy.Integer(0)
    for z1, z2, z, fresh in product(range(2), repeat=4):
        probability = weights[z1] * weights[z2] * weights[z] * weights[fresh]
        sample, first, second = (z1, z2), (fresh, z2), (z1, z)
        at = {point: loss(sample, point) for point in range(2)}
        at1 = {point: loss(first, point) for point in range(2)}  # z1 replaced by z'
        at2 = {point: loss(second, point) for point in range(2)}  # z2 replaced by z
        risk = sum(weights[point] * at[point] for point in range(2))
        square += probability * (risk - (at[z1] + at[z2]) / 2) ** 2
        exchange += probability * (at[z1] - at[z2]) ** 2 / (2 * n)
        swapped_terms += probability * (
            at[z] * (at[fresh] - at1[fresh])
            + at1[fresh] * (at[z] - at1[z])
            + (at[z2] - at2[z2]) * at[z1]
            + at2[z2] * (at[z1] - at2[z1])
        )
    sure = {weights[1]: 1 - weights[0]}
    argument.zero(
        "E(R-Rhat)^2 = E(l(z1)-l(z2))^2/(2n) + E of four terms, each a loss times the change of "
        "another loss when one point is replaced (2 atoms, n = 2, free weights and losses)",
        (square - exchange - swapped_terms).subs(sure),
    )
    argument.argued(
        "any space and n: rename z1 <-> z' and z2 <-> z in E[l(z)l(z') - 2 l(z)l(z1) + l(z1)l(z2)]"
    )
    size, value, change, beta, mean = z3.Reals("C value change beta mean")
    argument.implies(
        "losses shifted to [-C/2, C/2] (R - Rhat does not move), a replacement changes a loss by "
        "at most 2 beta: each term is at most C beta",
        [beta >= 0, size > 0, value <= size / 2, -value <= size / 2, change <= 2 * beta,
         -change <= 2 * beta],
        value * change <= size * beta,
    )  # fmt: skip
    argument.implies(
        "a difference of two losses is at most C, so the first part is at most C^2/(2n)",
        [size > 0, value <= size, -value <= size],
        value * value <= size * size,
    )
    count, second_moment = z3.Reals("count second_moment")
    argument.implies(
        "sum: E(R-Rhat)^2 <= C^2/(2n) + 4 C beta = (C^2 + 8 C n beta)/(2n)",
        [count >= 1, mean * (2 * count) <= size * size, second_moment <= mean + 4 * size * beta],
        second_moment * (2 * count) <= size * size + 8 * size * count * beta,
    )
    epsilon, probability, delta = z3.Reals("epsilon probability delta")
    argument.implies(
        "Chebyshev: P(R - Rhat >= eps) eps^2 <= E(R-Rhat)^2 <= delta eps^2 gives P <= delta",
        [epsilon > 0, delta > 0, probability * (epsilon * epsilon) <= second_moment,
         second_moment <= delta * (epsilon * epsilon)],
        probability <= delta,
    )  # fmt: skip
    argument.implies(
        "the constant 8 is below the paper's 12",
        [size > 0, count >= 1, beta >= 0],
        size * size + 8 * size * count * beta <= size * size + 12 * size * count * beta,
    )
    return argument.done()
