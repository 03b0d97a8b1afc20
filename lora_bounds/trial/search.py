"""Search for a counterexample, and shrink it to something a person can check by hand.

`Inequality` is the claim that lhs <= rhs for every problem of a family. `search` draws a number of
problems fixed in advance, keeps the worst, and shrinks a violation while it persists. Claims about
probabilities are tried by `lora_bounds.trial.frequency`.

Not being rejected proves nothing: it says that this many trials showed no violation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

Problem = dict[str, Any]
"""Named numbers and (nested) lists of numbers: everything that shrinking may simplify."""

_DENOMINATORS = (1, 2, 3, 4, 5, 8, 10, 16, 100, 1000, 10**6)
_SIMPLE = tuple(sign * Fraction(1, d) for d in (1, 2, 4, 10, 100) for sign in (1, -1))


def _everything(_: Problem) -> bool:
    return True


@dataclass(frozen=True)
class Inequality:
    """The claim that lhs <= rhs for every problem in a family.

    Attributes:
        name: Short name.
        statement: The claim in words.
        draw: Draws a problem.
        sides: Returns (lhs, rhs); takes floats and, while shrinking, `fractions.Fraction`.
        in_domain: Whether a (shrunk) problem still belongs to the family.
        rounding: A violation smaller than this times max(|lhs|, |rhs|) is taken for rounding.
    """

    name: str
    statement: str
    draw: Callable[[np.random.Generator], Problem]
    sides: Callable[[Problem], tuple[Any, Any]]
    in_domain: Callable[[Problem], bool] = _everything
    rounding: float = 1e-12


@dataclass(frozen=True)
class SearchResult:
    """What a search saw.

    Attributes:
        name: The claim's name.
        trials: Problems drawn (fixed in advance).
        seed: Seed of the generator.
        violations: How many of them violated the claim.
        refuted: Whether any did.
        problem: The worst problem, shrunk when it violates the claim.
        lhs: Its left side.
        rhs: Its right side.
        margin: rhs - lhs there; negative when refuted.
    """

    name: str
    trials: int
    seed: int
    violations: int
    refuted: bool
    problem: Problem
    lhs: float
    rhs: float
    margin: float


def _relative_margin(claim: Inequality, problem: Problem) -> float:
    lhs, rhs = (float(side) for side in claim.sides(problem))
    if np.isnan(lhs) or np.isnan(rhs):
        raise ValueError(f"{claim.name}: a side is not a number, got lhs={lhs}, rhs={rhs}")
    if lhs == rhs:
        return 0.0
    scale = max(abs(lhs), abs(rhs))
    return (rhs - lhs) / scale if np.isfinite(scale) else (np.inf if rhs > lhs else -np.inf)


def violates(claim: Inequality, problem: Problem) -> bool:
    """Whether a problem of the family breaks the claim by more than rounding.

    Args:
        claim: The claim.
        problem: A problem.

    Returns:
        True when it is in the domain and lhs > rhs.
    """
    return claim.in_domain(problem) and _relative_margin(claim, problem) < -claim.rounding


def search(claim: Inequality, *, trials: int, seed: int) -> SearchResult:
    """Draw a fixed number of problems, keep the worst, shrink it if it violates the claim.

    Args:
        claim: The inequality on trial.
        trials: Number of problems inside the domain to draw.
        seed: Seed of the numpy generator.

    Returns:
        The result; `refuted` False says only that these trials showed no violation.

    Raises:
        ValueError: `trials` is not positive, or hardly any draw lies in the domain.

    Examples:
        >>> claim = Inequality("square", "x^2 <= 2 on [0, 2]",
        ...     lambda rng: {"x": rng.uniform(0, 2)}, lambda s: (s["x"] ** 2, 2),
        ...     lambda s: 0 <= s["x"] <= 2)
        >>> result = search(claim, trials=100, seed=0)
        >>> result.refuted, result.problem
        (True, {'x': Fraction(2, 1)})
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got trials={trials}")
    rng = np.random.default_rng(seed)
    worst: Problem | None = None
    worst_margin, violations, drawn = np.inf, 0, 0
    for _ in range(1000 * trials):
        problem = claim.draw(rng)
        if not claim.in_domain(problem):
            continue
        margin = _relative_margin(claim, problem)
        violations += margin < -claim.rounding
        if worst is None or margin < worst_margin:
            worst, worst_margin = problem, margin
        drawn += 1
        if drawn == trials:
            break
    if worst is None or drawn < trials:
        raise ValueError(f"{claim.name}: only {drawn} of {trials} problems fell in the domain")
    if violations:
        worst = shrink(claim, worst)
    lhs, rhs = claim.sides(worst)
    return SearchResult(
        claim.name, trials, seed, int(violations), violations > 0, worst,
        float(lhs), float(rhs), float(rhs - lhs),
    )  # fmt: skip


def shrink(claim: Inequality, problem: Problem) -> Problem:
    """Simplify a violating problem while it keeps violating the claim.

    Steps tried: drop an element of a list, replace a number by 0, by a simple fraction or by a
    near one with a small denominator, halve it. Each accepted step lowers
    the problem's complexity, so this ends.

    Args:
        claim: The violated claim.
        problem: A problem that violates it.

    Returns:
        A violating problem at which no single step helps.

    Raises:
        ValueError: The problem does not violate the claim.
    """
    if not violates(claim, problem):
        raise ValueError(f"only a violation can be shrunk, got a problem that obeys {claim.name!r}")
    improved = True
    while improved:
        improved = False
        size = _complexity(problem)
        for candidate in _simpler(problem):
            if _complexity(candidate) < size and _still_violates(claim, candidate):
                problem, improved = candidate, True
                break
    return problem


def _still_violates(claim: Inequality, problem: Problem) -> bool:
    try:
        return violates(claim, problem)
    except (ZeroDivisionError, OverflowError, ValueError):
        return False  # the simpler problem is no longer well posed


def _complexity(value: Any) -> int:
    if isinstance(value, dict):
        return sum(_complexity(item) for item in value.values())
    if isinstance(value, list | tuple):
        return 1 + sum(_complexity(item) for item in value)
    if isinstance(value, int | Fraction):
        ratio = Fraction(value)
        return abs(ratio.numerator) + 2 * ratio.denominator + (ratio < 0)
    return 10**9  # a float: any fraction is simpler


def _simpler(value: Any) -> Iterator[Any]:
    """Candidates one step simpler, the boldest first.

    Yields:
        Copies of `value` with one part simplified.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            for candidate in _simpler(item):
                yield value | {key: candidate}
    elif isinstance(value, list | tuple):
        if isinstance(value, list):  # a tuple is a record of fixed length
            for i in range(len(value)):
                yield [*value[:i], *value[i + 1 :]]
        for i, item in enumerate(value):
            for candidate in _simpler(item):
                yield type(value)([*value[:i], candidate, *value[i + 1 :]])
    elif isinstance(value, int):
        yield from (0, 1, value // 2, value - 1 if value > 0 else value + 1)
    else:
        ratio = Fraction(value)
        yield Fraction(0)
        yield from _SIMPLE
        yield from (ratio.limit_denominator(bound) for bound in _DENOMINATORS)
        yield ratio.limit_denominator(1000) / 2
        if ratio.denominator == 1:
            yield ratio - (1 if ratio > 0 else -1)
