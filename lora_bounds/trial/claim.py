"""What a claim is, what counts as evidence, and how evidence becomes a verdict.

A claim carries the verdict on record; `Claim.verify` runs the evidence and derives the verdict
again, from nothing but what ran. Sign convention of every margin: what is left of the claimed
inequality. Positive: it holds with that to spare; negative: it is violated by that much.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from lora_bounds.trial.control import Control
from lora_bounds.trial.search import Inequality

Effect = Literal["proves", "supports", "refutes", "fails"]


class Verdict(StrEnum):
    """What the evidence says of a claim."""

    PROVED = "PROVED"
    HOLDS = "HOLDS"
    HOLDS_UNDER = "HOLDS UNDER"
    REFUTED = "REFUTED"
    NOT_ESTABLISHED = "NOT ESTABLISHED"


@dataclass(frozen=True)
class Finding:
    """What one piece of evidence said when it ran.

    Attributes:
        effect: ``"proves"`` the statement for all values; ``"supports"`` it over a stated range;
            ``"refutes"`` it; or ``"fails"``: the evidence did not deliver what it promised.
        summary: one line.
        margin: least slack seen (negative: a violation), or None.
        trials: number of cases tried, or None for a proof.
        error_probability: for random evidence, the probability of being misled by chance, in the
            sense that the summary states; None when nothing is random.
        details: further lines: steps of a proof, numbers of a counterexample.
    """

    effect: Effect
    summary: str
    margin: float | None = None
    trials: int | None = None
    error_probability: float | None = None
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence: code that runs.

    Attributes:
        kind: what sort of code.
        name: identifier of the proof, counterexample or measurement, or dotted name of the sweep.
        run: runs it.
        assuming: the extra assumption under which it speaks; None: the statement as it stands.
        code: the function of the page behind it.
        hunt: the search that found a counterexample, if one did.
    """

    kind: Literal["proof", "sweep", "counterexample", "measurement"]
    name: str
    run: Callable[[], Finding] = field(repr=False)
    assuming: str | None = None
    code: Callable[..., Any] | None = field(default=None, repr=False)
    hunt: Inequality | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Outcome:
    """A claim after its evidence ran.

    Attributes:
        verdict: derived from the findings alone.
        margin: the margin that decides: of the refutation, or else the least of all sweeps.
        trials: cases tried in all.
        error_probability: sum of those of the findings, None when nothing was random.
        seconds: time taken.
        details: one line a finding.
        findings: the findings, in the order of the evidence.
    """

    verdict: Verdict
    margin: float | None
    trials: int
    error_probability: float | None
    seconds: float
    details: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Claim:
    """A statement under trial.

    Attributes:
        id: short and unique, e.g. ``"Thm 4.4"``.
        paper_item: where it is from.
        statement: one sentence.
        assumptions: what it takes for granted.
        evidence: what speaks for or against it.
        recorded: the verdict on record.
        formula: the statement in symbols.
        functions: dotted names, below ``lora_bounds``, of the functions that code it.
        theorem: name of the formal theorem that states it, if there is one.
        controls: false claims next to it, which the same trial must reject.
        page: the module, below ``lora_bounds``, that holds all this.
    """

    id: str
    paper_item: str
    statement: str
    assumptions: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    recorded: Verdict
    formula: str = ""
    functions: tuple[str, ...] = ()
    theorem: str | None = None
    controls: tuple[Control, ...] = ()
    page: str = ""

    @property
    def extra_assumptions(self) -> tuple[str, ...]:
        """The named assumptions under which some of the evidence speaks."""
        return tuple(dict.fromkeys(e.assuming for e in self.evidence if e.assuming))

    def verify(self, progress: Callable[[str], None] = lambda line: None) -> Outcome:
        """Run the evidence and derive the verdict, without a look at the record.

        Args:
            progress: called with a line before each piece of evidence.

        Returns:
            The outcome. Evidence that raises an error counts as failed.
        """
        start = time.perf_counter()
        findings = []
        for piece in self.evidence:
            progress(f"{self.id}: {piece.kind} {piece.name}")
            findings.append(_run(piece))
        refuting = [f.margin for f in findings if f.effect == "refutes" and f.margin is not None]
        margins = refuting or [f.margin for f in findings if f.margin is not None]
        chances = [f.error_probability for f in findings if f.error_probability is not None]
        return Outcome(
            verdict=derive_verdict(list(zip(self.evidence, findings, strict=True))),
            margin=min(margins, default=None),
            trials=sum(f.trials or 0 for f in findings),
            error_probability=min(1.0, sum(chances)) if chances else None,
            seconds=time.perf_counter() - start,
            details=tuple(
                f"{e.kind} {e.name}{f' (assuming {e.assuming})' if e.assuming else ''} "
                f"{f.effect}: {f.summary}"
                for e, f in zip(self.evidence, findings, strict=True)
            ),
            findings=tuple(findings),
        )


def _run(piece: Evidence) -> Finding:
    try:
        return piece.run()
    except Exception as error:  # a crash is a finding too, and must not hide the other claims
        return Finding("fails", f"{type(error).__name__}: {error}")


def derive_verdict(ran: Sequence[tuple[Evidence, Finding]]) -> Verdict:
    """Turn findings into a verdict.

    Any failed evidence, a statement both proved and refuted, or an extra assumption that does
    not help where the evidence promised it would, leaves the claim NOT ESTABLISHED.

    Args:
        ran: each piece of evidence with what it found.

    Returns:
        REFUTED or HOLDS UNDER if the statement as it stands is refuted; PROVED, HOLDS or HOLDS
        UNDER otherwise.
    """
    plain = {finding.effect for piece, finding in ran if piece.assuming is None}
    under = {finding.effect for piece, finding in ran if piece.assuming is not None}
    if "fails" in plain | under or "refutes" in under or {"proves", "refutes"} <= plain:
        return Verdict.NOT_ESTABLISHED
    if "refutes" in plain:
        return Verdict.HOLDS_UNDER if under else Verdict.REFUTED
    if "proves" in plain:
        return Verdict.PROVED
    if "supports" in plain:
        return Verdict.HOLDS
    return Verdict.HOLDS_UNDER if under else Verdict.NOT_ESTABLISHED
