"""Bousquet and Elisseeff, Lemma 7: the expected gap is signed replace-one stability."""

from itertools import product

import numpy as np

from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, agreement, proof, sweep
from lora_bounds.trial.proof import Argument, Proof


def prove_replace_one() -> Proof:
    """Prove E[R - Rhat] = E[l(z_i; A(S^{i<-z'})) - l(z_i; A(S))]."""
    import sympy

    argument = Argument(
        "S of n iid points, z' one more, A a deterministic algorithm that ignores the order of S: "
        "E[R(A(S)) - Rhat(A(S))] = E[l(z_i; A(S with z_i replaced by z')) - l(z_i; A(S))] for "
        "every i. Without symmetry in the order it holds for the average over i."
    )
    for atoms, size in ((2, 2), (3, 2), (2, 3)):
        weights = sympy.symbols(f"w0:{atoms}")

        def loss(sample: tuple[int, ...], point: int) -> sympy.Symbol:
            # One free symbol for every (ordered sample, point): no assumption on the algorithm.
            return sympy.Symbol("l_" + "".join(map(str, sample)) + f"_{point}")

        gap: sympy.Expr = sympy.Integer(0)
        replaced: sympy.Expr = sympy.Integer(0)
        for draw in product(range(atoms), repeat=size + 1):
            sample, fresh = draw[:-1], draw[-1]
            probability = sympy.prod([weights[z] for z in draw])
            for i, z in enumerate(sample):
                swapped = (*sample[:i], fresh, *sample[i + 1 :])
                gap += probability * (loss(sample, fresh) - loss(sample, z)) / size
                replaced += probability * (loss(swapped, z) - loss(sample, z)) / size
        argument.zero(
            f"{atoms} atoms, n = {size}, free weights, a free loss for each ordered sample and "
            f"point",
            gap - replaced,
        )
    argument.argued(
        "any space: z_i and z' are exchangeable, so E l(z_i; A(S^{i<-z'})) = E l(z'; A(S)) = E R"
    )
    return argument.done()


def replace_one_identity() -> Sweep:
    """Returns the mean gap against signed replace-one stability, all samples of a ridge problem."""
    atoms = ((1.0, 1.0), (2.0, 1.0), (-1.0, 0.5))
    slacks = []
    for c, n in product((0.1, 1.0), (2, 3)):

        def fit(sample: tuple[tuple[float, float], ...], c: float = c) -> float:
            squares = sum(x * x for x, _ in sample)
            return sum(x * y for x, y in sample) / (squares + 2 * c * len(sample))

        def loss(z: tuple[float, float], t: float) -> float:
            return (z[1] - z[0] * t) ** 2 / 2

        gap = change = 0.0
        for sample in product(atoms, repeat=n):
            t = fit(sample)
            gap += float(
                np.mean([loss(z, t) for z in atoms]) - np.mean([loss(z, t) for z in sample])
            )
            moved = [loss(sample[0], fit((z, *sample[1:]))) for z in atoms]
            change += float(np.mean(moved)) - loss(sample[0], t)
        slacks.append(agreement(gap / 3**n, change / 3**n, ALGEBRA))
    return Sweep("three atoms, n 2 and 3, two penalties, all samples", slacks)


CLAIMS = (
    Claim(
        id="Gap is replace-one stability",
        paper_item="Bousquet and Elisseeff 2002 Lemma 7",
        statement="The expected gap is the expected signed change when one example is replaced.",
        assumptions=("i.i.d. sample", "symmetric algorithm"),
        evidence=(proof(prove_replace_one), sweep(replace_one_identity)),
        recorded=Verdict.PROVED,
        formula="E[R - Rhat] = E[l(z_i; A(S^(i<-z'))) - l(z_i; A(S))]",
    ),
)
