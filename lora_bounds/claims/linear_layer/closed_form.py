"""The minimiser of a linear layer in closed form, and the raw update B A at it."""

from typing import Any

import numpy as np

from lora_bounds.claims.linear_layer.layers_by_enumeration import (
    draw_layer,
    layer_objective,
    layer_ok,
    random_layer,
)
from lora_bounds.claims.symbolic_masks import diagonal
from lora_bounds.exact.linear import QuadraticLaw, effective_moment, minimizer, trained_update
from lora_bounds.rounding import Array
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Sides, pair
from lora_bounds.trial.evidence import ALGEBRA, QUADRATURE, Sweep, agreement, proof, sweep, unseen
from lora_bounds.trial.proof import Argument, Proof, require_z3
from lora_bounds.trial.search import Problem


def prove_minimizer() -> Proof:
    """Prove E = G M^-1 (full rank) and E = [G M^(-1/2)]_r M^(-1/2) (rank r), both global."""
    import sympy

    z3 = require_z3()
    argument = Argument(
        "M = Sigma/k + (p/k^2) diag(Sigma) positive definite, G = E[(y - W0 x)x^T], 0 <= p < 1. "
        "The objective equals const + (1/2) norm(E R - G R^-1)_F^2 with R = M^(1/2), hence the "
        "global minimum over all E is G M^-1, over rank <= r it is [G M^(-1/2)]_r M^(-1/2) "
        "(Eckart-Young), and over factors (B, A) it is the same since BA ranges over all updates "
        "of rank <= r."
    )
    p = sympy.Symbol("p")
    k = 1 - p
    r = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"r{min(i, j)}{max(i, j)}"))
    e = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"e{i}{j}"))
    g = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"g{i}{j}"))
    sigma = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"s{min(i, j)}{max(i, j)}"))
    m = sigma / k + p / k**2 * diagonal(sigma)
    quadratic = (e * sigma * e.T).trace() / 2 - (g * e.T).trace()
    penalty = (
        p / k * (e * sigma * e.T).trace() + p / k**2 * (e * diagonal(sigma) * e.T).trace()
    ) / 2
    argument.zero(
        "risk + induced regulariser = (1/2) tr(E M E^T) - tr(G E^T) + const",
        quadratic + penalty - (e * m * e.T).trace() / 2 + (g * e.T).trace(),
    )
    residual = e * r - g * r.inv()
    argument.zero(
        "completing the square with M = R^2, R symmetric: (1/2) norm(E R - G R^-1)^2 - "
        "(1/2) norm(G R^-1)^2",
        (e * r * r * e.T).trace() / 2
        - (g * e.T).trace()
        - (residual * residual.T).trace() / 2
        + (g * r.inv() * r.inv() * g.T).trace() / 2,
    )
    stationary = g * (r * r).inv()
    argument.zero("gradient E M - G vanishes at E = G M^-1", stationary * r * r - g)
    argument.zero("the square vanishes there too", stationary * r - g * r.inv())
    # Eckart-Young for H = G R^-1. Fix an orthonormal column space U of X = U W; best W is U^T H.
    angle_c, angle_s = sympy.symbols("c s")
    u = sympy.Matrix([angle_c, angle_s])
    w = sympy.Matrix([[sympy.Symbol("w0"), sympy.Symbol("w1")]])
    h = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"h{i}{j}"))
    gap = h - u * w
    split = (
        (h * h.T).trace()
        - (u.T * h * h.T * u)[0]
        + ((w - u.T * h) * (w - u.T * h).T)[0]
        - (gap * gap.T).trace()
    )
    argument.zero(
        "norm(H - U W)^2 = norm(H)^2 - norm(U^T H)^2 + norm(W - U^T H)^2 when U^T U = 1",
        sympy.rem(sympy.expand(split), angle_c**2 + angle_s**2 - 1, angle_c),
    )
    top, rest, threshold, weight = z3.Reals("top rest threshold weight")
    argument.implies(
        "singular value t_i >= t_r (i <= r), 0 <= w_i <= 1: t_i (1 - w_i) >= t_r (1 - w_i)",
        [top >= threshold, threshold >= 0, weight >= 0, weight <= 1],
        top * (1 - weight) >= threshold * (1 - weight),
    )
    argument.implies(
        "singular value t_i <= t_r (i > r), w_i >= 0: t_i w_i <= t_r w_i",
        [rest >= 0, rest <= threshold, weight >= 0, weight <= 1],
        rest * weight <= threshold * weight,
    )
    argument.argued(
        "norm(U^T H)^2 = sum_i t_i w_i with t_i = sigma_i(H)^2, w_i in [0, 1], sum w_i = r; adding "
        "both lines, sum_{i<=r} t_i - sum_i t_i w_i >= t_r (r - sum_i w_i) = 0: the truncated SVD "
        "is best; rank(E R) = rank(E) because R is invertible"
    )
    return argument.done()


def prove_regression_limits() -> Proof:
    """Prove BA = G (k Sigma + p diag Sigma)^-1 and its limits."""
    import sympy

    argument = Argument(
        "At the full-rank minimum BA = E/k^2 = G (k Sigma + p diag(Sigma))^-1: G Sigma^-1 (least "
        "squares) at p = 0, G diag(Sigma)^-1 (each variable on its own) as p -> 1. For "
        "Sigma = s^2 I it is G/s^2 for every p, so the whole shrinkage of E is the factor k^2."
    )
    p, s = sympy.symbols("p s")
    k = 1 - p
    g = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"g{i}{j}"))
    sigma = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"s{min(i, j)}{max(i, j)}"))
    m = sigma / k + p / k**2 * diagonal(sigma)
    blend = k * sigma + p * diagonal(sigma)
    argument.zero("k^2 M = k Sigma + p diag(Sigma)", k**2 * m - blend)
    raw = g * m.inv() / k**2
    argument.zero("E/k^2 = G (k Sigma + p diag Sigma)^-1", raw - g * blend.inv())
    argument.zero("p = 0: least squares", (g * blend.inv()).subs(p, 0) - g * sigma.inv())
    argument.zero(
        "p -> 1: one variable at a time", (g * blend.inv()).subs(p, 1) - g * diagonal(sigma).inv()
    )
    isotropic = {sigma[0, 0]: s**2, sigma[1, 1]: s**2, sigma[0, 1]: 0}
    argument.zero("Sigma = s^2 I: BA = G/s^2 whatever p", raw.subs(isotropic) - g / s**2)
    argument.zero("Sigma diagonal: BA does not depend on p", raw.subs(sigma[0, 1], 0).diff(p))
    return argument.done()


def minimizers() -> Sweep:
    """Returns objective at other updates of rank r minus that at the closed-form minimiser.

    The others are random ones near and far, and the end of 200 alternating exact minimisations
    over B and over A, which no closed form enters.
    """
    rng, slacks = np.random.default_rng(13), []
    laws: tuple[QuadraticLaw, ...] = ("row_column", "activation")
    for _ in range(150):
        b, a, sigma, cross = random_layer(rng)
        for law in laws:
            p, rank = float(rng.uniform(0, 0.9)), int(rng.integers(1, 3))
            moment = effective_moment(law=law, second_moment=sigma, dropout=p)

            def value(update: Array, moment: Array = moment, cross: Array = cross) -> float:
                return float(np.sum((update @ moment) * update) / 2 - np.sum(update * cross))

            best = minimizer(law=law, second_moment=sigma, cross_moment=cross, dropout=p, rank=rank)
            left, right, free = b[:, :rank], a[:rank], cross @ np.linalg.inv(moment)
            for _ in range(200):
                left = cross @ right.T @ np.linalg.pinv(right @ moment @ right.T)
                before, right = right, np.linalg.pinv(left) @ free
                if np.array_equal(before, right):  # to the last bit: it stays there
                    break
            found = value(left @ right)
            room = ALGEBRA * (1 + abs(found))
            slacks.append(found - value(best) + room)
            slacks.append(QUADRATURE * (1 + abs(found)) - abs(found - value(best)))
            for size in (1e-3, 0.1, 10.0):
                step = size * rng.standard_normal((2, rank)) @ rng.standard_normal((rank, 3))
                u, s, v = np.linalg.svd(best + step, full_matrices=False)
                slacks.append(value((u[:, :rank] * s[:rank]) @ v[:rank]) - value(best) + room)
    return Sweep("150 random layers, two laws, ranks 1 and 2", slacks, unseen(300))


def raw_updates() -> Sweep:
    """Returns B A at the minimum against E / k^2, and against its limits at p = 0 and p = 1."""
    rng, slacks = np.random.default_rng(14), []
    for _ in range(500):
        _, _, sigma, cross = random_layer(rng)
        p = float(rng.uniform(0, 0.95))
        moments = {"second_moment": sigma, "cross_moment": cross}
        mean = minimizer(law="row_column", dropout=p, second_moment=sigma, cross_moment=cross)
        ends = (
            (trained_update(dropout=p, **moments), mean / (1 - p) ** 2),
            (trained_update(dropout=0.0, **moments), cross @ np.linalg.inv(sigma)),
            (trained_update(dropout=1.0, **moments), cross / np.diag(sigma)),
            (trained_update(dropout=p, second_moment=2 * np.eye(3), cross_moment=cross), cross / 2),
        )
        slacks += [agreement(got, want, ALGEBRA) for got, want in ends]
    return Sweep("500 random layers, p in [0, 0.95] and the limits", slacks, unseen(500))


def _step_ok(problem: Problem) -> bool:
    return layer_ok(problem) and any(problem["step"]) and any(problem["cross"])


def minimal_sides(*, plain_least_squares: bool) -> Sides:
    """Claim that no small step from the closed-form minimiser lowers the expected masked loss."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        s11, s12, s22 = (float(s) for s in problem["sigma"])
        best = trained_update(
            second_moment=np.array([[s11, s12], [s12, s22]]),
            cross_moment=np.array([[float(g) for g in problem["cross"]]]),
            dropout=0.0 if plain_least_squares else float(problem["p"]),
        )[0]
        if plain_least_squares:  # the right mean update, GΣ⁻¹, were there no penalty
            best = best / (1 - float(problem["p"])) ** 2
        other = best + np.array([float(s) for s in problem["step"]]) / 100
        gain = layer_objective(problem, best) - layer_objective(problem, other)
        return float(gain), 0.0

    return sides


CLAIMS = (
    Claim(
        id="Linear layer, minimiser",
        paper_item="Linear layer, closed-form minimiser",
        statement="The global minimum over updates of rank r, in closed form.",
        assumptions=("M positive definite",),
        evidence=(proof(prove_minimizer), sweep(minimizers)),
        recorded=Verdict.PROVED,
        formula="E = [G M^(-1/2)]_r M^(-1/2), M = Sigma/k + (p/k^2) diag(Sigma)",
        functions=("exact.linear.minimizer", "exact.linear.effective_moment"),
        controls=(
            pair(
                "minimiser, least squares",
                "the least-squares update minimises the expected masked loss",
                draw_layer,
                _step_ok,
                false=minimal_sides(plain_least_squares=True),
                true=minimal_sides(plain_least_squares=False),
            ),
        ),
    ),
    Claim(
        id="Linear layer, raw update",
        paper_item="Fig. 4, linear layer",
        statement=(
            "B A at the minimum runs from least squares to one-variable-at-a-time regression; for "
            "isotropic inputs it is the true solution, and the masks' k^2 is all the shrinkage."
        ),
        assumptions=("full rank",),
        evidence=(proof(prove_regression_limits), sweep(raw_updates)),
        recorded=Verdict.PROVED,
        formula="B A = E/k^2 = G (k Sigma + p diag(Sigma))^-1",
        functions=("exact.linear.trained_update",),
    ),
)
