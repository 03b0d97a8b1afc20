"""The engines: true steps pass, false, vacuous and undecided steps do not."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import sympy
import z3

from lora_bounds.claims import all_evidence, symbolic_masks
from lora_bounds.trial import proof as base
from lora_bounds.trial.proof import Argument, entails, is_zero

X, Y = z3.Reals("x y")
PROOFS = {name: piece.code for name, piece in all_evidence("proof").items()}


def test_identities_are_decided_both_ways():
    x = sympy.Symbol("x")
    assert is_zero(sympy.Matrix([(x**2 - 1) / (x - 1) - x - 1, 0]))
    assert not is_zero(sympy.Matrix([0, x]))


@pytest.mark.parametrize(
    ("hypotheses", "conclusion", "outcome"),
    [
        ([X >= 1], X * X >= X, True),
        ([X >= 0], X * X >= X, False),  # x = 1/2
        ([X > 0, X < 0], Y == 0, False),  # anything follows from a contradiction: not accepted
    ],
)
def test_entailment(hypotheses, conclusion, outcome):
    assert entails(hypotheses, conclusion) is outcome


def test_unknown_is_never_a_proof(monkeypatch):
    solver = SimpleNamespace(set=lambda *a: None, add=lambda *a: None, check=lambda: z3.unknown)
    fake = SimpleNamespace(Solver=lambda: solver, Not=z3.Not, sat=z3.sat, unsat=z3.unsat)
    monkeypatch.setattr(base, "require_z3", lambda: fake)
    assert entails([X > 0], X > -1) is None
    argument = Argument("undecided")
    argument.implies("a step", [X > 0], X > -1)
    assert not argument.done().holds
    assert argument.done().steps == ("[z3] a step: UNDECIDED",)


def test_one_false_step_spoils_the_argument():
    x = sympy.Symbol("x")
    argument = Argument("x = 0")
    argument.zero("true", x - x)
    argument.zero("false", x)
    argument.check("true again", True)
    proof = argument.done()
    assert not proof.holds
    assert [step.rsplit(": ", 1)[1] for step in proof.steps] == ["ok", "FAILED", "ok"]


def test_words_alone_prove_nothing():
    argument = Argument("obvious")
    argument.argued("clearly")
    assert not argument.done().holds


def test_missing_z3_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "z3", None)
    with pytest.raises(ImportError, match="extra 'proofs'"):
        PROOFS["floor"]()


def test_unknown_laws_are_rejected():
    one = sympy.eye(1)
    with pytest.raises(ValueError, match="law='diagonal'"):
        next(symbolic_masks.symbolic_updates("diagonal", one, one, sympy.Symbol("p")))


def test_importing_the_proofs_loads_no_engine():
    code = (
        "import sys, lora_bounds.claims as c; c.all_claims();"
        "print({'sympy', 'z3', 'flint'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.claim("Audit 1", "Gap is replace-one stability")
def test_every_proof_holds_within_a_minute():
    start = time.perf_counter()
    outcomes = {name: prove() for name, prove in PROOFS.items()}
    assert time.perf_counter() - start < 60
    assert [name for name, proof in outcomes.items() if not proof.holds] == []
    assert all(len(proof.statement) > 40 and proof.steps for proof in outcomes.values())


@pytest.mark.parametrize(
    "name",
    ["sparsity-penalty", "mask-covariance", "rank-masks", "degeneracy", "dropout-kl"],
)
def test_a_proof_fails_under_the_wrong_mask_law(name, monkeypatch):
    """With keep and drop probability exchanged none of these statements is true."""
    right = symbolic_masks.keep_vectors
    page = sys.modules[PROOFS[name].__module__]
    monkeypatch.setattr(page, "keep_vectors", lambda size, dropout: right(size, 1 - dropout))
    assert not PROOFS[name]().holds


@pytest.mark.parametrize("name", ["variance-table", "dropout-equivalence", "induced-regularizer"])
def test_a_proof_fails_without_one_mask(name, monkeypatch):
    """Masking columns alone is not LoRA Dropout."""
    right = symbolic_masks.symbolic_updates

    def columns_only(law, b, a, dropout):
        if law != "row_column":
            yield from right(law, b, a, dropout)
            return
        for keep, prob in symbolic_masks.keep_vectors(a.cols, dropout):
            yield b * a * sympy.diag(*keep), prob

    for target in (symbolic_masks, sys.modules[PROOFS[name].__module__]):
        monkeypatch.setattr(target, "symbolic_updates", columns_only, raising=False)
    assert not PROOFS[name]().holds


D, K, RHO, GAP = z3.Reals("d k rho gap")


@pytest.mark.parametrize(
    ("hypotheses", "conclusion"),
    [
        # The repaired stability with its constant halved.
        ([K > 0, RHO >= 0, D >= 0, K * D * D <= RHO * D], 2 * K * D <= RHO),
        # Lemma A.1, step A.6, without the factor 2.
        ([K > 0, D >= 0, RHO >= 0, K * D * D <= 2 * RHO * D], K * D <= RHO),
        # Monotone in p beyond p = 1.
        ([X >= 0, X <= Y], 2 * X - X * X <= 2 * Y - Y * Y),
        # Chebyshev with delta squared.
        ([K > 0, D > 0, D < 1, GAP * K <= D * K], GAP <= D * D),
    ],
)
def test_corrupted_steps_have_counter_models(hypotheses, conclusion):
    assert entails(hypotheses, conclusion) is False
