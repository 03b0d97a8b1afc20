"""Prop. 4.2 over p: the bound falls at fixed constants, the measured stability need not."""

from typing import Any

import numpy as np

from lora_bounds.bounds.stability import paper_stability
from lora_bounds.claims.one_parameter import exact_drop_probability, ridge, ridge_stability
from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import Sweep, counterexample, proof, sweep
from lora_bounds.trial.proof import Argument, Proof, require_z3
from lora_bounds.trial.search import Inequality, Problem


def prove_monotonicity() -> Proof:
    """Prove monotonicity of both bounds in p, n, delta, lambda, eta, Lmin and C."""
    z3 = require_z3()
    argument = Argument(
        "At fixed other constants and Lmin + 2 lambda q > 0, beta = 2 eta^2/((Lmin + 2 lambda q) "
        "n) and the gap term sqrt((C^2 + 24 C eta^2/(Lmin + 2 lambda q))/(2 n delta)) do not "
        "increase in p on [0, 1], in lambda >= 0, Lmin, n, delta, and do not decrease in eta and "
        "C. Measured constants change with p, so this is no statement about training."
    )
    p1, p2, lam, lam2, least, least2 = z3.Reals("p1 p2 lam lam2 least least2")
    d1, d2, x, y = z3.Reals("d1 d2 x y")

    def q(p: Any) -> Any:
        return 2 * p - p * p

    argument.implies("q rises on [0, 1]", [p1 >= 0, p1 <= p2, p2 <= 1], q(p1) <= q(p2))
    q1, q2 = z3.Reals("q1 q2")
    argument.implies(
        "Lmin + 2 lambda q rises in q, in lambda and in Lmin",
        [q1 >= 0, q1 <= q2, lam >= 0, lam <= lam2, least <= least2],
        z3.And(
            least + 2 * lam * q1 <= least + 2 * lam * q2,
            least + 2 * lam * q1 <= least + 2 * lam2 * q1,
            least + 2 * lam * q1 <= least2 + 2 * lam * q1,
        ),
    )
    top = z3.Real("top")
    argument.implies(
        "top/d falls in d > 0 for top >= 0 (beta in p, lambda, Lmin; x = top/d1, y = top/d2)",
        [top >= 0, d1 > 0, d1 <= d2, x * d1 == top, y * d2 == top],
        y <= x,
    )
    n1, n2 = z3.Reals("n1 n2")
    argument.implies(
        "beta falls in n (d = (Lmin + 2 lambda q) n)",
        [d1 > 0, n1 > 0, n1 <= n2],
        d1 * n1 <= d1 * n2,
    )
    eta1, eta2 = z3.Reals("eta1 eta2")
    argument.implies(
        "beta rises in eta", [eta1 >= 0, eta1 <= eta2, d1 > 0], 2 * eta1 * eta1 <= 2 * eta2 * eta2
    )
    c1, c2, b1, b2 = z3.Reals("c1 c2 b1 b2")
    argument.implies(
        "C^2 + 24 C b rises in C and in b = eta^2/(Lmin + 2 lambda q)",
        [c1 >= 0, c1 <= c2, b1 >= 0, b1 <= b2],
        c1 * c1 + 24 * c1 * b1 <= c2 * c2 + 24 * c2 * b2,
    )
    delta1, delta2 = z3.Reals("delta1 delta2")
    argument.implies(
        "2 n delta rises in n and in delta",
        [n1 > 0, n1 <= n2, delta1 > 0, delta1 <= delta2],
        2 * n1 * delta1 <= 2 * n2 * delta2,
    )
    argument.implies("the square root keeps the order", [x >= 0, y >= 0, x * x <= y * y], x <= y)
    beta, count, size, eta, denominator = z3.Reals("beta count size eta denominator")
    argument.implies(
        "Thm 4.4 is Lemma 4.3 at the beta of Prop. 4.2: 12 C n beta = 24 C eta^2/(Lmin + 2 lambda "
        "q)",
        [denominator > 0, count > 0, size >= 0, beta * (denominator * count) == 2 * eta * eta],
        12 * size * count * beta * denominator == 24 * size * eta * eta,
    )
    argument.argued(
        "n beta does not depend on n, so the gap term is exactly a constant over sqrt(n delta)"
    )
    return argument.done()


def paper_bound_over_p() -> Sweep:
    """Returns by how much Prop. 4.2 falls from one p to the next, all constants fixed."""
    p = np.linspace(0.0, 1.0, 201)
    lam, least = np.meshgrid(np.logspace(-4, 4, 17), [1e-6, 1e-2, 1.0, 100.0])
    values = paper_stability(
        n=100, lipschitz=1.0, curvature=least[..., None], regularization=lam[..., None], dropout=p
    ).value
    return Sweep("201 rates, lambda 1e-4 to 1e4, Lmin 1e-6 to 100", -np.diff(values, axis=-1))


def _stability_draw(rng: np.random.Generator) -> Problem:
    n = int(rng.integers(2, 6))
    x = rng.normal(0, 1, n)
    y = x * (1 + 0.1 * rng.normal(0, 1, n))
    return {
        "points": list(zip(x.tolist(), y.tolist(), strict=True)),
        "regularization": 10 ** rng.uniform(-2, 1),
        "p_low": rng.uniform(0.25, 0.5),
        "p_high": rng.uniform(0.5, 1),
    }


def stability_sides(problem: Problem) -> tuple[Any, Any]:
    """Measured stability of L_lambda at the high and at the low dropout rate."""
    high, low = (
        ridge_stability(
            problem["points"], problem["regularization"] * exact_drop_probability(p), penalised=True
        )
        for p in (problem["p_high"], problem["p_low"])
    )
    return high, low


def _stability_domain(problem: Problem) -> bool:
    points = problem["points"]
    # Low noise: y = x up to 20 %, but not exactly.
    noise = [abs(y - x) <= 0.2 * abs(x) for x, y in points]
    noisy = any(x != y for x, y in points)
    good = len(points) >= 2 and all(x != 0 for x, _ in points) and all(noise) and noisy
    # Both the penalised and the plain loss must show the rise, at least doubled: no near tie.
    lam, low, high = problem["regularization"], problem["p_low"], problem["p_high"]
    if not (good and lam > 0 and 0.25 <= low < high <= 1):
        return False
    plain = [
        ridge_stability(points, lam * exact_drop_probability(p), penalised=False)
        for p in (low, high)
    ]
    return bool(plain[1] > 2 * plain[0])


def replay_stability_rises(data: Data) -> Replay:
    """Replay stability at two rates, of the penalised and of the plain loss."""
    points, lam = data["points"], data["regularization"]
    values, steps = [], [f"points (x, y): {', '.join(f'({x}, {y})' for x, y in points)}"]
    for p in (data["p_low"], data["p_high"]):
        c = lam * exact_drop_probability(p)
        fits = [ridge([*points[:i], *points[i + 1 :]], c) for i in range(len(points))]
        value = ridge_stability(points, c, penalised=True)
        plain = ridge_stability(points, c, penalised=False)
        values.append((value, plain))
        steps.append(
            f"p = {p}: lambda q = {c}, theta(S) = {ridge(points, c)}, left out: "
            f"{', '.join(map(str, fits))}; stability of L_lambda {value}, of the plain loss {plain}"
        )
    (low, low_plain), (high, high_plain) = values
    return replayed(high, low, steps, bool(high > low and high_plain > low_plain))


STABILITY_RISES = counterexample(
    replay_stability_rises,
    hunt=Inequality(
        "stability-rises",
        "the measured pointwise hypothesis stability of ridge does not rise with p",
        _stability_draw,
        stability_sides,
        _stability_domain,
    ),
)


CLAIMS = (
    Claim(
        id="Prop 4.2, monotone",
        paper_item="Prop. 4.2, Thm 4.4, trend in p",
        statement="At fixed eta, Lmin, lambda, C and n both bounds fall as p grows.",
        assumptions=("the constants do not change with p; measured ones do",),
        evidence=(proof(prove_monotonicity), sweep(paper_bound_over_p)),
        recorded=Verdict.PROVED,
        formula="d beta / d p <= 0",
        functions=("bounds.stability.paper_stability",),
    ),
    Claim(
        id="Audit 8",
        paper_item="Prop. 4.2, measured trend in p",
        statement="The measured pointwise hypothesis stability falls as p grows.",
        assumptions=("ridge regression with one lambda",),
        evidence=(STABILITY_RISES,),
        recorded=Verdict.REFUTED,
        formula="beta(p) non-increasing",
        functions=("exact.ridge.leave_one_out",),
    ),
)
