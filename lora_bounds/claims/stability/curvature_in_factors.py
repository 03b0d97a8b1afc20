"""Lmin of Prop. 4.2 in (A, B): the Hessian has flat directions, so it is at most 0."""

from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import proof
from lora_bounds.trial.proof import Argument, Proof, require_z3


def prove_gauge() -> Proof:
    """Prove that at a stationary point of a loss of BA the least Hessian eigenvalue is <= 0."""
    import sympy

    z3 = require_z3()
    argument = Argument(
        "f(B, A) = l(BA), l twice differentiable (masks on rows and columns included: they are "
        "part of l). At a stationary point the Hessian quadratic form vanishes on (BX, -XA) for "
        "every r x r matrix X. If B or A is not zero, some such direction is not zero, and Lmin "
        "<= 0. Only the penalty keeps the denominator of Eq. 13 positive in this parametrisation."
    )
    n1, rank, n2 = 2, 2, 2
    b = sympy.Matrix(n1, rank, lambda i, j: sympy.Symbol(f"b{i}{j}"))
    a = sympy.Matrix(rank, n2, lambda i, j: sympy.Symbol(f"a{i}{j}"))
    x = sympy.Matrix(rank, rank, lambda i, j: sympy.Symbol(f"x{i}{j}"))
    slope = sympy.Matrix(n1, n2, lambda i, j: sympy.Symbol(f"g{i}{j}"))
    curvature = sympy.Matrix(4, 4, lambda i, j: sympy.Symbol(f"q{min(i, j)}{max(i, j)}"))
    t = sympy.Symbol("t")
    direction_b, direction_a = b * x, -x * a
    moved = ((b + t * direction_b) * (a + t * direction_a) - b * a).applyfunc(sympy.expand)
    argument.zero(
        "(B + tBX)(A - tXA) - BA has no term of order t: its derivative at 0 vanishes",
        moved.diff(t).subs(t, 0),
    )
    argument.zero("... and its second-order term is -B X X A", moved + t**2 * b * x * x * a)
    vector = sympy.Matrix(list(moved))
    # l to second order around BA: slope and curvature are free symbols.
    along = (slope.T * moved).trace() + (vector.T * curvature * vector)[0] / 2
    second = along.diff(t, 2).subs(t, 0)
    argument.zero(
        "v^T H v = -2 tr((B^T slope)^T X X A): no curvature of l enters",
        second + 2 * ((b.T * slope).T * x * x * a).trace(),
    )
    argument.argued("stationarity in A is B^T slope = 0, so v^T H v = 0")
    form, norm2, least = z3.Reals("form norm2 least")
    argument.implies(
        "least * norm(v)^2 <= v^T H v = 0 with v != 0 gives least <= 0",
        [form == 0, norm2 > 0, least * norm2 <= form],
        least <= 0,
    )
    argument.zero(
        "X = I gives the direction (B, -A), which is not zero unless A = B = 0",
        (direction_b.subs({x[0, 0]: 1, x[1, 1]: 1, x[0, 1]: 0, x[1, 0]: 0}) - b),
    )
    argument.zero("(BG)(G^-1 A) = BA for every invertible G", (b * x) * (x.inv() * a) - b * a)
    return argument.done()


CLAIMS = (
    Claim(
        id="Audit 6",
        paper_item="Prop. 4.2, Lmin in (A, B)",
        statement=(
            "At a stationary point of the unregularised loss in (A, B) the Hessian has flat "
            "directions (BX, -XA), so Lmin <= 0 there: only lambda q keeps the bound finite."
        ),
        assumptions=("A or B is not zero",),
        evidence=(proof(prove_gauge),),
        recorded=Verdict.PROVED,
        formula="B -> B G, A -> G^-1 A leaves B A alone",
        functions=("bounds.stability.paper_stability",),
    ),
)
