"""Each stored counterexample refutes, and stops refuting when its point is taken away."""

import json
import math
import sys
from dataclasses import replace
from fractions import Fraction
from importlib import resources

import pytest

from lora_bounds import counterexamples
from lora_bounds.claims import all_evidence
from lora_bounds.counterexamples import hunts, load, replay
from lora_bounds.trial.search import search, violates

HALF, HUNTS = Fraction(1, 2), hunts.hunts()
# The same replay on numbers where the claim is true.
HARMLESS = {
    "prop-4-2-logistic": {"z": [Fraction(1), Fraction(1, 100), Fraction(-1)], "exponent": 4},
    "a3-parameters": {"theta": [Fraction(1), Fraction(1)]},
    "ensemble-vs-mask-free": {"update": Fraction(1), "target": Fraction(1, 4), "p": HALF},
    "ensemble-zero-one": {"base": Fraction(1), "update": Fraction(-3), "p": HALF},
    "stability-rises": {
        "points": [[Fraction(1), Fraction(2)], [Fraction(1), Fraction(-2)]],
        "regularization": Fraction(1), "p_low": Fraction(1, 4), "p_high": Fraction(1),
    },
    "gap-turns-up": {
        "atoms": [[Fraction(1), Fraction(2)], [Fraction(1), Fraction(-2)]], "n": 2,
        "regularization": Fraction(1), "p": [Fraction(0), HALF, Fraction(1)],
    },
    "test-risk-not-u-shaped": {
        "atoms": [[Fraction(1), Fraction(2)], [Fraction(1), Fraction(-2)]], "n": 2,
        "regularization": Fraction(1), "p": [Fraction(0), HALF, Fraction(1)],
    },
    "eq-9-degenerate": {
        "update": Fraction(0), "p": HALF, "regularization": HALF, "target": Fraction(1),
    },
    "full-dropout-limit": {"regularization": HALF, "target": Fraction(0)},
    "lemma-4-3-pointwise-only": {"atoms": 3, "n": 2, "delta": HALF},
    "rank-masks-add-sparsity": {"p": Fraction(0), "rank": 1},
    "dropout-correlated-inputs": {
        "p": HALF, "mean_update": [Fraction(1), Fraction(1)],
        "sigma": [[Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]],
    },
}  # fmt: skip


def test_the_lists_agree():
    assert set(counterexamples.ids()) == set(all_evidence("counterexample")) == set(HARMLESS)
    assert len(HUNTS) == 6
    assert len(counterexamples.ids()) >= 8


@pytest.mark.claim(
    "Eq. 9",
    "Remark p -> 1",
    "T5, rank masks",
    "Lemma A.1",
    "Prop 4.2",
    "Audit 4",
    "Audit 8",
    "Lemma 4.3",
    "A.3",
    "Audit 10, mask-free network",
    "Audit 10, 0-1 error",
    "Linear layer, dropout at rate q",
    "T1",
    "T3, test risk",
)
@pytest.mark.parametrize("cx_id", sorted(HARMLESS))
def test_it_refutes(cx_id):
    cx = load(cx_id)
    result = replay(cx)
    assert result.refutes
    assert result.lhs > result.rhs
    assert result.margin == pytest.approx(result.rhs - result.lhs)
    assert result.margin < 0
    assert len(result.steps) >= 2
    assert all((cx.claim, cx.statement, cx.found_by, cx.remark))


@pytest.mark.parametrize("cx_id", sorted(HARMLESS))
def test_the_replay_can_fail_to_refute(cx_id):
    assert not replay(replace(load(cx_id), data=HARMLESS[cx_id])).refutes


@pytest.mark.parametrize("cx_id", sorted(HARMLESS))
def test_the_numbers_are_exact_and_small(cx_id):
    text = (resources.files(counterexamples) / "data" / f"{cx_id}.json").read_text()

    def forbid(number):
        raise AssertionError(f"{cx_id} stores the float {number}")

    json.loads(text, parse_float=forbid)

    def leaves(value):
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from leaves(item)
        else:
            yield value

    for number in leaves(load(cx_id).data):
        assert abs(number) <= 100
        assert Fraction(number).denominator <= 100


@pytest.mark.claim("Audit 4")
@pytest.mark.parametrize("cx_id", sorted(HUNTS))
def test_the_stated_search_finds_what_is_stored(cx_id):
    command = load(cx_id).found_by.split()
    assert command[:4] == ["python", "-m", "lora_bounds.counterexamples.hunts", cx_id]
    trials, seed = int(command[command.index("--trials") + 1]), int(command[-1])
    result = search(HUNTS[cx_id], trials=trials, seed=seed)
    assert result.refuted
    stored = load(cx_id).data
    assert json.dumps(hunts._plain(result.problem)) == json.dumps(hunts._plain(stored))
    assert violates(HUNTS[cx_id], stored)


def test_the_command_prints_json(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hunts", "a3-parameters", "--trials", "5"])
    hunts.main()
    report = json.loads(capsys.readouterr().out)
    assert report["refuted"] is True
    assert report["data"] == {"theta": ["0", "1"]}


def test_unknown_names_are_rejected():
    with pytest.raises(ValueError, match="cx_id='none'"):
        load("none")
    with pytest.raises(ValueError, match="cx\\.id='none'"):
        replay(replace(load("a3-parameters"), id="none"))


@pytest.mark.claim("A.3", "Audit 10, mask-free network")
def test_a_few_by_hand():
    """The numbers a reader gets with pencil and paper."""
    assert replay(load("ensemble-vs-mask-free")).lhs == 9 / 32
    assert replay(load("full-dropout-limit")).lhs == 1 / 2
    assert replay(load("rank-masks-add-sparsity")).lhs == 7 / 8
    assert replay(load("dropout-correlated-inputs")).lhs == 7
    assert replay(load("a3-parameters")).lhs == math.sqrt(1 / 2)
    assert replay(load("lemma-4-3-pointwise-only")).lhs == 1
    # Eq. 9: dtheta = 1 at p = 1/2 has E norm(d*dtheta)^2 = 3/4; Eq. 11 is minimised at 4/7.
    eq_9 = replay(load("eq-9-degenerate"))
    assert eq_9.lhs == 3 / 4
    assert "4/7" in eq_9.steps[-1]
