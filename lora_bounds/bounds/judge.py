"""A bound against what was measured: does it hold, say nothing, or is something wrong?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any

import numpy as np

from lora_bounds.domains import Call, Each, Is, OneNonNegative, OneRate, Vector, checked, short
from lora_bounds.results import Assumption, BoundResult


class Status(StrEnum):
    """What a measured risk says of a bound on it."""

    HOLDS = "holds"
    VACUOUS = "vacuous"
    EXCUSED = "exceeded, an assumption is violated"
    OPEN = "exceeded, an assumption is unchecked"
    CONTRADICTED = "CONTRADICTED"


@dataclass(frozen=True)
class Judgement:
    """One bound, judged.

    Attributes:
        name: the bound.
        bound: its value; an upper bound on the risk.
        gap_bound: ``bound`` minus the empirical risk.
        gap: the measured gap: the middle of the risk's interval minus the empirical risk.
        ratio: ``gap_bound`` over ``gap``; infinite unless the gap is positive.
        status: what the risk's interval says.
        confidence: that of the bound, 1 - delta.
        assumptions: those of the bound, each with what was found of it.
        chance: for an exceeded bound, the largest probability that bound and interval together
            give this by chance although all assumptions hold; else None.
    """

    name: str
    bound: float
    gap_bound: float
    gap: float
    ratio: float
    status: Status
    confidence: float
    assumptions: tuple[Assumption, ...]
    chance: float | None

    @property
    def violated(self) -> tuple[str, ...]:
        """Names of the assumptions that were found not to hold."""
        return tuple(item.name for item in self.assumptions if item.checked is False)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of the assumptions that nobody has checked."""
        return tuple(item.name for item in self.assumptions if item.checked is None)


class _Interval(Vector):
    """A pair (low, high)."""

    def _read(self, name: str, value: Any, call: Call) -> Any:
        ends = super()._read(name, value, Call(sizes={"ends": 2}))
        if ends[0] > ends[1]:
            raise ValueError(f"{name} must be an interval (low, high), got {name}={short(value)}")
        return ends


@checked
def judge(
    result: BoundResult,
    *,
    empirical_risk: OneNonNegative,
    risk: Annotated[tuple[float, float], _Interval("ends")],
    confidence: OneRate,
    facts: Annotated[Mapping[str, bool | None], Is(Mapping)] | None = None,
    assumptions: Annotated[Sequence[Assumption], Each(Assumption)] = (),
    name: Annotated[str, Is(str)] | None = None,
) -> Judgement:
    """Judge an upper bound on a risk by an interval for that risk.

    The interval's unfavourable end decides: the bound counts as exceeded only if even the lower
    end is above it.

    Args:
        result: the bound.
        empirical_risk: the training risk that it was computed from.
        risk: (low, high), an interval for the risk from data that the bound has not seen.
        confidence: confidence of that interval, in [0, 1].
        facts: name of an assumption -> True (holds), False (violated) or None (unknown); names
            that the bound does not rest on are passed over.
        assumptions: further ones beside those of ``result``.
        name: what to call the bound, if not by its own name.

    Returns:
        The judgement.

    Raises:
        ValueError: if the bound is not one upper bound.

    >>> from lora_bounds import hoeffding
    >>> bound = hoeffding(n=1000, delta=0.05, empirical_risk=0.1, loss_range=1.0)
    >>> str(judge(bound, empirical_risk=0.1, risk=(0.05, 0.12), confidence=0.95).status)
    'holds'
    >>> seen = judge(bound, empirical_risk=0.1, risk=(0.3, 0.4), confidence=0.95)
    >>> str(seen.status), seen.unchecked
    ('exceeded, an assumption is unchecked', ('i.i.d. sample', 'unseen data', 'bounded loss'))
    """
    if result.direction != "upper" or np.ndim(result.value) > 0:
        raise ValueError(
            f"result must be one upper bound, got a {result.direction} bound of shape "
            f"{np.shape(result.value)}"
        )
    low, high = float(risk[0]), float(risk[1])
    known = dict(facts or {})
    found = tuple(
        replace(item, checked=known.get(item.name, item.checked))
        for item in dict.fromkeys((*result.assumptions, *assumptions))
    )
    value, gap = float(result.value), (low + high) / 2 - empirical_risk
    status = _status(value, bool(result.vacuous), low, [item.checked for item in found])
    exceeded = status in (Status.EXCUSED, Status.OPEN, Status.CONTRADICTED)
    return Judgement(
        name=name or result.name,
        bound=value,
        gap_bound=value - empirical_risk,
        gap=gap,
        ratio=(value - empirical_risk) / gap if gap > 0 else math.inf,
        status=status,
        confidence=float(result.confidence),
        assumptions=found,
        chance=min(1.0, 2.0 - float(result.confidence) - confidence) if exceeded else None,
    )


def _status(bound: float, vacuous: bool, low: float, checked: list[bool | None]) -> Status:
    if low > bound:
        if False in checked:
            return Status.EXCUSED
        return Status.OPEN if None in checked else Status.CONTRADICTED
    return Status.VACUOUS if vacuous else Status.HOLDS


@checked
def judgement_table(judgements: Annotated[Sequence[Judgement], Each(Judgement)]) -> str:
    """Print judgements as a table, contradictions first and loud.

    Args:
        judgements: the judgements.

    Returns:
        Several lines: bound, gap allowed, ratio to the measured gap, status; below each bound that
        rests on an assumption that is violated or unchecked, which ones.
    """
    lines = []
    for item in judgements:
        if item.status is Status.CONTRADICTED:
            lines.append(
                f"!!! {item.name} IS CONTRADICTED: the risk exceeds {item.bound:.4g} although "
                "every assumption was found to hold (by chance with probability at most "
                f"{item.chance:.2g}). This is a bug or a discovery."
            )
    width = max((len(item.name) for item in judgements), default=4)
    lines.append(f"{'bound':<{width}}  {'value':>8}  {'gap <=':>8}  {'ratio':>7}  status")
    for item in judgements:
        lines.append(
            f"{item.name:<{width}}  {item.bound:8.3g}  {item.gap_bound:8.3g}  {item.ratio:7.3g}  "
            f"{item.status}"
        )
        for label, names in (("violated", item.violated), ("unchecked", item.unchecked)):
            if names:
                lines.append(f"{'':<{width}}  {label}: {', '.join(names)}")
    return "\n".join(lines)
