"""Eq. 11: the expected penalty is lambda q norm(theta - theta0)^2, from marginals alone."""

from lora_bounds.proofs.masks import keep_vectors
from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Eq. 11"


def prove() -> Proof:
    """Prove the last step of Eq. 11 and that dependence between entries cannot change it.

    Returns:
        The checked argument.
    """
    import sympy

    argument = Argument(
        "With rows of B and columns of A masked at rate p, an entry of the update is dropped with "
        "probability q = 1 - (1-p)^2 = 2p - p^2, and L + lambda E_d norm(d*(theta-theta0))^2 = "
        "L + lambda q norm(theta-theta0)^2, whatever the joint law of d."
    )
    p, lam = sympy.symbols("p lambda")
    q = 2 * p - p**2
    dropped = sum(
        row_p * col_p * (1 - row[0] * col[0])
        for row, row_p in keep_vectors(1, p)
        for col, col_p in keep_vectors(1, p)
    )
    argument.zero("P(d = 1) = 1 - (1-p)^2 = 2p - p^2, the 4 outcomes summed", dropped - q)
    argument.zero("1 - (1-p)^2 = 2p - p^2", 1 - (1 - p) ** 2 - q)
    joint = sympy.symbols("j00 j01 j10 j11")  # any joint law of two entries d1, d2
    t1, t2 = sympy.symbols("t1 t2")
    expected = sum(
        prob * (d1 * t1**2 + d2 * t2**2)
        for prob, (d1, d2) in zip(joint, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True)
    )
    marginal_1, marginal_2 = joint[2] + joint[3], joint[1] + joint[3]
    argument.zero(
        "for two entries with an arbitrary joint law the penalty is P(d1) t1^2 + P(d2) t2^2",
        expected - marginal_1 * t1**2 - marginal_2 * t2**2,
    )
    argument.zero(
        "with both marginals q: lambda E norm(d*t)^2 = lambda q norm(t)^2",
        (lam * expected - lam * q * (t1**2 + t2**2)).subs(
            {joint[2]: q - joint[3], joint[1]: q - joint[3]}
        ),
    )
    argument.argued("more entries: the penalty is a sum over entries, expectation is linear")
    argument.check("q(0) = 0 and q(1) = 1", q.subs(p, 0) == 0 and q.subs(p, 1) == 1)
    return argument.done()
