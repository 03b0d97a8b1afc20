"""Counterexamples to the paper's claims: small numbers, stored as JSON, replayed exactly.

Examples:
    >>> from lora_bounds import counterexamples
    >>> cx = counterexamples.load("ensemble-vs-mask-free")
    >>> result = counterexamples.replay(cx)
    >>> result.refutes, result.lhs, result.rhs
    (True, 0.28125, 0.0)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from typing import Any, TypeAlias

Data: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Counterexample:
    """Numbers that refute a claim.

    Attributes:
        id: Its name, also the name of its file.
        claim: The item of the paper it is about.
        statement: The claim that it refutes, in words.
        data: The numbers; every fraction exact.
        found_by: The command that found it, or how it was derived.
        remark: What it means, and what it does not.
    """

    id: str
    claim: str
    statement: str
    data: dict[str, Any]
    found_by: str
    remark: str


@dataclass(frozen=True)
class Replay:
    """The outcome of replaying a counterexample.

    Attributes:
        refutes: Whether lhs > rhs, decided in exact or ball arithmetic.
        lhs: Left side of the claim lhs <= rhs, as a float for reading.
        rhs: Right side, likewise.
        margin: rhs - lhs; negative when it refutes.
        steps: The computation, line by line, to follow by hand.
    """

    refutes: bool
    lhs: float
    rhs: float
    margin: float
    steps: tuple[str, ...]


def ids() -> tuple[str, ...]:
    """Names of all stored counterexamples.

    Returns:
        The ids in alphabetical order.
    """
    folder = resources.files(__package__) / "data"
    return tuple(sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".json")))


def load(cx_id: str) -> Counterexample:
    """Read a stored counterexample.

    Args:
        cx_id: One of `ids()`.

    Returns:
        The counterexample, its fractions exact.

    Raises:
        ValueError: There is no such counterexample.
    """
    if cx_id not in ids():
        raise ValueError(f"no counterexample with cx_id={cx_id!r}; known: {', '.join(ids())}")
    file = resources.files(__package__) / "data" / f"{cx_id}.json"
    try:
        record = json.loads(file.read_text())
        record["data"] = _exact(record["data"])
        return Counterexample(id=cx_id, **record)
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {str(error)[:200]}") from error


def replay(cx: Counterexample) -> Replay:
    """Recompute both sides of the claim in exact arithmetic.

    Args:
        cx: A counterexample, as `load` returns it (its data may have been edited).

    Returns:
        Both sides, and whether the claim fails.

    Raises:
        ValueError: No replay is known under this id.
    """
    from lora_bounds.claims import all_evidence

    known = all_evidence("counterexample")
    if cx.id not in known:
        raise ValueError(f"no replay for cx.id={cx.id!r}")
    code = known[cx.id].code
    assert code is not None
    found: Replay = code(cx.data)
    return found


def replayed(lhs: Any, rhs: Any, steps: Sequence[str], refutes: bool | None = None) -> Replay:
    """Both sides of a claim, recomputed.

    Args:
        lhs: Left side of the claim lhs <= rhs, exact.
        rhs: Right side, likewise.
        steps: The computation, line by line.
        refutes: Whether the claim fails; lhs > rhs unless given.

    Returns:
        The outcome.
    """
    decided = bool(lhs > rhs) if refutes is None else refutes
    return Replay(decided, float(lhs), float(rhs), float(rhs) - float(lhs), tuple(steps))


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    return Fraction(value) if isinstance(value, str) else value
