"""The statistics behind the measured claims: they find what is planted, and say no to its reverse.

The files themselves are judged in `test_ledger.py`, with every other piece of evidence.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lora_bounds.ledger import measured
from lora_bounds.ledger.evidence import Estimate
from lora_bounds.measurements import Measurement, ids, load

RUNS = 12


def _seen(settings: dict[str, Any], **values: Any) -> Measurement:
    lists = {name: np.asarray(value).tolist() for name, value in values.items()}
    return Measurement("planted", "planted", settings, lists, {})


def _rates(gap: float, train: float, bend: float) -> Measurement:
    """Gap and training loss with these slopes in p, and this bend around p = 0.3."""
    p = np.array([0.0, 0.1, 0.3, 0.5, 0.7])
    noise = np.random.default_rng(0).normal(scale=0.01, size=(2, 2, RUNS, 5))
    low = 1.0 + train * p + bend * (p - 0.3) ** 2 + noise[0]
    return _seen(
        {"rates": p.tolist()}, train_loss_mean=low, test_loss_mean=low + 2 + gap * p + noise[1]
    )


def _sizes(exponent: float, name: str = "test_loss_mean") -> Measurement:
    n = np.array([16, 32, 64, 128])
    scatter = np.random.default_rng(1).lognormal(sigma=0.05, size=(2, RUNS, 4))
    values = {name: scatter * n**exponent, "train_loss_mean": np.zeros((2, RUNS, 4))}
    return _seen({"sizes": n.tolist()}, **values)


def _ensemble(gain: float) -> Measurement:
    noise = np.random.default_rng(2).normal(scale=0.01, size=(3, 3, RUNS, 4))
    falling = 1.0 - gain * (1 - 1 / np.array([1, 2, 4, 8])) + noise
    single = 1.0 - gain / 2 + noise[..., 0]
    return _seen(
        {"rates": [0.0, 0.2, 0.5], "sizes": [1, 2, 4, 8]},
        loss_probabilities=falling[0],
        accuracy=1 - falling[1],
        ece=falling[2],
        mean_loss=single[0],
        mean_accuracy=1 - single[1],
        mean_ece=single[2],
    )


def _stability(ratio: float) -> Measurement:
    scatter = np.random.default_rng(3).lognormal(sigma=0.05, size=(4, RUNS, 3))
    return _seen(
        {},
        absolute=[ratio * scatter[0], scatter[1]],
        distance=[scatter[2], scatter[2]],
        noise_distance=[scatter[3], ratio * scatter[3]],
    )


ESTIMATES: list[tuple[Callable[[Measurement], Estimate], Measurement, Measurement]] = [
    (measured.gap_falls_over_p, _rates(-1, 0, 0), _rates(1, 0, 0)),
    (measured.gap_falls_over_p_under_noise, _rates(-1, 0, 0), _rates(1, 0, 0)),
    (measured.training_loss_rises_over_p, _rates(0, 1, 0), _rates(0, -1, 0)),
    (measured.training_loss_rises_over_p_under_noise, _rates(0, 1, 0), _rates(0, -1, 0)),
    (measured.test_loss_is_u_shaped, _rates(0, 0, 2), _rates(0, 0, -2)),
    (measured.test_loss_is_u_shaped_under_noise, _rates(0, 0, 2), _rates(-0.5, 0, 0)),
    (measured.gap_rate_of_lora, _sizes(-0.5), _sizes(-1.0)),
    (measured.gap_rate_of_lora_dropout, _sizes(-0.48), _sizes(-0.2)),
    (measured.stability_rate_of_lora, _sizes(-1.1, "absolute"), _sizes(-0.5, "absolute")),
    (measured.stability_rate_of_lora_dropout, _sizes(-0.9, "absolute"), _sizes(-2.0, "absolute")),
    (measured.dropout_lowers_stability, _stability(2.0), _stability(0.5)),
    (measured.leaving_out_moves_less_than_a_seed, _stability(2.0), _stability(0.5)),
    (measured.ensemble_loss_falls_with_size, _ensemble(0.5), _ensemble(-0.5)),
    (measured.ensemble_beats_the_mean_network, _ensemble(0.5), _ensemble(-0.5)),
    (measured.ensemble_beats_lora_in_loss, _ensemble(0.5), _ensemble(-0.5)),
    (measured.ensemble_beats_lora_in_accuracy, _ensemble(0.5), _ensemble(-0.5)),
    (measured.ensemble_is_better_calibrated_than_lora, _ensemble(0.5), _ensemble(-0.5)),
]


@pytest.mark.parametrize(
    ("estimate", "planted", "reverse"), ESTIMATES, ids=lambda item: getattr(item, "__name__", "")
)
def test_it_finds_what_is_planted_and_refutes_the_reverse(
    estimate: Callable[[Measurement], Estimate], planted: Measurement, reverse: Measurement
) -> None:
    assert estimate(planted).low > 0
    assert estimate(reverse).high < 0


def test_nothing_planted_is_left_open() -> None:
    found = measured.gap_falls_over_p(_rates(0, 0, 0))
    assert found.low < 0 < found.high


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
