"""Thm 4.5 for a loss convex in the output: the ensemble is no worse than the mean member."""

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Thm 4.5"


def prove() -> Proof:
    """Prove Thm 4.5 by induction over the members, and the convexity of the usual losses.

    Returns:
        The checked argument.
    """
    import sympy

    z3 = require_z3()
    argument = Argument(
        "If the loss is convex in the final output, the loss of a weighted mean of members is at "
        "most the weighted mean of their losses, for any number of members and weights, hence in "
        "expectation over the data: the ensemble is no worse than the mean member. Squared, "
        "logistic and softmax cross-entropy loss (averaging logits) and -log p (averaging "
        "probabilities) are convex."
    )
    t, loss_mix, loss_mean, loss_new, average = z3.Reals("t loss_mix loss_mean loss_new average")
    argument.implies(
        "induction: loss(mean of first) <= average of first losses (H) and convexity at weight t "
        "of the new member: loss((1-t) mean + t new) <= (1-t) average + t loss(new)",
        [t >= 0, t <= 1, loss_mean <= average, loss_mix <= (1 - t) * loss_mean + t * loss_new],
        loss_mix <= (1 - t) * average + t * loss_new,
    )
    n = sympy.Symbol("N", positive=True)
    head, new = sympy.symbols("head new")
    argument.zero(
        "N + 1 equal weights are t = 1/(N+1) of this kind: (N head + new)/(N+1)",
        (n * head + new) / (n + 1) - (1 - 1 / (n + 1)) * head - new / (n + 1),
    )
    weight, ens1, ens2, mean1, mean2 = z3.Reals("weight ens1 ens2 mean1 mean2")
    argument.implies(
        "expectation over two data points of any weight keeps the order",
        [weight >= 0, weight <= 1, ens1 <= mean1, ens2 <= mean2],
        weight * ens1 + (1 - weight) * ens2 <= weight * mean1 + (1 - weight) * mean2,
    )
    o, y = sympy.symbols("o y", real=True)
    argument.check("squared loss: second derivative 1 > 0", sympy.diff((y - o) ** 2 / 2, o, 2) == 1)
    e = sympy.Symbol("e", positive=True)  # exp(-o)
    logistic = sympy.diff(sympy.log(1 + sympy.exp(-o)), o, 2)
    argument.zero(
        "logistic loss: second derivative e/(1+e)^2 with e = exp(-o)",
        logistic.subs(sympy.exp(-o), e).rewrite(sympy.exp).subs(sympy.exp(-o), e)
        - e / (1 + e) ** 2,
    )
    argument.check("which is positive", bool((e / (1 + e) ** 2).is_positive))
    weights = sympy.symbols("p0:3")
    v = sympy.symbols("v0:3")
    softmax_form = sum(p * x**2 for p, x in zip(weights, v, strict=True))
    softmax_form -= sum(p * x for p, x in zip(weights, v, strict=True)) ** 2
    pairs = sum(
        weights[i] * weights[j] * (v[i] - v[j]) ** 2 for i in range(3) for j in range(i + 1, 3)
    )
    last = {weights[2]: 1 - weights[0] - weights[1]}
    argument.zero(
        "cross-entropy in the logits: v^T(diag p - p p^T)v = sum_{i<j} p_i p_j (v_i - v_j)^2 >= 0",
        (softmax_form - pairs).subs(last),
    )
    prob = sympy.Symbol("prob", positive=True)
    argument.check(
        "cross-entropy in the probabilities: (-log p)'' = 1/p^2 > 0",
        sympy.diff(-sympy.log(prob), prob, 2) == 1 / prob**2,
    )
    argument.argued(
        "general mask laws: at most countably many masks; any law: supporting hyperplane"
    )
    return argument.done()
