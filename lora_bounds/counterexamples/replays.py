"""How each stored counterexample is replayed: one function an id, exact arithmetic throughout."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

from lora_bounds.counterexamples import Replay
from lora_bounds.counterexamples.hunts import gap_sides, mask_free_sides, zero_one_sides
from lora_bounds.counterexamples.logistic import fit, require_flint
from lora_bounds.counterexamples.models import (
    drop_probability,
    ridge,
    ridge_gap,
    ridge_risk,
    ridge_stability,
)

Data = dict[str, Any]


def _result(lhs: Any, rhs: Any, steps: Sequence[str], refutes: bool | None = None) -> Replay:
    decided = bool(lhs > rhs) if refutes is None else refutes
    return Replay(decided, float(lhs), float(rhs), float(rhs) - float(lhs), tuple(steps))


def _prop_4_2(data: Data) -> Replay:
    flint = require_flint()
    margins, c, n = data["z"], Fraction(1, 10 ** data["exponent"]), len(data["z"])
    found = fit(margins, c)
    stability = sum(found.changes[1:], found.changes[0]) / n
    weight = flint.arb(flint.fmpq(c.numerator, c.denominator))
    bound = 2 * found.lipschitz**2 / ((found.curvature + 2 * weight) * n)
    steps = [
        f"l_i(t) = log(1 + exp(-z_i t)), z = {', '.join(map(str, margins))}, lambda q = {c}",
        f"theta(S) = {found.solution.str(8)}",
        *(
            f"without point {i + 1}: theta = {t.str(8)}, loss at that point changes by {d.str(8)}"
            for i, (t, d) in enumerate(zip(found.left_out, found.changes, strict=True))
        ),
        f"mean change (the stability of this sample) = {stability.str(8)}",
        f"Lmin = curvature at theta(S) = {found.curvature.str(8)}, eta <= {found.lipschitz.str(8)}",
        f"Prop. 4.2: 2 eta^2/((Lmin + 2 lambda q) n) = {bound.str(8)}",
        f"factor {(stability / bound).str(8)}; every digit shown is certain (ball arithmetic)",
    ]
    return _result(stability, bound, steps, bool(stability > 10 * bound))


def _parameters(data: Data) -> Replay:
    theta = data["theta"]
    mean_output = sum(t * t for t in theta) / len(theta)
    mean_loss = sum(abs(t) for t in theta) / len(theta)
    steps = [
        "output M(theta) = theta^2, loss(o) = sqrt(o): loss(M(theta)) = |theta| is convex in theta",
        f"members theta = {', '.join(map(str, theta))}; mean output {mean_output}",
        f"ensemble loss = sqrt({mean_output}), mean member loss = {mean_loss}",
        f"squares: {mean_output} > {mean_loss**2}",
    ]
    return _result(float(mean_output) ** 0.5, mean_loss, steps, bool(mean_output > mean_loss**2))


def _mask_free(data: Data) -> Replay:
    ensemble, plain = mask_free_sides(data)
    update, target, p = data["update"], data["target"], data["p"]
    kept = (1 - p) ** 2
    opposite = {"update": update, "target": kept * update, "p": p}
    better, worse = mask_free_sides(opposite)
    steps = [
        f"input 1, W0 = 0, BA = {update}, y = {target}, p = {p}; the masks keep an entry with "
        f"probability {kept}",
        f"E xy = {target}, E x^2 = 1: BA = {update} is the trained optimum "
        f"G (k Sigma + p diag Sigma)^-1 = {target / ((1 - p) + p)}",
        f"infinite ensemble: (1/2)({target} - {kept * update})^2 = {ensemble}",
        f"mask-free network: (1/2)({target} - {update})^2 = {plain}",
        f"no order the other way either: with y = {kept * update} the ensemble has {better}, the "
        f"mask-free network {worse}",
    ]
    return _result(ensemble, plain, steps, bool(ensemble > plain and better < worse))


def _zero_one(data: Data) -> Replay:
    ensemble, members = zero_one_sides(data)
    base, update, p = data["base"], data["update"], data["p"]
    kept = (1 - p) ** 2
    steps = [
        f"label +1, wrong when the output is negative; W0 x = {base}, BA x = {update}, p = {p}",
        f"a member keeps the update with probability {kept}: output {base + update}, else {base}",
        f"mean member error {members}",
        f"ensemble output {base + kept * update}, error {ensemble}",
    ]
    return _result(Fraction(ensemble), members, steps)


def _stability_rises(data: Data) -> Replay:
    points, lam = data["points"], data["regularization"]
    values, steps = [], [f"points (x, y): {', '.join(f'({x}, {y})' for x, y in points)}"]
    for p in (data["p_low"], data["p_high"]):
        c = lam * drop_probability(p)
        fits = [ridge([*points[:i], *points[i + 1 :]], c) for i in range(len(points))]
        value = ridge_stability(points, c, penalised=True)
        plain = ridge_stability(points, c, penalised=False)
        values.append((value, plain))
        steps.append(
            f"p = {p}: lambda q = {c}, theta(S) = {ridge(points, c)}, left out: "
            f"{', '.join(map(str, fits))}; stability of L_lambda {value}, of the plain loss {plain}"
        )
    (low, low_plain), (high, high_plain) = values
    return _result(high, low, steps, bool(high > low and high_plain > low_plain))


def _gap_turns_up(data: Data) -> Replay:
    gaps = [
        ridge_gap(data["atoms"], data["n"], data["regularization"] * drop_probability(p))
        for p in data["p"]
    ]
    atoms = ", ".join(f"({x}, {y})" for x, y in data["atoms"])
    steps = [
        f"n = {data['n']} draws from the equally likely points {atoms}, lambda = "
        f"{data['regularization']}; every sample enumerated",
        *(f"p = {p}: E[R - Rhat] = {gap}" for p, gap in zip(data["p"], gaps, strict=True)),
    ]
    high, middle = gap_sides(data)
    return _result(high, middle, steps, bool(gaps[0] > middle and high > middle))


def _degenerate(data: Data) -> Replay:
    update, p, lam, target = (data[key] for key in ("update", "p", "regularization", "target"))
    q = drop_probability(p)
    cost = q * update**2
    minimiser = target / (1 + 2 * lam * q)
    steps = [
        f"L(theta) = (1/2)(theta - {target})^2, theta0 = 0, p = {p}, q = {q}",
        f"Eq. 9 at dtheta = {update}: E norm(d*dtheta)^2 = q dtheta^2 = {cost}, not 0: infeasible",
        f"only dtheta = 0 is feasible, value L(0) = {target**2 / 2}",
        f"Eq. 11 with lambda = {lam}: its minimiser is dtheta = {minimiser}, not 0",
    ]
    return _result(cost, Fraction(0), steps, bool(cost > 0 and minimiser != 0))


def _full_dropout(data: Data) -> Replay:
    lam, target = data["regularization"], data["target"]
    minimiser = target / (1 + 2 * lam * drop_probability(Fraction(1)))
    steps = [
        f"L(theta) = (1/2)(theta - {target})^2, theta0 = 0, lambda = {lam}, p = 1 so q = 1",
        f"Eq. 11: (1/2)(t - {target})^2 + {lam} t^2 is smallest at t = {minimiser}",
        "no fine-tuning would mean t = 0",
    ]
    return _result(abs(minimiser), Fraction(0), steps)


def _pointwise_only(data: Data) -> Replay:
    atoms, n, delta = data["atoms"], data["n"], data["delta"]
    stability, bad, smallest = Fraction(0), 0, Fraction(1)
    for sample in product(range(atoms), repeat=n):
        seen = set(sample)  # even sample size: loss 0 on the sample, 1 elsewhere
        gap = Fraction(atoms - len(seen), atoms)  # the empirical risk is 0
        smallest = min(smallest, gap)
        # n - 1 is odd: A(S without z_i) has loss 0 everywhere, so |0 - 0| at z_i.
        stability += Fraction(sum(int(z not in seen) for z in sample), n)
        bad += gap**2 > Fraction(1) / (2 * n * delta)
    samples = atoms**n
    steps = [
        f"{atoms} equally likely points, n = {n}, loss in {{0, 1}}, C = 1, delta = {delta}",
        "algorithm: from a sample of even size return the hypothesis with loss 0 on the sample "
        "and 1 elsewhere; from a sample of odd size the one with loss 0 everywhere",
        f"pointwise hypothesis stability, all {samples} samples: {stability / samples}",
        f"R - Rhat >= {smallest} on every sample",
        f"Lemma 4.3 with beta = 0 allows sqrt(1/(2 n delta)) = sqrt({1 / (2 * n * delta)})",
        f"it fails on {bad} of {samples} samples; at most a fraction {delta} was allowed",
    ]
    lhs = Fraction(bad, samples)
    return _result(lhs, delta, steps, bool(stability == 0 and n % 2 == 0 and lhs > delta))


def _rank_masks(data: Data) -> Replay:
    p, rank = data["p"], data["rank"]
    zero = Fraction(0)
    for row, column, *components in product((0, 1), repeat=2 + rank):
        prob = Fraction(1)
        for bit in (row, column, *components):
            prob *= (1 - p) if bit else p
        # Entry = row * column * (number of kept components): all terms 1, no cancellation.
        zero += prob if row * column * sum(components) == 0 else 0
    q = drop_probability(p)
    steps = [
        f"rank {rank}, every a_j = b_j = 1, p = {p}: without rank masks an entry is 0 with "
        f"probability {q}",
        f"with the rank dimension masked as well: {zero} (all {2 ** (2 + rank)} masks summed)",
    ]
    return _result(zero, q, steps)


def _correlated(data: Data) -> Replay:
    p, update, s = data["p"], data["mean_update"], data["sigma"]
    k, q = 1 - p, drop_probability(p)
    full = sum(update[i] * s[i][j] * update[j] for i, j in product(range(len(update)), repeat=2))
    own = sum(e * e * s[i][i] for i, e in enumerate(update))
    lora = p / k * full + p / k**2 * own
    dropout = q / (1 - q) * own
    steps = [
        f"one output, mean update E = ({', '.join(map(str, update))}), p = {p}, q = {q}",
        f"E Sigma E^T = {full}, E diag(Sigma) E^T = {own}",
        f"LoRA Dropout at p: V = (p/k) {full} + (p/k^2) {own} = {lora}",
        f"dropout with 1/(1-q) at q: V = (q/(1-q)) {own} = {dropout}",
    ]
    return _result(lora, dropout, steps)


def _not_u_shaped(data: Data) -> Replay:
    risks = [
        ridge_risk(data["atoms"], data["n"], data["regularization"] * drop_probability(p))
        for p in data["p"]
    ]
    atoms = ", ".join(f"({x}, {y})" for x, y in data["atoms"])
    steps = [
        f"n = {data['n']} draws from the equally likely points {atoms} (no noise: y = x), lambda = "
        f"{data['regularization']}; every sample enumerated",
        *(f"p = {p}: E[R] = {risk}" for p, risk in zip(data["p"], risks, strict=True)),
        "training without dropout already has the least test risk",
    ]
    rises = all(before < after for before, after in pairwise(risks))
    return _result(risks[1], risks[0], steps, data["p"][0] == 0 and rises)


REPLAYS: dict[str, Callable[[Data], Replay]] = {
    "prop-4-2-logistic": _prop_4_2,
    "a3-parameters": _parameters,
    "ensemble-vs-mask-free": _mask_free,
    "ensemble-zero-one": _zero_one,
    "stability-rises": _stability_rises,
    "gap-turns-up": _gap_turns_up,
    "test-risk-not-u-shaped": _not_u_shaped,
    "eq-9-degenerate": _degenerate,
    "full-dropout-limit": _full_dropout,
    "lemma-4-3-pointwise-only": _pointwise_only,
    "rank-masks-add-sparsity": _rank_masks,
    "dropout-correlated-inputs": _correlated,
}
