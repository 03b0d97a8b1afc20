"""Both sides of the claims about stability, masks and the linear layer: right and corrupted.

Every function returns the two sides of a claim lhs <= rhs: a slow truth from `families` against
the library's formula.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from lora_bounds.controls import families
from lora_bounds.trial.control import Sides, equal
from lora_bounds.trial.search import Problem

# --- stability -----------------------------------------------------------------------------------


def _uniform(problem: Problem, *, size: int | None = None, regularization: Any = None) -> Any:
    from lora_bounds.bounds.stability import uniform_stability

    return uniform_stability(
        n=size or len(problem["slopes"]),
        lipschitz=float(max(abs(s) for s in problem["slopes"])),
        regularization=float(regularization or problem["regularization"]),
        dropout=float(problem["p"]),
    ).value


def uniform_true(problem: Problem) -> tuple[Any, Any]:
    """The repaired Prop. 4.2 on linear losses, where it is attained.

    Args:
        problem: A problem of the family.

    Returns:
        The two sides.
    """
    return families.linear_losses_stability(problem), _uniform(problem)


def uniform_halved(problem: Problem) -> tuple[Any, Any]:
    """The repaired Prop. 4.2 with its constant halved.

    Args:
        problem: A problem of the family.

    Returns:
        The two sides.
    """
    return families.linear_losses_stability(problem), _uniform(problem) / 2


def uniform_square_n(problem: Problem) -> tuple[Any, Any]:
    """The repaired Prop. 4.2 with n^2 for n.

    Args:
        problem: A problem of the family.

    Returns:
        The two sides.
    """
    bound = _uniform(problem, size=len(problem["slopes"]) ** 2)
    return families.linear_losses_stability(problem), bound


def uniform_double_p(problem: Problem) -> tuple[Any, Any]:
    """The repaired Prop. 4.2 with q = 2p, its second-order term dropped.

    Args:
        problem: A problem of the family.

    Returns:
        The two sides.
    """
    p = problem["p"]
    stronger = problem["regularization"] * 2 * p / (2 * p - p * p)
    return families.linear_losses_stability(problem), _uniform(problem, regularization=stronger)


def paper(factor: Any, sign: Callable[[Any], Any]) -> Sides:
    """Claim factor times Prop. 4.2 on quadratic losses.

    Args:
        factor: 1 is right.
        sign: Applied to Lmin; the identity is right.

    Returns:
        The two sides.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        change, slope, least = families.quadratic_stability(problem)
        n, weight = len(problem["losses"]), problem["weight"]
        return change, factor * 2 * slope**2 / ((sign(least) + 2 * weight) * n)

    return sides


# --- masks and the linear layer ------------------------------------------------------------------


def drop_share(problem: Problem) -> Any:
    """Probability that an entry of the update is dropped.

    Args:
        problem: ``p``.

    Returns:
        1 minus the share of outcomes that keep row and column.
    """
    # An entry survives when its row and its column do: enumerate the four outcomes.
    p = problem["p"]
    return p * p + 2 * p * (1 - p)


def q_true(problem: Problem) -> tuple[Any, Any]:
    """The drop probability q, against the four outcomes enumerated.

    Args:
        problem: A problem of the family.

    Returns:
        The two sides.
    """
    from lora_bounds.bounds.sparsity import drop_probability

    return equal(drop_share(problem), drop_probability(dropout=float(problem["p"])))


def variance(law: Any, rate: Callable[[float], float] = lambda p: p) -> Sides:
    """Claim that LoRA Dropout has the mask variance of a law.

    Args:
        law: ``"row_column"`` is right.
        rate: The law's own rate, of LoRA Dropout's.

    Returns:
        The two sides.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.exact.linear import mask_variance

        s11, s12, s22 = (float(s) for s in problem["sigma"])
        p = float(problem["p"])
        formula = mask_variance(
            law=law,
            b=np.ones((1, 1)),
            a=np.array([[float(u) for u in problem["update"]]]),
            second_moment=np.array([[s11, s12], [s12, s22]]),
            dropout=rate(p),
        )
        return equal(float(families.layer_variance(problem)), float(formula))

    return sides


def penalty(share: Callable[[float], float]) -> Sides:
    """Claim that the induced penalty at Sigma = s^2 I is share(p) * s^2 q norm(E)^2.

    Args:
        share: lambda / s^2 as a function of the rate.

    Returns:
        The two sides.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        scale = problem["sigma"][0]
        isotropic = problem | {"sigma": (scale, 0, scale), "cross": (0, 0)}
        p = problem["p"]
        q, kept = 2 * p - p * p, (1 - p) ** 2
        norm = sum((kept * u) ** 2 for u in problem["update"])
        penalty = families.layer_objective(isotropic, problem["update"]) - scale * norm / 2
        return equal(float(penalty), share(float(p)) * float(scale * q * norm))

    return sides


def lambda_true(p: float) -> float:
    """Take lambda / s^2 from the library.

    Args:
        p: Dropout rate.

    Returns:
        1/(2(1-q)).
    """
    from lora_bounds.bounds.sparsity import induced_regularization

    return float(induced_regularization(dropout=p, input_scale=1.0))


def minimal(*, plain_least_squares: bool) -> Sides:
    """Claim that no small step from the closed-form minimiser lowers the expected masked loss.

    Args:
        plain_least_squares: Take the least-squares update for the minimiser instead: false.

    Returns:
        The two sides.
    """

    def sides(problem: Problem) -> tuple[Any, Any]:
        from lora_bounds.exact.linear import trained_update

        s11, s12, s22 = (float(s) for s in problem["sigma"])
        best = trained_update(
            second_moment=np.array([[s11, s12], [s12, s22]]),
            cross_moment=np.array([[float(g) for g in problem["cross"]]]),
            dropout=0.0 if plain_least_squares else float(problem["p"]),
        )[0]
        if plain_least_squares:  # the right mean update, GΣ⁻¹, were there no penalty
            best = best / (1 - float(problem["p"])) ** 2
        other = best + np.array([float(s) for s in problem["step"]]) / 100
        gain = families.layer_objective(problem, best) - families.layer_objective(problem, other)
        return float(gain), 0.0

    return sides


def rank_sparsity(problem: Problem) -> tuple[Any, Any]:
    """Rank masks alone: the share of zero entries (all r components dropped) is p^r.

    Args:
        problem: ``p`` and ``rank``.

    Returns:
        The two sides of the equality.
    """
    return equal(_zero_share(problem), problem["p"] ** problem["rank"])


def rank_as_sparse(problem: Problem) -> tuple[Any, Any]:
    """Claim that rank masks alone give the sparsity q of LoRA Dropout.

    Args:
        problem: ``p`` and ``rank``.

    Returns:
        q and the share of zero entries under rank masks.
    """
    p = problem["p"]
    return 2 * p - p * p, _zero_share(problem)


def _zero_share(problem: Problem) -> Any:
    p, total = problem["p"], 0
    for keep in product((0, 1), repeat=problem["rank"]):
        probability = 1
        for bit in keep:
            probability = probability * ((1 - p) if bit else p)
        total += probability * (sum(keep) == 0)  # all factors 1: nothing cancels
    return total
