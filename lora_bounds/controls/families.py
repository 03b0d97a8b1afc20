"""Small families of problems whose truth is computed slowly and exactly.

Each family has a ``draw_*`` (a random problem), a ``*_ok`` (is a shrunk problem still one of the
family) and functions that compute the true quantity by enumeration or by refitting.
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import comb
from typing import Any

import numpy as np

from lora_bounds.trial.search import Problem

# --- convex losses l_i(t) = s_i t: uniform stability is attained ------------------------------


def draw_linear_losses(rng: np.random.Generator) -> Problem:
    """Draw linear losses with slopes in [-1, 1], a lambda and a dropout rate.

    Args:
        rng: Generator.

    Returns:
        ``slopes``, ``regularization``, ``p``.
    """
    return {
        "slopes": rng.uniform(-1, 1, rng.integers(2, 9)).tolist(),
        "regularization": 10 ** rng.uniform(-2, 2),
        "p": rng.uniform(0.05, 1),
    }


def linear_losses_ok(problem: Problem) -> bool:
    """Whether the problem has two points or more, a positive penalty and a nonzero loss.

    Args:
        problem: A problem.

    Returns:
        True when it belongs to the family.
    """
    return (
        len(problem["slopes"]) >= 2
        and any(s != 0 for s in problem["slopes"])
        and problem["regularization"] > 0
        and 0 < problem["p"] <= 1
    )


def linear_losses_stability(problem: Problem) -> Any:
    """Largest change of any example's loss when any one point is removed (factor 1/n kept).

    Args:
        problem: A problem of the family.

    Returns:
        max over i and z of |l(z; theta(S)) - l(z; theta(S^i))|, by solving each problem.
    """
    slopes, p = problem["slopes"], problem["p"]
    c = problem["regularization"] * (2 * p - p * p)
    n = len(slopes)
    full = -sum(slopes) / (2 * c * n)
    moves = [abs(full + (sum(slopes) - s) / (2 * c * n)) for s in slopes]
    return max(abs(s) for s in slopes) * max(moves)


# --- quadratic losses l_i(t) = h_i t^2/2 + s_i t: Prop. 4.2 is exact up to a factor 2 ----------


def draw_quadratic(rng: np.random.Generator) -> Problem:
    """Draw quadratic losses, possibly concave, and a penalty weight lambda q that dominates.

    Args:
        rng: Generator.

    Returns:
        ``losses`` (pairs h, s) and ``weight``.
    """
    n = int(rng.integers(2, 6))
    losses = zip(rng.uniform(-2, 2, n).tolist(), rng.uniform(-1, 1, n).tolist(), strict=True)
    return {"losses": list(losses), "weight": rng.uniform(0.1, 2)}


def quadratic_ok(problem: Problem) -> bool:
    """Whether all leave-one-out objectives are strictly convex.

    Args:
        problem: A problem.

    Returns:
        True when it belongs to the family.
    """
    losses, c = problem["losses"], problem["weight"]
    if len(losses) < 2 or c <= 0 or all(s == 0 for _, s in losses):
        return False
    total = sum(h for h, _ in losses)
    n = len(losses)
    return total / n + 2 * c > 0 and all((total - h) / (n - 1) + 2 * c > 0 for h, _ in losses)


def quadratic_stability(problem: Problem) -> tuple[Any, Any, Any]:
    """Refit without each point (factor 1/(n-1)) and measure what Prop. 4.2 speaks of.

    Args:
        problem: A problem of the family.

    Returns:
        The largest change of L_lambda(x_i; .), the Lipschitz constant eta of all L_lambda(x_j; .)
        between the solutions, and Lmin, the mean curvature of the plain loss.
    """
    losses, c = problem["losses"], problem["weight"]

    def minimiser(part: Sequence[tuple[Any, Any]]) -> Any:
        return -sum(s for _, s in part) / (sum(h for h, _ in part) + 2 * c * len(part))

    def value(loss: tuple[Any, Any], t: Any) -> Any:
        return (loss[0] / 2 + c) * t * t + loss[1] * t

    full = minimiser(losses)
    rest = [minimiser([*losses[:i], *losses[i + 1 :]]) for i in range(len(losses))]
    change = max(
        abs(value(loss, t) - value(loss, full)) for loss, t in zip(losses, rest, strict=True)
    )
    slope = max(abs((h + 2 * c) * t + s) for h, s in losses for t in [full, *rest])
    return change, slope, sum(h for h, _ in losses) / len(losses)


# --- a linear layer of two inputs and one output, all masks enumerated ------------------------


def draw_layer(rng: np.random.Generator) -> Problem:
    """Draw a rank-1 update of a 1 x 2 layer, a second moment and a rate.

    Args:
        rng: Generator.

    Returns:
        ``update`` (two numbers), ``sigma`` (s11, s12, s22), ``p``, and ``cross`` and ``step``.
    """
    root = rng.normal(size=(2, 3))
    sigma = root @ root.T
    return {
        "update": tuple(rng.normal(size=2).tolist()),
        "sigma": (sigma[0, 0].item(), sigma[0, 1].item(), sigma[1, 1].item()),
        "p": rng.uniform(0.05, 0.9),
        "cross": tuple(rng.normal(size=2).tolist()),
        "step": tuple(rng.normal(size=2).tolist()),
    }


def layer_ok(problem: Problem) -> bool:
    """Whether the second moment is positive definite, the update nonzero and 0 < p < 1.

    Args:
        problem: A problem.

    Returns:
        True when it belongs to the family.
    """
    s11, s12, s22 = problem["sigma"]
    definite = s11 > 0 and s11 * s22 - s12 * s12 > 0
    return bool(definite and any(problem["update"]) and 0 < problem["p"] < 1)


def layer_objective(problem: Problem, update: Sequence[Any]) -> Any:
    """Expected LoRA-Dropout loss of a raw update, without the constant E y^2/2, all 8 masks.

    Args:
        problem: A problem of the family; ``cross`` is E[(y - W0 x) x].
        update: BA, two numbers.

    Returns:
        E over masks of (1/2) u Sigma u^T - u cross, u the masked update.
    """
    (s11, s12, s22), p = problem["sigma"], problem["p"]
    g1, g2 = problem["cross"]
    total: Any = 0
    for row, first, second in product((0, 1), repeat=3):
        probability = 1
        for bit in (row, first, second):
            probability = probability * ((1 - p) if bit else p)
        u1, u2 = row * first * update[0], row * second * update[1]
        energy = u1 * u1 * s11 + 2 * u1 * u2 * s12 + u2 * u2 * s22
        total += probability * (energy / 2 - u1 * g1 - u2 * g2)
    return total


def layer_variance(problem: Problem) -> Any:
    """Mask variance of the output of the raw update, all 8 masks.

    Args:
        problem: A problem of the family.

    Returns:
        E norm(hhat)^2 - norm(E hhat)^2.
    """
    plain = problem | {"cross": (0, 0)}
    (s11, s12, s22), kept = problem["sigma"], (1 - problem["p"]) ** 2
    u1, u2 = (kept * u for u in problem["update"])
    mean = u1 * u1 * s11 + 2 * u1 * u2 * s12 + u2 * u2 * s22
    return 2 * layer_objective(plain, problem["update"]) - mean


# --- one fixed hypothesis with 0-1 losses: failure probabilities are binomial sums -------------


def draw_bernoulli(rng: np.random.Generator) -> Problem:
    """Draw a risk, a sample size and a failure probability.

    Args:
        rng: Generator.

    Returns:
        ``risk``, ``n``, ``delta``.
    """
    return {
        "risk": rng.uniform(0.05, 0.95),
        "n": int(rng.integers(1, 60)),
        "delta": rng.uniform(0.02, 0.9),
    }


def bernoulli_ok(problem: Problem) -> bool:
    """Whether the numbers are a risk, a sample size and a failure probability.

    Args:
        problem: A problem.

    Returns:
        True when it belongs to the family.
    """
    return 0 < problem["risk"] < 1 and problem["n"] >= 1 and 0 < problem["delta"] < 1


def bernoulli_failure(problem: Problem, misses: Callable[[Any], Any]) -> Any:
    """Probability that a bound misses, summed over every possible number of errors.

    Args:
        problem: A problem of the family.
        misses: Takes the array of empirical risks 0, 1/n, ..., 1; True where the bound fails.

    Returns:
        The exact failure probability (up to rounding).
    """
    n, risk = problem["n"], float(problem["risk"])
    bad = np.asarray(misses(np.arange(n + 1) / n), bool)
    return sum(comb(n, k) * risk**k * (1 - risk) ** (n - k) for k in range(n + 1) if bad[k])


# --- an algorithm that memorises its sample ----------------------------------------------------


def draw_memoriser(rng: np.random.Generator) -> Problem:
    """Draw the number of equally likely points, the sample size and delta.

    Args:
        rng: Generator.

    Returns:
        ``atoms``, ``n``, ``delta``.
    """
    return {
        "atoms": int(rng.integers(2, 12)),
        "n": int(rng.integers(1, 4)),
        "delta": rng.uniform(0.1, 0.9),
    }


def memoriser_failure(problem: Problem, slack: float) -> float:
    """Share of samples on which R - Rhat > slack for loss 0 on the sample and 1 elsewhere.

    Args:
        problem: ``atoms`` and ``n``.
        slack: What the bound allows.

    Returns:
        The exact failure probability, by enumerating every sample.
    """
    atoms, n = problem["atoms"], problem["n"]
    samples = product(range(atoms), repeat=n)
    return sum((atoms - len(set(s))) / atoms > slack for s in samples) / atoms**n
