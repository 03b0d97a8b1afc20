"""The searches that found the stored counterexamples.

Run one with ``python -m lora_bounds.counterexamples.hunts ID``. Each hunt is a false claim on trial
(`trial.search.Inequality`); its shrunk violation was stored in `data`.
"""

import argparse
import json
from fractions import Fraction
from math import inf, sqrt
from typing import Any

import numpy as np

from lora_bounds.counterexamples.models import (
    drop_probability,
    ridge_gap,
    ridge_stability,
)
from lora_bounds.trial.search import Inequality, Problem, search

FACTOR = 10  # Prop. 4.2 must fail by more than this factor


def logistic_sides(problem: Problem) -> tuple[float, float]:
    """Measured stability and FACTOR times Prop. 4.2 for one-parameter logistic regression.

    Args:
        problem: ``z``, the products y_i x_i, and ``exponent``: lambda q = 10^-exponent.

    Returns:
        mean_i |l_i(theta(S^i)) - l_i(theta(S))|, and 10 * 2 eta^2/((Lmin + 2 lambda q) n).
    """
    from scipy.optimize import brentq

    z = np.array([float(value) for value in problem["z"]])
    c = 10.0 ** -problem["exponent"]

    def solve(margins: np.ndarray) -> float:
        radius = float(np.abs(margins).mean()) / (2 * c)

        def slope(t: float) -> float:
            return float(
                2 * c * t - np.mean(margins / (1 + np.exp(np.minimum(margins * t, 700.0))))
            )

        return 0.0 if slope(0.0) == 0 else float(brentq(slope, -radius, radius, xtol=1e-13))

    full = solve(z)
    left_out = [solve(np.delete(z, i)) for i in range(len(z))]
    changes = [
        abs(np.logaddexp(0, -z[i] * t) - np.logaddexp(0, -z[i] * full))
        for i, t in enumerate(left_out)
    ]
    weight = 1 / (1 + np.exp(-z * full))
    curvature = float(np.mean(weight * (1 - weight) * z**2))
    eta = float(np.abs(z).max()) + 2 * c * max(abs(t) for t in [full, *left_out])
    return float(np.mean(changes)), FACTOR * 2 * eta**2 / ((curvature + 2 * c) * len(z))


def _logistic_draw(rng: np.random.Generator) -> Problem:
    n = int(rng.integers(2, 9))
    z = rng.choice([-1, 1], n) * rng.uniform(0, 1, n) ** rng.choice([0.1, 1, 4], n)
    return {"z": z.tolist(), "exponent": int(rng.integers(1, 9))}


def _parameters_draw(rng: np.random.Generator) -> Problem:
    return {"theta": rng.uniform(0, 9, rng.integers(2, 5)).tolist()}


def _parameters_sides(problem: Problem) -> tuple[Any, Any]:
    theta = problem["theta"]
    return sqrt(sum(t * t for t in theta) / len(theta)), sum(abs(t) for t in theta) / len(theta)


def _mask_free_draw(rng: np.random.Generator) -> Problem:
    return {"update": rng.normal(), "target": rng.normal(), "p": rng.uniform(0.1, 0.9)}


def mask_free_sides(problem: Problem) -> tuple[Any, Any]:
    """Loss of the infinite ensemble and of the mask-free network, input 1 and W0 = 0.

    Args:
        problem: ``update`` BA, ``target`` y, rate ``p``.

    Returns:
        (1/2)(y - (1-p)^2 BA)^2 and (1/2)(y - BA)^2.
    """
    update, y, p = problem["update"], problem["target"], problem["p"]
    return (y - (1 - p) ** 2 * update) ** 2 / 2, (y - update) ** 2 / 2


def _zero_one_draw(rng: np.random.Generator) -> Problem:
    return {"base": rng.normal(0, 3), "update": rng.normal(0, 3), "p": rng.uniform(0.1, 0.9)}


def zero_one_sides(problem: Problem) -> tuple[Any, Any]:
    """0-1 error of the infinite ensemble and of the mean member; output = base + masked update.

    Args:
        problem: ``base`` = W0 x and ``update`` = BA x (label +1, wrong when output < 0), ``p``.

    Returns:
        The ensemble's error (0 or 1) and the mean member's.
    """
    kept = (1 - problem["p"]) ** 2
    base, update = problem["base"], problem["update"]
    ensemble = int(base + kept * update < 0)
    return ensemble, kept * int(base + update < 0) + (1 - kept) * int(base < 0)


def _zero_one_domain(problem: Problem) -> bool:
    # Only the striking case: most members are right, and no output is a tie.
    outputs = (problem["base"], problem["base"] + problem["update"])
    return 0 < problem["p"] < 1 and 0 not in outputs and zero_one_sides(problem)[1] < 0.5


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
    """Measured stability of L_lambda at the high and at the low dropout rate.

    Args:
        problem: ``points``, ``regularization`` lambda, ``p_low``, ``p_high``.

    Returns:
        The claim "does not rise with p" as (value at p_high, value at p_low).
    """
    high, low = (
        ridge_stability(
            problem["points"], problem["regularization"] * drop_probability(p), penalised=True
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
        ridge_stability(points, lam * drop_probability(p), penalised=False) for p in (low, high)
    ]
    return bool(plain[1] > 2 * plain[0])


def _gap_draw(rng: np.random.Generator) -> Problem:
    x = rng.uniform(0.2, 2, rng.integers(2, 5)) * rng.choice([-1, 1])
    y = x + rng.choice([0.1, 0.3, 1.0]) * rng.normal(0, 1, len(x))
    return {
        "atoms": list(zip(x.tolist(), y.tolist(), strict=True)),
        "n": 2,
        "regularization": 10 ** rng.uniform(-1, 1),
        "p": tuple(sorted(rng.uniform(0, 1, 3).tolist())),
    }


def gap_sides(problem: Problem) -> tuple[Any, Any]:
    """Exact mean gap at the highest and at the middle of three dropout rates.

    Args:
        problem: ``atoms``, ``n``, ``regularization`` lambda, ``p`` (three rates, rising).

    Returns:
        The claim "no turn upwards" as (gap at p3, gap at p2).
    """
    _, middle, high = problem["p"]
    return tuple(
        ridge_gap(problem["atoms"], problem["n"], problem["regularization"] * drop_probability(p))
        for p in (high, middle)
    )


def _gap_domain(problem: Problem) -> bool:
    low, middle, high = problem["p"]
    atoms, lam = problem["atoms"], problem["regularization"]
    if not (problem["n"] >= 2 and len(atoms) >= 2 and lam > 0 and 0 <= low < middle < high <= 1):
        return False
    if any(x == 0 for x, _ in atoms):
        return False
    first, second = (
        ridge_gap(atoms, problem["n"], lam * drop_probability(p)) for p in (low, middle)
    )
    return bool(first > second > 0)  # it falls first: the turn is the point


HUNTS: dict[str, Inequality] = {
    "prop-4-2-logistic": Inequality(
        "prop-4-2-logistic",
        f"{FACTOR} times Prop. 4.2 bounds the stability of one-parameter logistic regression, n "
        f"<= 8",
        _logistic_draw,
        logistic_sides,
        lambda s: 2 <= len(s["z"]) <= 8 and s["exponent"] >= 1 and any(z != 0 for z in s["z"]),
    ),
    "a3-parameters": Inequality(
        "a3-parameters",
        "loss(mean output) <= mean loss when the loss is convex in the parameter "
        "(output theta^2, loss sqrt(output) = |theta|)",
        _parameters_draw,
        _parameters_sides,
        lambda s: len(s["theta"]) >= 2,
    ),
    "ensemble-vs-mask-free": Inequality(
        "ensemble-vs-mask-free",
        "the ensemble is no worse than the mask-free network (squared loss)",
        _mask_free_draw,
        mask_free_sides,
        lambda s: 0 < s["p"] < 1,
    ),
    "ensemble-zero-one": Inequality(
        "ensemble-zero-one",
        "the ensemble's 0-1 error is at most the mean member's",
        _zero_one_draw,
        zero_one_sides,
        _zero_one_domain,
    ),
    "stability-rises": Inequality(
        "stability-rises",
        "the measured pointwise hypothesis stability of ridge does not rise with p",
        _stability_draw,
        stability_sides,
        _stability_domain,
    ),
    "gap-turns-up": Inequality(
        "gap-turns-up",
        "once it falls with p, the exact ridge gap keeps falling",
        _gap_draw,
        gap_sides,
        _gap_domain,
    ),
}


def _plain(value: Any) -> Any:
    """Turn fractions into strings, for JSON.

    Returns:
        The same structure, ready for json.dumps.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Fraction) else value


def main() -> None:
    """Run one hunt and print what it found as JSON."""
    parser = argparse.ArgumentParser(description="Search for one of the stored counterexamples.")
    parser.add_argument("id", choices=sorted(HUNTS))
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = search(HUNTS[options.id], trials=options.trials, seed=options.seed)
    report = {
        "refuted": result.refuted,
        "violations": result.violations,
        "data": _plain(result.problem),
        "lhs": result.lhs,
        "rhs": result.rhs,
        "margin": result.margin if abs(result.margin) < inf else None,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
