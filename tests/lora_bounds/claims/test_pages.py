"""The pages of claims: complete, current, and able to say no."""

import importlib
import inspect
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lora_bounds import claims, counterexamples
from lora_bounds.claims import all_claims, find_claims, related_claims
from lora_bounds.claims.linear_layer.fig_4 import scale_risks
from lora_bounds.claims.measured import on_digits as measured
from lora_bounds.claims.regimes.atoms import curves
from lora_bounds.claims.regimes.t2 import gap_rate_in_n
from lora_bounds.commands.reference import marked_tests
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import sweep

CLAIMS = all_claims()
REQUIRED = (
    *("Eq. 9", "Eq. 10", "Eq. 11", "Def. 4.1", "Lemma A.1", "Prop. 4.2", "Prop. A.2"),
    *("Lemma 4.3", "Thm 4.4", "Thm 4.5", "A.3", "T1", "T2", "T3", "T4", "T5"),
)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_the_evidence_gives_the_recorded_verdict(claim: Claim) -> None:
    outcome = claim.verify()
    assert outcome.verdict == claim.recorded, outcome.details


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_claims_are_complete(claim: Claim) -> None:
    assert claim.statement.endswith(".")
    assert claim.formula
    assert claim.evidence
    if claim.recorded == Verdict.NOT_ESTABLISHED:  # a measurement may leave a claim open
        assert {piece.kind for piece in claim.evidence} == {"measurement"}
    assert marked_tests()[claim.id]
    assert (claim.recorded == Verdict.HOLDS_UNDER) == bool(claim.extra_assumptions)


def test_ids_are_unique() -> None:
    assert max(Counter(claim.id for claim in CLAIMS).values()) == 1


@pytest.mark.parametrize("item", REQUIRED)
def test_every_item_of_the_paper_is_there(item: str) -> None:
    parts = {part.split(",")[0] for claim in CLAIMS for part in claim.paper_item.split(", ")}
    assert item in parts


@pytest.mark.parametrize("number", range(1, 13))
def test_every_finding_of_the_audit_is_there(number: int) -> None:
    assert any(claim.id.split(",")[0] == f"Audit {number}" for claim in CLAIMS)


def test_no_page_and_no_evidence_lies_idle() -> None:
    """What a page or a file says is found: in the contents, and as evidence of a claim."""
    walked = [info.name for info in pkgutil.walk_packages(claims.__path__, "lora_bounds.claims.")]
    modules = [importlib.import_module(name) for name in walked]
    pages = {
        m.__name__.removeprefix("lora_bounds.claims.") for m in modules if hasattr(m, "CLAIMS")
    }
    assert sorted(claims.CONTENTS) == sorted(pages)
    evidence = ("proof", "counterexample", "sweep", "measurement")
    used = {piece.code for kind in evidence for piece in claims.all_evidence(kind).values()}
    sweeps = inspect.signature(gap_rate_in_n)
    measures = inspect.signature(measured.gap_rate)
    for module in modules:
        for name, made in inspect.getmembers(module, inspect.isfunction):
            if made.__module__ == module.__name__ and (
                name.startswith(("prove_", "replay_"))
                or inspect.signature(made) in (sweeps, measures)
            ):
                assert made in used or name.startswith("_"), name
    assert set(claims.all_evidence("counterexample")) == set(counterexamples.ids())


def _with_q_equal_p(*, dropout: Any) -> Any:
    return dropout


def _scaled(function: Callable[..., Any], factor: float) -> Callable[..., Any]:
    def scaled(**arguments: Any) -> Any:
        result = function(**arguments)
        if not hasattr(result, "value"):
            return result * factor
        return type(result)(**{**vars(result), "value": result.value * factor})

    return scaled


# A quarter for Lemma A.1: for quadratics, half of its constant is enough, and that is proved.
CORRUPTIONS = [
    ("drop_probability", "Eq. 2", None),
    ("dropped_norm", "Eq. 11", 0.5),
    ("inner_maximum", "Audit 1", 0.5),
    ("lemma_a1", "Lemma A.1", 0.25),
    ("lemma_a1", "Lemma A.1, half the constant", 0.8),
    ("mean_factor", "Linear layer, free ensemble", 0.5),
    ("self_consistent_lipschitz", "Audit 3", 0.5),
    ("uniform_stability", "Audit 5", 0.5),
    ("theorem_4_4", "Thm 4.4", 0.5),
    ("lemma_4_3", "Audit 7", 0.5),
    ("clopper_pearson", "Held-out, Clopper-Pearson", 0.5),
    ("hoeffding", "Held-out, Hoeffding", 0.5),
    ("pac_bayes_kl_bound", "PAC-Bayes dropout", 0.5),
    ("ensemble_excess", "Eq. 8", 0.5),
    ("mask_variance", "Linear layer, LoRA Dropout", 0.5),
    ("minimizer", "Linear layer, minimiser", 0.5),
    ("induced_regularizer", "Linear layer, induced regulariser", 0.5),
    ("trained_update", "Linear layer, raw update", 0.5),
    ("dropout_kl", "PAC-Bayes dropout, KL", 0.5),
    ("turning_ratio", "T1, few examples", -1.0),
    ("dropout_turning_ratio", "T1, LoRA Dropout", 2.0),
]


@pytest.mark.parametrize(("name", "claim_id", "how"), CORRUPTIONS)
def test_a_corrupted_formula_changes_the_verdict(
    monkeypatch: pytest.MonkeyPatch, name: str, claim_id: str, how: float | None
) -> None:
    (claim,) = find_claims(claim_id)
    page = importlib.import_module(f"lora_bounds.{claim.page}")
    wrong = _with_q_equal_p if how is None else _scaled(getattr(page, name), how)
    monkeypatch.setattr(page, name, wrong)
    assert claim.verify().verdict != claim.recorded


def test_without_z3_a_proof_fails_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "z3", None)
    (claim,) = find_claims("Audit 3")
    outcome = claim.verify()
    assert outcome.verdict == Verdict.NOT_ESTABLISHED
    assert "pip install 'lora-dropout[proofs]'" in outcome.details[0]


@pytest.mark.claim("Lemma A.1, eta of the plain loss")
def test_plain_slope_in_lemma_a1_by_hand() -> None:
    """Two losses t and -t, penalty t^2: 3/4 of change against a bound of 1/2."""
    (claim,) = find_claims("Lemma A.1, eta of the plain loss")
    found = claim.evidence[0].run()
    assert found.effect == "refutes"
    t = np.linspace(-2, 2, 4001)  # slow route: minimise on a grid
    both = t[np.argmin((t - t) / 2 + t**2)]
    without_first = t[np.argmin(-t + t**2)]
    change = (without_first + without_first**2) - (both + both**2)
    assert change == pytest.approx(0.75, abs=1e-9)


@pytest.mark.claim("T2, the gap itself")
def test_the_gap_shrinks_like_one_over_n() -> None:
    """From the curves over all samples of two atoms, doubling n halves the gap."""
    atoms, truth = np.array([[1.0], [2.0]]), np.array([1.0])
    gaps = []
    for n in (40, 80):
        law = curves(atoms, truth, n, np.array([1.0]))
        test, train = law.signal_test + law.noise_test, law.signal_train + law.noise_train
        gaps.append(float((test - train)[0]))
    assert gaps[0] / gaps[1] == pytest.approx(2.0, rel=0.05)
    found = sweep(gap_rate_in_n).run()
    assert found.margin == pytest.approx(0.1 - 0.5, abs=0.02)


@pytest.mark.claim("Fig. 4, order from scale alone")
@pytest.mark.parametrize(("noise", "better"), [(3.0, True), (0.01, False)])
def test_order_of_fig_4_by_simulation(noise: float, better: bool) -> None:
    """One weight 1, inputs +-1, p = 1/2: least squares, whole or scaled by 1/4."""
    rng, n, trials = np.random.default_rng(0), 4, 20_000
    fits = 1 + noise * rng.standard_normal((trials, n)).mean(axis=1)
    simulated = [float(np.mean((scale * fits - 1) ** 2)) for scale in (0.25, 1.0)]
    exact = scale_risks(np.array([1.0]), noise, n, 0.5)
    assert (simulated[0] < simulated[1]) == (exact[0] < exact[1]) == better
    # fits has variance v = noise^2/n, so each squared error has standard deviation at most
    # sqrt(2) v + 2 sqrt(v); eight standard errors of the mean leave less than 1 in 64 by Chebyshev.
    v = noise**2 / n
    assert simulated == pytest.approx(exact, abs=8 * (2**0.5 * v + 2 * v**0.5) / trials**0.5)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("Thm 4.4", ["Thm 4.4"]),
        ("thm4.4", ["Thm 4.4"]),
        ("Def. 4.1", ["Def 4.1"]),
        ("Bousquet and Elisseeff 2002 Lemma 7", ["Gap is replace-one stability"]),
    ],
)
def test_claims_are_found_by_id_or_item(query: str, found: list[str]) -> None:
    assert [claim.id for claim in find_claims(query)] == found


def test_claims_are_looked_for_where_one_says() -> None:
    (one,) = find_claims("Eq. 9")
    assert find_claims("Eq. 9", iter([one])) == (one,)
    with pytest.raises(ValueError, match=r"no claim 'Eq. 11'"):
        find_claims("Eq. 11", [one])


def test_an_unknown_claim_brings_close_matches() -> None:
    with pytest.raises(ValueError, match=r"no claim 'Theorem 4.4'.*did you mean .*'Thm 4.4'"):
        find_claims("Theorem 4.4")
    with pytest.raises(ValueError, match=r"no claim '\?\?' \('lora-bounds show' lists them all\)"):
        find_claims("??")


def test_related_claims_share_a_paper_item() -> None:
    (claim,) = find_claims("Eq. 11")
    names = {other.id for other in related_claims(claim)}
    assert {"Audit 1", "Audit 2"} <= names
    assert "Eq. 11" not in names
    (claim,) = find_claims("Eq. 9")
    assert [other.id for other in related_claims(claim)] == ["Audit 1"]
    (claim,) = find_claims("Prop 4.2")  # also Prop. A.2: the parts of the item are split
    assert {other.id for other in related_claims(claim)} >= {"Audit 3", "Audit 8"}
    assert not {other.id for other in related_claims(claim)} & {"Thm 4.4", "Eq. 9"}
