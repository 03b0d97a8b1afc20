"""Masking the rank dimension as well: what it adds to the sparsity of Bhat Ahat (T5)."""

from lora_bounds.proofs.masks import keep_vectors
from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Eq. 2, rank masks"


def prove() -> Proof:
    """Prove the sparsity with and without rank masks.

    Returns:
        The checked argument.
    """
    import sympy

    argument = Argument(
        "Factors with no accidental cancellation (every nonempty partial sum over components is "
        "nonzero). Rows and columns masked at rate p: an entry of Bhat Ahat is zero with "
        "probability q = 2p - p^2. With the r components masked too: q + (1-q) p^r. So rank masks "
        "add sparsity only on the event that all r components are dropped, (1-q) p^r: not "
        "nothing, as the paper has it, but vanishing fast in r."
    )
    p, r = sympy.symbols("p r", positive=True)
    q = 2 * p - p**2
    for rank in (1, 2, 3):
        zero: sympy.Expr = sympy.Integer(0)
        for (row, column), outer in keep_vectors(2, p):
            for components, inner in keep_vectors(rank, p):
                if not (row and column and any(components)):
                    zero += outer * inner
        argument.zero(
            f"r = {rank}: all {2 ** (rank + 2)} masks give q + (1-q) p^{rank}",
            zero - q - (1 - q) * p**rank,
        )
        alone = sum(prob for keep, prob in keep_vectors(rank, p) if not any(keep))
        argument.zero(f"r = {rank}: rank masks alone give p^{rank}", alone - p**rank)
    rate = sympy.Rational(1, 2)
    at_half = ((1 - q) * p**r).subs({p: rate, r: 8})
    argument.check(
        "p = 1/2, r = 8 (the paper's setting): 1/1024", at_half == sympy.Rational(1, 1024)
    )
    return argument.done()
