"""Eqs. 9 and 10 are degenerate: their only solution is the pre-trained weight."""

from lora_bounds.proofs.masks import keep_vectors
from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Eq. 9"


def prove() -> Proof:
    """Prove that for p > 0 the constraint of Eq. 9 leaves only dtheta = 0, so Eq. 10 = L(theta0).

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "For 0 < p <= 1 and q = 2p - p^2: E_d norm(d*dtheta)^2 = q norm(dtheta)^2; hence the only "
        "feasible point of Eq. 9 is dtheta = 0, and min_dtheta max_{lambda>=0} of Eq. 10 is "
        "L(theta0). Eq. 11 (one fixed finite lambda) is therefore a surrogate, not a consequence."
    )
    p = sympy.Symbol("p")
    delta = sympy.Matrix(2, 3, lambda i, j: sympy.Symbol(f"t{i}{j}"))
    dropped = sum(
        prob_r * prob_c * (1 - row[i] * col[j]) * delta[i, j] ** 2
        for row, prob_r in keep_vectors(2, p)
        for col, prob_c in keep_vectors(3, p)
        for i in range(2)
        for j in range(3)
    )
    argument.zero(
        "E_d norm(d*dtheta)^2 = (2p - p^2) norm(dtheta)^2 for a 2 x 3 update, all 32 masks summed",
        dropped - (2 * p - p**2) * sum(t**2 for t in delta),
    )
    argument.argued(
        "any shape: d is 0/1, so the expectation is the sum of P(d_ij = 1) dtheta_ij^2, and "
        "P(d_ij = 1) involves the mask of row i and of column j only"
    )
    q, rate, s, t, s_next = z3.Reals("q rate s t s_next")
    argument.implies(
        "p in (0, 1] gives q > 0", [rate > 0, rate <= 1, q == 2 * rate - rate * rate], q > 0
    )
    argument.implies(
        "induction on the number of entries: s_next = s + t^2, s >= 0 and q s_next = 0 "
        "force t = 0 and s = 0",
        [q > 0, s >= 0, s_next == s + t * t, q * s_next == 0],
        z3.And(t == 0, s == 0),
    )
    penalty, bound, loss, lam = z3.Reals("penalty bound loss lam")
    argument.implies(
        "if the penalty is positive, the maximum over lambda of Eq. 10 exceeds every bound "
        "(take lambda = (bound - loss)/penalty + 1)",
        [penalty > 0, bound > loss, lam * penalty == bound - loss + penalty],
        z3.And(lam > 0, loss + lam * penalty > bound),
    )
    argument.argued("so Eq. 10 is +infinity off dtheta = 0 and L(theta0) there")
    return argument.done()
