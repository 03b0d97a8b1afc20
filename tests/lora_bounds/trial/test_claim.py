"""The verdict follows from the evidence that ran, and from nothing else."""

import math

import pytest

from lora_bounds.trial.claim import Claim, Effect, Evidence, Finding, Verdict, derive_verdict
from lora_bounds.trial.evidence import Sweep, agreement, proof, sweep, unseen
from lora_bounds.trial.proof import Proof


def piece(effect: Effect, assuming: str | None = None, margin: float | None = None) -> Evidence:
    return Evidence("sweep", "made up", lambda: Finding(effect, "seen", margin, 3, 0.25), assuming)


def claim(*evidence: Evidence, recorded: Verdict = Verdict.PROVED) -> Claim:
    return Claim("X", "Eq. 0", "one is one", (), evidence, recorded)


P, S, R, F = "proves", "supports", "refutes", "fails"


@pytest.mark.parametrize(
    ("plain", "under", "verdict"),
    [
        ([P], [], Verdict.PROVED),
        ([P, S], [], Verdict.PROVED),
        ([S, S], [], Verdict.HOLDS),
        ([S], [P], Verdict.HOLDS),
        ([S, R], [], Verdict.REFUTED),
        ([R], [P], Verdict.HOLDS_UNDER),
        ([R], [S], Verdict.HOLDS_UNDER),
        ([], [S], Verdict.HOLDS_UNDER),
        ([], [], Verdict.NOT_ESTABLISHED),
        ([P, F], [], Verdict.NOT_ESTABLISHED),
        ([R, F], [], Verdict.NOT_ESTABLISHED),
        ([P, R], [], Verdict.NOT_ESTABLISHED),
        ([R], [R], Verdict.NOT_ESTABLISHED),
        ([R], [F], Verdict.NOT_ESTABLISHED),
        ([P], [R], Verdict.NOT_ESTABLISHED),
    ],
)
def test_verdict_rules(plain: list[Effect], under: list[Effect], verdict: Verdict) -> None:
    pieces = [piece(e) for e in plain] + [piece(e, "more") for e in under]
    assert derive_verdict([(p, p.run()) for p in pieces]) == verdict


@pytest.mark.parametrize("recorded", list(Verdict))
def test_the_record_never_leaks_into_the_outcome(recorded: Verdict) -> None:
    assert claim(piece("supports"), recorded=recorded).verify().verdict == Verdict.HOLDS


def test_outcome_adds_up_and_reports_progress() -> None:
    lines: list[str] = []
    outcome = claim(piece("supports", margin=2.0), piece("supports", margin=0.5)).verify(
        lines.append
    )
    assert (outcome.margin, outcome.trials, outcome.error_probability) == (0.5, 6, 0.5)
    assert lines == ["X: sweep made up"] * 2
    assert outcome.seconds >= 0


def test_the_margin_of_a_refuted_claim_is_that_of_the_refutation() -> None:
    pieces = piece("refutes", margin=-0.25), piece("supports", "more", margin=-7.0)
    outcome = claim(*pieces).verify()
    assert (outcome.verdict, outcome.margin) == (Verdict.HOLDS_UNDER, -0.25)


def test_a_crash_is_a_failed_finding() -> None:
    def crash() -> Finding:
        raise RuntimeError("no such number")

    outcome = claim(Evidence("proof", "broken", crash)).verify()
    assert outcome.verdict == Verdict.NOT_ESTABLISHED
    assert "RuntimeError: no such number" in outcome.details[0]


def test_extra_assumptions_are_listed_once() -> None:
    pieces = piece("supports", "b"), piece("supports", "a"), piece("supports", "b")
    assert claim(*pieces).extra_assumptions == ("b", "a")


@pytest.mark.parametrize(
    ("slacks", "effect"),
    [([0.0, 1.0], "supports"), ([1.0, -1e-300], "refutes"), ([], "fails"), ([math.nan], "fails")],
)
def test_a_sweep_refutes_at_the_first_negative_slack(slacks: list[float], effect: Effect) -> None:
    def tried() -> Sweep:
        return Sweep("some numbers", slacks)

    evidence = sweep(tried)
    assert evidence.run().effect == effect
    assert evidence.name.endswith("tried")


def test_a_proof_that_does_not_hold_fails() -> None:
    def prove_wrong() -> Proof:
        return Proof(False, "sympy", "1 = 2", ("[sympy] 1 = 2: FAILED",))

    assert proof(prove_wrong).run().effect == "fails"


def test_agreement_is_relative_and_unseen_is_a_power() -> None:
    assert agreement([1.0, 2.0], [1.0, 2.0], 1e-12) == 1e-12
    assert agreement(1e6 + 1, 1e6, 1e-12) < 0
    assert math.isnan(agreement(math.nan, 1.0, 1e-12))
    assert unseen(2) == pytest.approx(0.99**2, rel=1e-12)
