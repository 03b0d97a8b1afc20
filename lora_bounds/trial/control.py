"""What a negative control is: a false claim next to the true one that it corrupts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lora_bounds.trial.frequency import FrequencyResult, RandomClaim, check_frequency
from lora_bounds.trial.search import Inequality, Problem, SearchResult, search

Sides: TypeAlias = Callable[[Problem], tuple[Any, Any]]
TOLERANCE = 1e-10  # algebraic route against enumeration, relative


def equal(value: Any, formula: Any) -> tuple[Any, Any]:
    """Encode value = formula as |difference| <= tolerance.

    Args:
        value: One route.
        formula: The other.

    Returns:
        (lhs, rhs).
    """
    return abs(value - formula), TOLERANCE * (1 + abs(value) + abs(formula))


@dataclass(frozen=True)
class Control:
    """A false claim next to the true one that it corrupts.

    Attributes:
        name: Short name.
        statement: The false claim, in words.
        false: The false claim, ready for trial.
        true: The true claim on the same family.
        trials: Sample size of both trials, fixed in advance.
        seed: Seed of both trials.
    """

    name: str
    statement: str
    false: Inequality | RandomClaim
    true: Inequality | RandomClaim
    trials: int = 300
    seed: int = 20240409

    def _try(self, claim: Inequality | RandomClaim) -> SearchResult | FrequencyResult:
        if isinstance(claim, Inequality):
            return search(claim, trials=self.trials, seed=self.seed)
        return check_frequency(claim, trials=self.trials, seed=self.seed)

    def try_false(self) -> SearchResult | FrequencyResult:
        """Put the false claim on trial.

        Returns:
            The search result (with the shrunk violation) or the frequency result.
        """
        return self._try(self.false)

    def rejected(self) -> bool:
        """Whether the machinery rejects the false claim.

        Returns:
            True when it does.
        """
        return _rejects(self.try_false())

    def survives(self) -> bool:
        """Whether the true claim survives the same budget.

        Returns:
            True when it is not rejected.
        """
        return not _rejects(self._try(self.true))


def _rejects(result: SearchResult | FrequencyResult) -> bool:
    return result.refuted if isinstance(result, SearchResult) else result.rejected


def pair(
    name: str,
    statement: str,
    draw: Callable[[np.random.Generator], Problem],
    in_domain: Callable[[Problem], bool],
    *,
    false: Sides,
    true: Sides,
) -> Control:
    """Put a false inequality and its true twin on the same family of problems.

    Args:
        name: Short name.
        statement: The false claim.
        draw: Draws a problem.
        in_domain: Whether a shrunk problem still belongs to the family.
        false: Sides of the false claim.
        true: Sides of the true one.

    Returns:
        The control.
    """
    return Control(
        name,
        statement,
        Inequality(name, statement, draw, false, in_domain),
        Inequality(f"true twin of {name}", "the uncorrupted statement", draw, true, in_domain),
    )
