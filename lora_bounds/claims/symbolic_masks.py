"""Mask laws enumerated symbolically: the shared ground of the proofs about masks (Eq. 2)."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from lora_bounds.bounds.laws import MASK_LAWS, LawName
from lora_bounds.domains import Words


def keep_vectors(size: int, dropout: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """All 0/1 vectors of independent entries that are 1 with probability 1 - dropout."""
    for bits in product((0, 1), repeat=size):
        probability: Any = 1
        for bit in bits:
            probability *= (1 - dropout) if bit else dropout
        yield bits, probability


def symbolic_updates(law: LawName, b: Any, a: Any, dropout: Any) -> Iterator[tuple[Any, Any]]:
    """All values of the masked update and their probabilities."""
    import sympy

    Words(*MASK_LAWS)("law", law)
    rows, rank, columns = b.rows, b.cols, a.cols
    if law == "row_column":
        for keep_b, prob_b in keep_vectors(rows, dropout):
            for keep_a, prob_a in keep_vectors(columns, dropout):
                yield sympy.diag(*keep_b) * b * a * sympy.diag(*keep_a), prob_b * prob_a
    elif law == "activation":
        for keep, prob in keep_vectors(columns, dropout):
            yield b * a * sympy.diag(*keep) / (1 - dropout), prob
    elif law == "rank":
        for keep, prob in keep_vectors(rank, dropout):
            yield b * sympy.diag(*keep) * a, prob
    elif law == "entrywise":
        full = b * a
        for keep, prob in keep_vectors(rows * columns, dropout):
            yield full.multiply_elementwise(sympy.Matrix(rows, columns, keep)), prob
    else:
        yield b * a, sympy.Integer(1)


def symbolic_moments(law: LawName, b: Any, a: Any, sigma: Any, dropout: Any) -> tuple[Any, Any]:
    """Mean update and E norm(hhat - E hhat)^2 by summing over every mask."""
    import sympy

    outcomes = list(symbolic_updates(law, b, a, dropout))
    mean = sympy.zeros(b.rows, a.cols)
    second: Any = 0
    for update, probability in outcomes:
        mean += probability * update
        second += probability * (update * sigma * update.T).trace()
    mean = mean.applyfunc(sympy.expand) if law != "activation" else mean.applyfunc(sympy.cancel)
    return mean, second - (mean * sigma * mean.T).trace()


def generic_layer(rows: int, rank: int, columns: int) -> tuple[Any, Any, Any, Any]:
    """A symbolic layer of a given shape."""
    import sympy

    b = sympy.Matrix(rows, rank, lambda i, j: sympy.Symbol(f"b{i}{j}"))
    a = sympy.Matrix(rank, columns, lambda i, j: sympy.Symbol(f"a{i}{j}"))
    sigma = sympy.Matrix(columns, columns, lambda i, j: sympy.Symbol(f"s{min(i, j)}{max(i, j)}"))
    return b, a, sigma, sympy.Symbol("p")


def diagonal(matrix: Any) -> Any:
    """diag(M): a square matrix with everything off the diagonal set to zero."""
    import sympy

    return sympy.diag(*[matrix[i, i] for i in range(matrix.rows)])
