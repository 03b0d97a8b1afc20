"""Each kind of evidence says all that it saw, word for word, and nothing that it did not."""

import numpy as np
import pytest

import lora_bounds.counterexamples
from lora_bounds.counterexamples import Replay
from lora_bounds.measurements import Measurement
from lora_bounds.trial import evidence
from lora_bounds.trial.claim import Evidence, Finding
from lora_bounds.trial.evidence import (
    Estimate,
    Sweep,
    agreement,
    counterexample,
    measurement,
    proof,
    sweep,
    unseen,
)
from lora_bounds.trial.proof import Proof

STEPS = ("[sympy] a: ok", "[argued] b", "[argued] c")


def _said(piece: Evidence) -> tuple[str, str, str | None]:
    return piece.kind, piece.name, piece.assuming


def _proof(*, holds: bool, steps: tuple[str, ...] = STEPS, **how) -> Evidence:
    def prove_my_claim() -> Proof:
        return Proof(holds, "sympy", "a statement", steps)

    piece = proof(prove_my_claim, **how)
    assert piece.code is prove_my_claim
    return piece


def test_a_proof_proves() -> None:
    piece = _proof(holds=True, assuming="convex")
    assert _said(piece) == ("proof", "my-claim", "convex")
    assert piece.run() == Finding(
        "proves", "sympy: 3 steps, 2 of them argued in words", details=("a statement", *STEPS)
    )


def test_a_proof_of_the_contrary_refutes() -> None:
    piece = _proof(holds=True, steps=STEPS[:1], of_the_contrary=True)
    assert _said(piece) == ("proof", "my-claim", None)
    assert piece.run() == Finding(
        "refutes", "sympy: 1 steps", details=("a statement", "[sympy] a: ok")
    )


@pytest.mark.parametrize("of_the_contrary", [True, False])
def test_a_proof_that_does_not_hold_fails(of_the_contrary) -> None:
    assert _proof(holds=False, of_the_contrary=of_the_contrary).run().effect == "fails"


def test_evidence_is_named_after_its_code() -> None:
    with pytest.raises(ValueError, match="the name of 'unseen' must start with 'prove_'"):
        proof(unseen)


def _swept(slacks, error_probability=None) -> Finding:
    def some_sweep() -> Sweep:
        return Sweep("p in [0, 1]", slacks, error_probability)

    piece = sweep(some_sweep, assuming="n > 1")
    home = f"{__name__.removeprefix('lora_bounds.')}.some_sweep"
    assert _said(piece) == ("sweep", home, "n > 1")
    return piece.run()


def test_a_sweep_without_a_violation_supports() -> None:
    assert _swept([[0.5, 0.0], [2.0, 1.0]], 1e-9) == Finding(
        "supports", "p in [0, 1]: 0 violations in 4 trials",
        margin=0.0, trials=4, error_probability=1e-9,
    )  # fmt: skip


def test_a_sweep_with_a_violation_refutes() -> None:
    assert _swept([0.5, -0.25, -1e-300]) == Finding(
        "refutes", "p in [0, 1]: 2 violations in 3 trials",
        margin=-0.25, trials=3, error_probability=None,
    )  # fmt: skip


@pytest.mark.parametrize("slacks", [[], [1.0, np.nan]])
def test_a_sweep_that_saw_nothing_fails(slacks) -> None:
    assert _swept(slacks) == Finding("fails", "p in [0, 1]: no trial, or NaN among the slacks")


def test_a_sweep_of_the_package_goes_by_its_name_within_it() -> None:
    def some_sweep() -> Sweep:
        return Sweep("", [1.0])

    some_sweep.__module__ = "lora_bounds.claims.masks.eq_2"
    assert _said(sweep(some_sweep)) == ("sweep", "claims.masks.eq_2.some_sweep", None)


def _counterexample(*, refutes: bool, margin: float) -> Evidence:
    def replay_ensemble_vs_mask_free(data) -> Replay:
        assert set(data) == {"update", "target", "p"}
        return Replay(refutes, 1.0, 0.5, margin, ("one", "two"))

    return counterexample(replay_ensemble_vs_mask_free, assuming="convex")


def test_a_counterexample_refutes() -> None:
    stored = lora_bounds.counterexamples.load("ensemble-vs-mask-free")
    piece = _counterexample(refutes=True, margin=-0.5)
    assert _said(piece) == ("counterexample", "ensemble-vs-mask-free", "convex")
    assert piece.run() == Finding(
        "refutes", "replayed in exact arithmetic, the claim fails", margin=-0.5, trials=1,
        details=(f"against: {stored.statement}", "one", "two", stored.remark),
    )  # fmt: skip


@pytest.mark.parametrize("margin", [0.25, -0.25])
def test_a_counterexample_that_does_not_refute_fails(margin) -> None:
    found = _counterexample(refutes=False, margin=margin).run()
    assert (found.effect, found.summary, found.margin, found.trials) == (
        "fails", "the replay shows no violation", margin, 1
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "effect", "margin"),
    [
        (0.5, 2.0, "supports", 0.5),
        (-2.0, -0.5, "refutes", -0.5),
        (-0.5, 2.0, "fails", -0.5),
        (0.0, 2.0, "fails", 0.0),
        (-2.0, 0.0, "fails", -2.0),
    ],
)
def test_the_unfavourable_end_of_a_measurement_decides(
    monkeypatch, low, high, effect, margin
) -> None:
    made = {"command": "make measurements", "commit": "abc"}
    stored = Measurement("m", "does it fall?", {}, {}, made)
    monkeypatch.setattr(evidence, "load_measurement", {"m": stored}.__getitem__)

    def the_fall(seen: Measurement) -> Estimate:
        assert seen is stored
        return Estimate("it falls by 1", low, high, 0.025, 32)

    piece = measurement("m", the_fall, assuming="digits")
    assert _said(piece) == ("measurement", "m: the_fall", "digits")
    assert _said(measurement("m", the_fall))[2] is None
    assert piece.run() == Finding(
        effect, "it falls by 1", margin=margin, trials=32, error_probability=0.025,
        details=("does it fall?", f"interval [{low:.4g}, {high:.4g}]",
                 "measured by: make measurements, commit abc"),
    )  # fmt: skip


def test_agreement_is_relative_to_the_larger_of_one_and_the_expected() -> None:
    assert agreement(0.5, 0.25, 1.0) == pytest.approx(0.75)
    assert agreement([100.0, 0.0], [100.0, -200.0], 1.5) == pytest.approx(0.5)
    assert agreement([1.0, 2.0], [1.0, 2.0], 1e-9) == 1e-9
    assert agreement(3.0, 1.0, 1.0) == -1.0
    assert np.isnan(agreement(np.nan, 1.0, 1.0))


def test_trials_that_all_miss_a_hundredth_of_the_range() -> None:
    assert unseen(0) == 1.0
    assert unseen(2) == pytest.approx(0.99**2)
