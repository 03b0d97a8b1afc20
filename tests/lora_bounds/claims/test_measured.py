"""The statistics behind the measured claims: they find what is planted, and say no to its reverse.

The files themselves are judged in `test_pages.py`, with every other piece of evidence.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_bounds.claims.measured import error_rates
from lora_bounds.claims.measured import on_digits as measured
from lora_bounds.claims.measured.error_rates import P, gap_over_n, loss_over_p, members, retrained
from lora_bounds.measurements import Measurement, ids, load
from lora_bounds.trial.evidence import Estimate

RESULTS = Path(__file__).parents[3] / "benchmarks/results/error_rates.json"

Make = Callable[[np.random.Generator], Measurement]


def _rates(gap: float, train: float, bend: float) -> Make:
    """Gap and training loss with these slopes in p, and this bend around p = 0.375."""
    low = 1.0 + train * P + bend * (P - 0.375) ** 2
    high = low + 2.0 + gap * P
    return loss_over_p(high, low, other=high, other_train=low)


def _ensemble(metric: str, gain: float) -> Make:
    """The gain of an infinite ensemble at p = 0.5 over one member; plain LoRA gains half of it."""
    means = np.full((3, 6), gain / 2.0)
    means[2, :-1] = gain * (1.0 - 1.0 / np.sqrt([1, 2, 4, 8, 16]))
    return members(metric, means, scale=0.1)


ESTIMATES: list[tuple[Callable[[Measurement], Estimate], Make, Make]] = [
    (measured.gap_falls_over_p, _rates(-2, 0, 0), _rates(2, 0, 0)),
    (measured.gap_falls_over_p_under_noise, _rates(-2, 0, 0), _rates(2, 0, 0)),
    (measured.gap_is_smaller_with_dropout, _rates(-2, 0, 0), _rates(2, 0, 0)),
    (measured.training_loss_rises_over_p, _rates(0, 1, 0), _rates(0, -1, 0)),
    (measured.test_loss_is_u_shaped, _rates(0, 0, 4), _rates(0, 0, -4)),
    (measured.test_loss_is_u_shaped_under_noise, _rates(0, 0, 4), _rates(-2, 0, 0)),
    (
        measured.gap_rate,
        gap_over_n(-0.5, -0.48, scatter=0.2),
        gap_over_n(-1.0, -0.5, scatter=0.2),
    ),
    (
        measured.stability_rate_of_lora,
        retrained(exponents=(-1.1, -2.0), scatter=0.2),
        retrained(exponents=(-0.4, -1.0)),
    ),
    (
        measured.stability_rate_of_lora_dropout,
        retrained(exponents=(-2.0, -0.9), scatter=0.2),
        retrained(exponents=(-1.0, -2.0)),
    ),
    (measured.dropout_lowers_stability, retrained(ratio=1.0), retrained(ratio=-1.0)),
    (measured.leaving_out_moves_less_than_a_seed, retrained(ratio=1.0), retrained(ratio=-1.0)),
    *(
        (estimate, _ensemble(metric, gain), _ensemble(metric, -gain))
        for estimate, metric, gain in (
            (measured.ensemble_accuracy_rises_with_size, "accuracy", 0.5),
            (measured.ensemble_beats_the_mean_network, "loss", -0.5),
            (measured.ensemble_beats_lora_in_loss, "loss", -0.5),
            (measured.ensemble_beats_lora_in_accuracy, "accuracy", 0.5),
            (measured.ensemble_is_better_calibrated_than_lora, "ece", -0.5),
        )
    ),
]


@pytest.mark.claim(
    "Digits, gap over p",
    "Digits, gap over p, corrupted labels",
    "Digits, gap with and without dropout",
    "Digits, training loss over p",
    "Digits, test loss over p",
    "Digits, test loss over p, corrupted labels",
    "Digits, gap over n",
    "Digits, stability over n",
    "Digits, stability over n, plain LoRA",
    "Digits, stability against p",
    "Digits, example against seed",
    "Digits, ensemble size",
    "Digits, ensemble against mean network",
    "Digits, test loss against LoRA",
    "Digits, accuracy against LoRA",
    "Digits, calibration against LoRA",
)
@pytest.mark.parametrize(
    ("estimate", "planted", "reverse"), ESTIMATES, ids=lambda item: getattr(item, "__name__", "")
)
def test_it_finds_what_is_planted_and_refutes_the_reverse(
    estimate: Callable[[Measurement], Estimate], planted: Make, reverse: Make
) -> None:
    rng = np.random.default_rng(0)
    assert estimate(planted(rng)).low > 0
    assert estimate(reverse(rng)).high < 0


@pytest.mark.parametrize(
    "case",
    error_rates.cases(),
    ids=lambda case: f"{case.estimate.__name__}: {case.name}",
)
def test_a_claim_that_just_misses_is_rarely_called_otherwise(case: error_rates.Case) -> None:
    """The command runs 2,000 repeats; here enough to catch a test that does not test its claim."""
    assert error_rates.try_claim(case, repeats=40).kept


def test_the_error_rates_on_file_are_of_these_claims_and_kept() -> None:
    content = json.loads(RESULTS.read_text())
    assert (content["claims"], content["error"]) == (measured.N_CLAIMS, measured.ERROR)
    assert content["error"] * content["claims"] <= content["family_error"] * (1 + 1e-12)
    found = {(rate["what"], rate["case"]): rate for rate in content["rates"]}
    for case in error_rates.cases():
        rate = found[case.estimate.__name__, case.name]
        assert rate["repeats"] == error_rates.REPEATS
        assert rate["promised"] == measured.ERROR
    assert all(rate["kept"] and rate["lower"] <= rate["promised"] for rate in content["rates"])


def test_every_claim_has_its_share_of_the_family_and_its_cases() -> None:
    assert len(measured.CLAIMS) == measured.N_CLAIMS
    assert all(len(claim.evidence) == 1 for claim in measured.CLAIMS)
    for wrong in ("supports", "refutes"):
        tried = {case.estimate for case in error_rates.cases() if case.wrong == wrong}
        estimates = {estimate for estimate, _, _ in ESTIMATES}
        assert tried == estimates | {measured.no_bound_is_exceeded}


def test_an_exponent_of_a_gap_that_is_not_positive_is_refused() -> None:
    seen = gap_over_n(-0.5, -0.5)(np.random.default_rng(0))
    seen.values["train_loss_mean"] = np.full((2, 9, 4), 10.0)
    with pytest.raises(ValueError, match="no exponent where a value is not positive, got -"):
        measured.gap_rate(seen)


def _seen(settings: dict[str, Any], **values: Any) -> Measurement:
    lists = {name: np.asarray(value).tolist() for name, value in values.items()}
    return Measurement("planted", "planted", settings, lists, {})


def _bounds(gap: float, bound: float | None, status: str = "holds") -> Measurement:
    return _seen(
        {"sizes": [8], "regularizations": [0.1], "delta": 0.05},
        gap=[[gap]],
        gap_low=[[gap - 0.25]],
        gap_high=[[gap + 0.25]],
        names=[[["Thm 4.4 as printed", "another", "PAC-Bayes"]]],
        bounds=[[[bound, 3.0, 0.0]]],
        status=[[["vacuous", "holds", status]]],
    )


@pytest.mark.claim("Digits, bounds against gap", "Digits, Thm 4.4 says something")
def test_bounds_by_hand() -> None:
    found = measured.no_bound_is_exceeded(_bounds(0.5, 2.0))
    assert (found.low, found.high) == (1.25, 1.75)
    assert measured.no_bound_is_exceeded(_bounds(2.5, 2.0)).high == -0.25
    undecided = measured.no_bound_is_exceeded(_bounds(2.0, 2.0))
    assert undecided.low < 0 < undecided.high
    assert measured.no_bound_is_exceeded(_bounds(2.5, None)).low == 0.25
    assert measured.no_bound_is_exceeded(_bounds(0.5, 2.0, "exceeded, it is open")).high < 0
    assert measured.theorem_4_4_says_something(_bounds(0.5, 2.0)).low > 2.6
    assert measured.theorem_4_4_says_something(_bounds(0.5, 10.0)).high < -5.3


def test_each_estimate_stands_in_the_ledger() -> None:
    listed = {
        piece.name.split(": ")[1]
        for claim in measured.CLAIMS
        for piece in claim.evidence
        if piece.kind == "measurement"
    }
    tested = {estimate.__name__ for estimate, _, _ in ESTIMATES}
    assert listed == tested | {"no_bound_is_exceeded", "theorem_4_4_says_something"}


@pytest.mark.parametrize("name", ids())
def test_files_say_where_they_are_from(name: str) -> None:
    seen = load(name)
    assert {"command", "commit", "versions", "machine", "cpus"} <= seen.provenance.keys()
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", seen.provenance["commit"])
    assert not re.search(r'"/|/(tmp|home|root)/', json.dumps(seen.provenance))
    assert seen.settings["pretrain_epochs"] == 40
