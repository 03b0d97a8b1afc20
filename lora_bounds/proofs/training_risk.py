"""Training risk rises with p and the update shrinks (T3, first half), for minimisers of Eq. 11."""

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "T3, training risk"


def prove() -> Proof:
    """Prove that the training risk at the minimum of Eq. 11 does not fall with p.

    Returns:
        The checked argument.
    """
    z3 = require_z3()
    argument = Argument(
        "At a fixed lambda >= 0, whatever the loss: if theta_1, theta_2 are global minimisers of "
        "Eq. 11 at p_1 < p_2, lambda > 0, then L(theta_1) <= L(theta_2) and norm(theta_1 - "
        "theta0) >= norm(theta_2 - theta0). This is the first half of T3. A U-shaped test risk "
        "does not follow."
    )
    p1, p2, c1, c2, lam = z3.Reals("p1 p2 c1 c2 lam")
    argument.implies(
        "p_1 < p_2 in [0, 1] and lambda > 0 give c_1 < c_2 for c = lambda (2p - p^2)",
        [
            p1 >= 0,
            p1 < p2,
            p2 <= 1,
            lam > 0,
            c1 == lam * (2 * p1 - p1 * p1),
            c2 == lam * (2 * p2 - p2 * p2),
        ],
        c1 < c2,
    )
    l1, l2, r1, r2 = z3.Reals("l1 l2 r1 r2")
    optimal = [c1 >= 0, c1 < c2, l1 + c1 * r1 <= l2 + c1 * r2, l2 + c2 * r2 <= l1 + c2 * r1]
    argument.implies("both minimal: the squared norm does not grow", optimal, r2 <= r1)
    argument.implies(
        "both minimal, and the norms so ordered: the training risk does not fall",
        [*optimal, r2 <= r1],
        l1 <= l2,
    )
    return argument.done()
