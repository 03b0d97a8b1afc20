"""Entries of the mask of Bhat Ahat are dependent within a row or a column (Eq. 2)."""

from lora_bounds.proofs.masks import keep_vectors
from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Eq. 2, joint law"


def prove() -> Proof:
    """Prove the covariances of the mask entries and show a quantity where they matter.

    Returns:
        The checked argument.
    """
    import sympy

    argument = Argument(
        "Keep indicators b_i a_j of LoRA Dropout (k = 1-p): covariance p k^3 and correlation "
        "k/(1+k) for entries sharing a row or a column, 0 for entries sharing neither. The number "
        "of kept entries has mean n1 n2 k^2 and variance n1 n2 q(1-q) + n1 n2 (n1+n2-2) p k^3, "
        "against n1 n2 q(1-q) for independent entries."
    )
    p = sympy.Symbol("p")
    k, q = 1 - p, 2 * p - p**2
    rows, columns = 2, 3
    outcomes = [
        (row, col, row_p * col_p)
        for row, row_p in keep_vectors(rows, p)
        for col, col_p in keep_vectors(columns, p)
    ]

    def covariance(first: tuple[int, int], second: tuple[int, int]) -> sympy.Expr:
        both = sum(
            prob * row[first[0]] * col[first[1]] * row[second[0]] * col[second[1]]
            for row, col, prob in outcomes
        )
        return sympy.expand(both - k**4)

    argument.zero("same row: covariance p k^3", covariance((0, 0), (0, 1)) - p * k**3)
    argument.zero("same column: covariance p k^3", covariance((0, 0), (1, 0)) - p * k**3)
    argument.zero("neither: covariance 0", covariance((0, 0), (1, 1)))
    argument.zero("variance of one entry q(1-q)", covariance((0, 0), (0, 0)) - q * (1 - q))
    argument.zero("correlation p k^3 / (q(1-q)) = k/(1+k)", p * k**3 / (q * (1 - q)) - k / (1 + k))
    kept = [(sum(row) * sum(col), prob) for row, col, prob in outcomes]
    mean = sum(count * prob for count, prob in kept)
    variance = sum(count**2 * prob for count, prob in kept) - mean**2
    argument.zero("2 x 3: mean number of kept entries 6 k^2", mean - rows * columns * k**2)
    argument.zero(
        "2 x 3: its variance is 6 q(1-q) + 6 (2+3-2) p k^3, not 6 q(1-q)",
        variance - rows * columns * (q * (1 - q) + (rows + columns - 2) * p * k**3),
    )
    argument.argued(
        "any shape: each entry shares its row with n2-1 and its column with n1-1 others"
    )
    return argument.done()
