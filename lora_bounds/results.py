"""What a bound says: its value, its direction, how sure it is, and what it rests on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lora_bounds import rounding
from lora_bounds.domains import Each, Is, Reals, Words, opened
from lora_bounds.rounding import Array, Numbers, quiet

Direction: TypeAlias = Literal["upper", "lower"]

_P = ParamSpec("_P")
_ANY = Reals("[-inf, inf]")


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
        Words(*get_args(Direction))("direction", self.direction)
        _ANY("value", self.value)
        Reals("[0, 1]")("confidence", self.confidence)
        Each(Assumption)("assumptions", self.assumptions)
        Is(str)("source", self.source)
        Is(str)("name", self.name)
        if not isinstance(self.vacuous, np.ndarray):
            Is(bool)("vacuous", self.vacuous)
        if self.trivial is not None:
            _ANY("trivial", self.trivial)
        _freeze(self)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of the assumptions that nobody has checked."""
        return tuple(item.name for item in self.assumptions if item.checked is None)


def _freeze(result: BoundResult) -> None:
    for field in (result.value, result.confidence, result.vacuous, result.trivial):
        if isinstance(field, np.ndarray):
            field.flags.writeable = False


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
    sure = np.asarray(confidence, dtype=np.float64)
    # Not by `__init__`, which checks what it is given.
    result = object.__new__(BoundResult)
    vars(result).update(
        value=rounded if rounded.ndim else float(rounded),
        direction=direction,
        confidence=sure if sure.ndim else float(sure),
        source=source,
        assumptions=assumptions,
        vacuous=vacuous if vacuous.ndim else bool(vacuous),
        name=name,
        trivial=trivial if trivial is None or trivial.ndim else float(trivial),
    )
    _freeze(result)
    return result


def bound(
    name: str, source: str, *assumptions: Assumption
) -> Callable[[Callable[_P, Array | tuple[Array, Array]]], Callable[_P, BoundResult]]:
    """Make a bound of a formula: check its arguments, round its value outward, and name it.

    An argument ``delta`` is the probability with which the bound may fail, and an argument
    ``loss_range`` what is known without it.

    Args:
        name: the bound's short name.
        source: paper, version, equation or theorem.
        *assumptions: what it rests on.

    Returns:
        A decorator for formulas of an upper bound. They return the value or, with it, where it has
        no rounding error.
    """

    def decorate(
        kernel: Callable[_P, Array | tuple[Array, Array]],
    ) -> Callable[_P, BoundResult]:
        def run(**arguments: Any) -> BoundResult:
            with quiet():
                found: Any = kernel(**arguments)  # type: ignore[call-arg]
                value, exact = found if isinstance(found, tuple) else (found, False)
                delta, largest = arguments.get("delta"), arguments.get("loss_range")
                return conclude(
                    value,
                    name=name,
                    source=source,
                    assumptions=assumptions,
                    confidence=1.0 if delta is None else confidence_of(delta),
                    trivial=None
                    if largest is None
                    else np.broadcast_to(largest, value.shape).copy(),
                    exact=exact,
                )

        return opened(kernel, run, BoundResult)

    return decorate
