"""The generalization gap is signed replace-one stability (Bousquet and Elisseeff 2002, Lemma 7)."""

from itertools import product

from lora_bounds.trial.proof import Argument, Proof

CLAIM = "Bousquet-Elisseeff 2002, Lemma 7"


def prove() -> Proof:
    """Prove E[R - Rhat] = E[l(z_i; A(S^{i<-z'})) - l(z_i; A(S))].

    Returns:
        The checked argument.
    """
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
