"""What a bound says: its value, its direction, how sure it is, and what it rests on."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lora_bounds import checks, rounding
from lora_bounds.rounding import Array, Numbers

Direction: TypeAlias = Literal["upper", "lower"]


@dataclass(frozen=True)
class Assumption:
    """Something a bound needs.

    Attributes:
        name: a few words.
        statement: the condition, in full.
        checked: True where it was found to hold, False where it is violated, None where nobody
            has looked.
    """

    name: str
    statement: str
    checked: bool | None = None


@dataclass(frozen=True, eq=False)
class BoundResult:
    """A bound and all that is needed to read it. Arrays in it are read-only.

    Attributes:
        value: the bound, rounded outward.
        direction: ``"upper"`` (the quantity is at most ``value``) or ``"lower"``.
        confidence: 1.0 where the bound is sure, else the probability 1 - delta, over the draw of
            the sample, with which it holds at the least.
        source: paper, version, equation or theorem.
        assumptions: what it rests on.
        vacuous: whether it says no more than ``trivial`` says.
        name: the bound's short name.
        trivial: what is known without it (the largest loss, say), or None for nothing.
    """

    value: Numbers
    direction: Direction
    confidence: Numbers
    source: str
    assumptions: tuple[Assumption, ...]
    vacuous: bool | NDArray[np.bool_]
    name: str
    trivial: Numbers | None

    def __post_init__(self) -> None:
        checks.choice("direction", self.direction, ("upper", "lower"))
        checks.numbers("value", self.value, "[-inf, inf]")
        checks.numbers("confidence", self.confidence, "[0, 1]")
        checks.instances("assumptions", self.assumptions, Assumption)
        checks.instance("source", self.source, str)
        checks.instance("name", self.name, str)
        if not isinstance(self.vacuous, np.ndarray):
            checks.instance("vacuous", self.vacuous, bool)
        if self.trivial is not None:
            checks.numbers("trivial", self.trivial, "[-inf, inf]")
        for field in (self.value, self.confidence, self.vacuous, self.trivial):
            if isinstance(field, np.ndarray):
                field.flags.writeable = False

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of the assumptions that nobody has checked."""
        return tuple(item.name for item in self.assumptions if item.checked is None)


def confidence_of(delta: Array) -> Array:
    """Compute 1 - delta, and never 1 for a positive delta.

    Args:
        delta: failure probabilities in [0, 1].

    Returns:
        The confidence, of the same shape.

    >>> float(confidence_of(np.array(1e-300))) < 1.0
    True
    """
    below_one = np.nextafter(1.0, 0.0)
    return np.where(delta > 0, np.minimum(1.0 - delta, below_one), 1.0)


def conclude(
    value: Array,
    *,
    name: str,
    source: str,
    assumptions: tuple[Assumption, ...],
    direction: Direction = "upper",
    confidence: Array | float = 1.0,
    trivial: Array | None = None,
    exact: NDArray[np.bool_] | bool = False,
) -> BoundResult:
    """Round a computed bound outward and wrap it up.

    Args:
        value: the bound before rounding, at least 0.
        name: the bound's short name.
        source: paper, version, equation or theorem.
        assumptions: what it rests on.
        direction: ``"upper"`` or ``"lower"``.
        confidence: 1.0, or 1 - delta.
        trivial: what is known without the bound, or None for nothing.
        exact: where the value has no rounding error (a limit that is known), so none is added.

    Returns:
        The result. An upper bound is vacuous where it is at least ``trivial`` or infinite, a lower
        one where it is at most ``trivial``.

    Raises:
        ArithmeticError: if the value is not a number, so that no NaN passes for a bound.
    """
    if np.any(np.isnan(value)):
        raise ArithmeticError(f"{name} must be a number, got value={value!r}")
    outward = rounding.up(value) if direction == "upper" else rounding.down(value)
    rounded = np.where(exact, value, outward)
    limit = np.asarray(np.inf if direction == "upper" else 0.0) if trivial is None else trivial
    vacuous = np.asarray(rounded >= limit if direction == "upper" else rounded <= limit)
    return BoundResult(
        value=rounding.plain(rounded),
        direction=direction,
        confidence=rounding.plain(np.asarray(confidence, dtype=np.float64)),
        source=source,
        assumptions=assumptions,
        vacuous=bool(vacuous) if vacuous.ndim == 0 else vacuous,
        name=name,
        trivial=None if trivial is None else rounding.plain(trivial),
    )
