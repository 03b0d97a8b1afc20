"""The expected loss of an N-member ensemble does not increase with N (Eq. 8, convex loss)."""

from itertools import combinations

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Eq. 8, monotone in N"


def prove() -> Proof:
    """Prove that one more exchangeable member never raises the expected convex loss.

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "Members exchangeable, loss convex in the output: E loss(average of N+1) <= E "
        "loss(average of N) for every N >= 1. Exchangeability is needed: members of different "
        "quality can make it rise."
    )
    for size in (1, 2, 3, 4):
        members = sympy.symbols(f"o0:{size + 1}")
        leave_one_out = [
            sum(subset) / sympy.Integer(size) for subset in combinations(members, size)
        ]
        argument.zero(
            f"N = {size}: the average of {size + 1} is the mean of its leave-one-out averages",
            sum(members) / sympy.Integer(size + 1) - sum(leave_one_out) / sympy.Integer(size + 1),
        )
    n = sympy.Symbol("N", positive=True)
    argument.zero(
        "any N: each member is in N of the N+1 averages with weight 1/N, N/(N (N+1)) = 1/(N+1)",
        n / (n * (n + 1)) - 1 / (n + 1),
    )
    count, expected_next, expected, total = z3.Reals("count expected_next expected total")
    argument.implies(
        "Jensen over the leave-one-out averages, each of the same expected loss (exchangeable): "
        "E loss(N+1) <= (1/(N+1)) (N+1) E loss(N)",
        [count >= 2, count * expected_next <= total, total == count * expected],
        expected_next <= expected,
    )
    variance, first, second = z3.Reals("variance first second")
    argument.implies(
        "squared loss: V/(N+1) <= V/N",
        [variance >= 0, count >= 1, first * count == variance, second * (count + 1) == variance],
        second <= first,
    )
    return argument.done()
