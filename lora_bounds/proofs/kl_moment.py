"""The price ln(2 sqrt n) of the PAC-Bayes kl bound (Maurer 2004), exact for small n."""

from fractions import Fraction
from math import comb

from lora_bounds.trial.proof import Argument, Proof

CLAIM = "PAC-Bayes kl, price of the logarithm"
LARGEST = 120


def moment(n: int) -> Fraction:
    """E exp(n kl(Rhat || R)) for n Bernoulli(R) losses; the same for every R in (0, 1).

    Args:
        n: Sample size.

    Returns:
        sum_k C(n, k) (k/n)^k (1 - k/n)^(n-k), exact.
    """
    terms = (comb(n, k) * k**k * (n - k) ** (n - k) for k in range(n + 1))
    return Fraction(sum(terms), n**n)


def prove() -> Proof:
    """Prove E exp(n kl(Rhat || R)) <= 2 sqrt(n) where the literature's proof does not reach.

    Returns:
        The checked argument.
    """
    import sympy

    argument = Argument(
        "For n iid losses in {0, 1} with mean R in (0, 1): E exp(n kl(Rhat || R)) = "
        "sum_k C(n,k) (k/n)^k (1-k/n)^(n-k), and this is at most 2 sqrt(n): checked exactly for "
        f"n <= {LARGEST}; for n >= 8 it is Maurer 2004 (arXiv cs/0411099), who does not treat "
        "n < 8. Without the logarithm the two-sided bound is false already at n = 1."
    )
    r = sympy.Symbol("R", positive=True)
    for n in (1, 2, 3):
        total = sum(
            sympy.binomial(n, k)
            * r**k
            * (1 - r) ** (n - k)
            * (sympy.Rational(k, n) / r) ** k
            * (sympy.Rational(n - k, n) / (1 - r)) ** (n - k)
            for k in range(n + 1)
        )
        exact = moment(n)
        argument.zero(
            f"n = {n}: R cancels, the moment is {exact}",
            total - sympy.Rational(exact.numerator, exact.denominator),
        )
    argument.check(
        f"moment^2 <= 4 n for every n from 1 to {LARGEST}",
        all(moment(n) ** 2 <= 4 * n for n in range(1, LARGEST + 1)),
        engine="fractions",
    )
    argument.check(
        "equality at n = 1: the constant 2 cannot be lowered", moment(1) == 2, engine="fractions"
    )
    argument.argued(
        "losses in [0, 1]: convexity in each loss (Maurer 2004, Lemma 3); then Donsker-Varadhan, "
        "Jensen for the jointly convex kl, and Markov at level delta"
    )
    return argument.done()
