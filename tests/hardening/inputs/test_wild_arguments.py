"""Every public function under wild arguments: a documented result, or an error that names them."""

import dataclasses
import re
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings

import lora_bounds
import lora_dropout
from lora_dropout import trainable_parameters
from lora_dropout.audit import audit
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.ensemble_curve import squared_loss_law
from lora_dropout.probes.example_losses import example_losses
from lora_dropout.probes.gap import generalization_gap
from lora_dropout.probes.gibbs import gibbs_kl
from tests.hardening.inputs import bounds_arguments, dropout_arguments
from tests.hardening.inputs.attack import Case, Tally, attack, attempt, elsewhere, finite
from tests.hardening.inputs.wild import things
from tests.hardening.lengths import lengths

CASES = bounds_arguments.CASES | dropout_arguments.CASES


@pytest.mark.parametrize("examples", lengths(3, 1000))
@pytest.mark.parametrize("name", CASES)
def test_wild_arguments(name: str, examples: int) -> None:
    attack(CASES[name], examples).check()


def test_no_public_name_is_left_out() -> None:
    called = {name.removeprefix("lora_bounds.") for name in bounds_arguments.CASES}
    assert {name for name in lora_bounds.__all__ if name.islower()} <= called
    assert len(called) > 50
    public = dropout_arguments.public()
    assert {*lora_dropout.__all__} < {*public} and len(public) > 80
    assert {*dropout_arguments.NOT_ATTACKED} < {*public}, "names that are gone"
    for table in (dropout_arguments.OWN, dropout_arguments.TOGETHER, dropout_arguments.HOLDS):
        assert {*table} <= {*public}, "names that are gone"
    for own in (bounds_arguments.OWN, bounds_arguments.TOGETHER, bounds_arguments.INTERVALS):
        assert {*own} <= called, "names that are gone"


def _says_back(kind: Any) -> bool:
    """Whether it is a record of results, which takes what the functions that make it give it."""
    record = dataclasses.is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, tuple))
    return record and not hasattr(kind, "__post_init__") and not attrs.has(kind)


NAMED = {name: case for name, case in CASES.items() if not _says_back(case.call)}


@pytest.mark.parametrize("name", NAMED)
def test_an_argument_of_no_kind_is_refused_by_its_own_name(name: str) -> None:
    """The wild arguments ask for the name of some argument; this, for that of the bad one."""
    case = NAMED[name]

    @settings(max_examples=1, derandomize=True, database=None, phases=[Phase.generate])
    @given(case.valid)
    def refused(valid: dict[str, Any]) -> None:
        for argument in sorted({*valid} - case.fixed):
            with pytest.raises((TypeError, ValueError)) as caught, elsewhere():
                case.call(**(valid | {argument: object()}))
            named = rf"(?<![A-Za-z_]){re.escape(argument)}(?![A-Za-z_])"
            assert re.search(named, str(caught.value)), (argument, str(caught.value)[:200])

    refused()


# the attack itself


def _tried(call: Any, **more: Any) -> Tally:
    tally = Tally()
    case = Case("f", call, things(), lambda arguments, result: finite(result, 0, 1), **more)
    attempt(case, {"rate": 2}, tally)
    return tally


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda rate: [][rate], "IndexError"),
        (lambda rate: float("nan"), "wrong result"),
        (lambda rate: float("x"), "names no argument"),
        (lambda rate: exec("raise ValueError('rate is wrong')"), "does not say what it got"),
        (lambda rate: exec("raise ValueError('rate, got ' + 'x' * 999)"), "of 1009 characters"),
    ],
)
def test_what_is_mishandled_is_seen(call: Any, what: str) -> None:
    with pytest.raises(AssertionError, match=what):
        _tried(call).check()


def test_what_is_handled_is_seen() -> None:
    assert _tried(lambda rate: 0.5).returned == 1
    assert _tried(lambda rate: exec("raise ValueError('rate must be 1, got rate=2')")).refused == 1
    with pytest.raises(AssertionError):
        Tally().check()


def test_a_call_that_does_not_end_is_stopped() -> None:
    def forever(rate: int) -> None:
        while True:
            pass

    with pytest.raises(AssertionError, match="took too long"):
        _tried(forever, seconds=0.2).check()


# what the attacks found, each with the error that it now gets


def test_least_delta_of_a_huge_sample_is_a_number() -> None:
    assert lora_bounds.least_delta(n=1.7e308, loss_range=1.0, empirical_risk=1.0) == 1.0


@pytest.mark.parametrize("n_bins", [np.int64(3), np.array(3)])
def test_numbers_of_bins_are_plain_or_refused(n_bins: Any) -> None:
    probabilities, targets = torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1])
    for name in ("expected_calibration_error", "adaptive_calibration_error", "brier_score"):
        measure = getattr(lora_dropout, name)
        if isinstance(n_bins, np.ndarray):
            with pytest.raises(TypeError, match="n_bins must be an integer"):
                measure(probabilities, targets, n_bins=n_bins)
        else:
            measured = measure(probabilities, targets, n_bins=n_bins)
            assert measured == measure(probabilities, targets, n_bins=3)


@pytest.mark.parametrize("progress", [np.zeros(2), "yes", None])
def test_progress_is_a_bool(progress: Any) -> None:
    model, train = dropout_arguments.model(), (torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(TypeError, match="progress must be a bool"):
        lora_dropout.fit(model, train, progress=progress)
    with pytest.raises(TypeError, match="progress must be a bool"):
        lora_dropout.fit_replicas(model, train, [lora_dropout.Replica()], progress=progress)


def test_labels_left_out_are_refused_by_the_name_of_the_argument() -> None:
    model, train = dropout_arguments.model(), (torch.randn(4, 4), torch.tensor([0, 1, -100, 0]))
    with pytest.raises(ValueError, match=r"train must have no label -100.*got 1 of them"):
        lora_dropout.fit_replicas(model, train, [lora_dropout.Replica()], progress=False)


def test_losses_that_are_no_numbers_are_refused_before_training() -> None:
    model, targets = dropout_arguments.model(), torch.tensor([0, 1, 2, 0])
    good, bad = torch.randn(4, 4), torch.full((4, 4), float("nan"))
    with pytest.raises(ValueError, match="held_out must have finite losses, got nan for example 0"):
        generalization_gap(model, (good, targets), (bad, targets))
    config = lora_dropout.FitConfig(epochs=1)
    with pytest.raises(ValueError, match="train must have finite losses, got nan for example 0"):
        audit(model, (bad, targets), (good, targets), config=config, progress=False)


def test_targets_that_a_loss_asserts_not_to_have_are_refused() -> None:
    outputs, targets = torch.randn(5, 4), torch.zeros(5, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="targets must fit loss_fn and the model's outputs"):
        example_losses(torch.nn.functional.cross_entropy, outputs, targets)


@pytest.mark.parametrize("kind", [torch.complex64, torch.bool])
def test_targets_that_are_no_real_numbers_are_refused(kind: torch.dtype) -> None:
    with pytest.raises(TypeError, match="targets must hold real numbers"):
        squared_loss_law(torch.randn(4, 3), torch.ones(3, dtype=kind))


def test_arrays_where_one_thing_is_asked_for_are_refused_by_name() -> None:
    model, data = dropout_arguments.model(), (torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))
    odd: Any = np.array([None, 1])
    with pytest.raises(TypeError, match="loss_fn must be a function, got loss_fn="):
        lora_dropout.evaluate(model, data, loss_fn=odd)
    with pytest.raises(ValueError, match=r"dtype must be torch\.float32 or float64, got dtype="):
        AdapterObjective(model, data, dtype=odd)


def test_a_start_infinitely_far_away_is_refused() -> None:
    model = dropout_arguments.model()
    start = {n: torch.full_like(p, torch.inf) for n, p in trainable_parameters(model).items()}
    with pytest.raises(ValueError, match="initial must lie at a finite distance, got inf"):
        gibbs_kl(model, torch.randn(4, 4), initial=start, widths=[1.0])


@pytest.mark.parametrize("inference", ["ensemble", "mean", "raw"])
def test_a_single_example_is_not_taken_for_a_batch(inference: Any) -> None:
    with pytest.raises(ValueError, match=r"inputs must (hold one example along|fit the model)"):
        lora_dropout.predict(dropout_arguments.model(), torch.randn(4), inference=inference)
