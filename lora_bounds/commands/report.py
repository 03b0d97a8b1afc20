"""Run the claims and say what came out, as a table and as JSON."""

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_bounds.trial.claim import Claim, Outcome, Verdict


@dataclass(frozen=True)
class ControlRun:
    """A negative control after it ran.

    Attributes:
        name: which one.
        statement: the false claim.
        rejected: whether the machinery rejected it, as it must.
        twin_survives: whether the true claim that it corrupts survived the same trial, as it must.
    """

    name: str
    statement: str
    rejected: bool
    twin_survives: bool


@dataclass(frozen=True)
class Report:
    """Everything that `lora-bounds verify` saw.

    Attributes:
        ran: each claim with its outcome.
        controls: the negative controls.
    """

    ran: tuple[tuple[Claim, Outcome], ...]
    controls: tuple[ControlRun, ...]

    @property
    def differences(self) -> tuple[str, ...]:
        """One line for each verdict that differs from the record and each control gone wrong."""
        verdicts = [
            f"{claim.id}: recorded {claim.recorded}, the evidence says {outcome.verdict}"
            for claim, outcome in self.ran
            if outcome.verdict != claim.recorded
        ]
        passed = [
            f"{c.name}: a false claim was not rejected" for c in self.controls if not c.rejected
        ]
        struck = [
            f"{c.name}: its true twin was rejected" for c in self.controls if not c.twin_survives
        ]
        return (*verdicts, *passed, *struck)

    def as_json(self) -> dict[str, Any]:
        """Plain data for `json.dump`; numbers that are not finite become strings.

        Returns:
            Claims, controls and differences.
        """
        return {
            "claims": [_claim_json(claim, outcome) for claim, outcome in self.ran],
            "controls": [vars(control) for control in self.controls],
            "differences": list(self.differences),
            "seconds": sum(outcome.seconds for _, outcome in self.ran),
        }


def run(
    claims: Sequence[Claim], *, controls: bool, progress: Callable[[str], None] = lambda line: None
) -> Report:
    """Run the evidence of claims and, if asked, the negative controls.

    Args:
        claims: what to verify.
        controls: whether to run the negative controls too.
        progress: called with a line before each step.

    Returns:
        The report.
    """
    ran = tuple((claim, claim.verify(progress)) for claim in claims)
    tried: list[ControlRun] = []
    if controls:
        from lora_bounds.claims import all_controls

        for control in all_controls():
            progress(f"control {control.name}")
            tried.append(
                ControlRun(control.name, control.statement, control.rejected(), control.survives())
            )
    return Report(ran, tuple(tried))


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else repr(value)


def _claim_json(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": claim.id,
        "paper_item": claim.paper_item,
        "statement": claim.statement,
        "assumptions": list(claim.assumptions),
        "extra_assumptions": list(claim.extra_assumptions),
        "verdict": str(outcome.verdict),
        "recorded": str(claim.recorded),
        "margin": _number(outcome.margin),
        "trials": outcome.trials,
        "error_probability": _number(outcome.error_probability),
        "seconds": outcome.seconds,
        "evidence": [
            {
                "kind": piece.kind,
                "name": piece.name,
                "assuming": piece.assuming,
                "effect": found.effect,
                "summary": found.summary,
                "margin": _number(found.margin),
                "trials": found.trials,
                "error_probability": _number(found.error_probability),
                "details": list(found.details),
            }
            for piece, found in zip(claim.evidence, outcome.findings, strict=True)
        ],
    }


def _margin(value: float | None) -> str:
    return "" if value is None else f"{value:+.2g}"


def kinds(claim: Claim) -> str:
    """The evidence of a claim in a few words.

    Args:
        claim: the claim.

    Returns:
        Such as ``"proof, 2 sweeps"``.
    """
    counts = Counter(piece.kind for piece in claim.evidence)
    return ", ".join(kind if k == 1 else f"{k} {kind}s" for kind, k in counts.items())


def table(report: Report, *, width: int = 120) -> str:
    """The table of `lora-bounds verify`.

    Args:
        report: what ran.
        width: where statements are wrapped.

    Returns:
        Several lines, ending in a summary and the differences.
    """
    heads = ("id, statement", "verdict", "evidence", "margin")
    rows = [(c.id, str(o.verdict), kinds(c), _margin(o.margin)) for c, o in report.ran]
    sizes = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(row: tuple[str, ...]) -> str:
        return "  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True))

    lines = [line(heads), line(tuple("-" * size for size in sizes))]
    for (claim, _), row in zip(report.ran, rows, strict=True):
        lines.append(line(row))
        lines += textwrap.wrap(
            claim.statement, width - 4, initial_indent="    ", subsequent_indent="    "
        )
    tally = Counter(str(outcome.verdict) for _, outcome in report.ran)
    lines += ["", ", ".join(f"{tally[v]} {v}" for v in Verdict if tally[v])]
    for claim, outcome in report.ran:
        if outcome.verdict == Verdict.HOLDS_UNDER:
            lines.append(f"  {claim.id} holds under: {'; '.join(claim.extra_assumptions)}")
    if report.controls:
        caught = sum(control.rejected for control in report.controls)
        alive = sum(control.twin_survives for control in report.controls)
        total = len(report.controls)
        lines += ["", f"negative controls: {caught} of {total} false claims rejected, {alive} of "]
        lines[-1] += f"{total} true twins survive the same trial"
        for control in report.controls:
            mark = "rejected" if control.rejected else "NOT REJECTED"
            lines.append(f"  {mark}: {control.name}: {control.statement}")
    failed = [
        f"  {claim.id}: {line}"
        for claim, outcome in report.ran
        if outcome.verdict != claim.recorded
        for line in outcome.details
    ]
    if report.differences:
        lines += ["", "DIFFERENCES", *report.differences, *failed]
    return "\n".join(line.rstrip() for line in lines)
