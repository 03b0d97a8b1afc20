"""Squared loss of a finite ensemble: loss of the infinite one plus V/N (Eq. 8)."""

from itertools import product

from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Eq. 8, squared loss, V/N"


def prove() -> Proof:
    """Prove E norm(y - mean of N members)^2 = norm(y - mean)^2 + V/N.

    Returns:
        The checked argument.
    """
    import sympy

    argument = Argument(
        "N independent members with mean mu and variance V = E norm(member - mu)^2, loss "
        "norm(y - output)^2: expected loss of their average = norm(y - mu)^2 + V/N (for the loss "
        "(1/2) norm^2 the excess is V/(2N)). With equal pair covariance c instead of independence: "
        "V/N + (1 - 1/N) c."
    )
    y, weight, first, second = sympy.symbols("y w o1 o2")
    law = ((first, weight), (second, 1 - weight))
    mean = sum(prob * value for value, prob in law)
    variance = sum(prob * (value - mean) ** 2 for value, prob in law)
    for size in (1, 2, 3):
        expected = sum(
            sympy.prod([prob for _, prob in members])
            * (y - sum(value for value, _ in members) / sympy.Integer(size)) ** 2
            for members in product(law, repeat=size)
        )
        argument.zero(
            f"N = {size}: any two-point law, all {2**size} ensembles summed",
            expected - (y - mean) ** 2 - variance / size,
        )
    n, v, c = sympy.symbols("N V c")
    argument.zero(
        "any N: N members of variance V and N(N-1) ordered pairs of covariance c over N^2",
        (n * v + n * (n - 1) * c) / n**2 - v / n - (1 - 1 / n) * c,
    )
    argument.argued("independent members: c = 0; vectors: add the coordinates; E(y - avg) = y - mu")
    return argument.done()
