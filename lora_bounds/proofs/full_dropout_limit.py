"""The remark that p -> 1 means no fine-tuning contradicts Eq. 11."""

from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Remark p -> 1"


def prove() -> Proof:
    """Prove that Eq. 11 stays finite as p -> 1 while the exact regulariser diverges.

    Returns:
        The checked argument.
    """
    import sympy

    argument = Argument(
        "As p -> 1 the penalty of Eq. 11 tends to lambda norm(dtheta)^2, finite: for a quadratic "
        "loss with its minimum off theta0 the minimiser of L_lambda does not tend to theta0. The "
        "exact induced regulariser q/(1-q) diverges, and the mean update of its minimiser tends "
        "to 0."
    )
    p = sympy.Symbol("p", positive=True)
    lam, curvature, target, delta, s = sympy.symbols("lambda h c delta s", positive=True)
    q, k = 2 * p - p**2, 1 - p
    penalty = lam * q * delta**2
    argument.zero("limit of the penalty of Eq. 11", sympy.limit(penalty, p, 1) - lam * delta**2)
    objective = curvature * (delta - target) ** 2 / 2 + penalty
    minimiser = sympy.solve(objective.diff(delta), delta)[0]
    argument.zero(
        "minimiser of (h/2)(dtheta - c)^2 + lambda q dtheta^2 is h c/(h + 2 lambda q)",
        minimiser - curvature * target / (curvature + 2 * lam * q),
    )
    limit = sympy.limit(minimiser, p, 1)
    argument.zero(
        "its limit is h c/(h + 2 lambda)", limit - curvature * target / (curvature + 2 * lam)
    )
    argument.check("which is positive: fine-tuning goes on at p = 1", bool(limit.is_positive))
    argument.check(
        "q/(1-q) -> infinity as p -> 1", sympy.limit(q / (1 - q), p, 1, dir="-") == sympy.oo
    )
    cross = sympy.Symbol("g")
    one = cross / (s**2 / k + p / k**2 * s**2)  # E = G M^-1 for one input
    argument.zero(
        "mean update at the exact minimum, one input, is k^2 g/s^2", one - k**2 * cross / s**2
    )
    argument.check("it tends to 0 as p -> 1", sympy.limit(one, p, 1) == 0)
    return argument.done()
