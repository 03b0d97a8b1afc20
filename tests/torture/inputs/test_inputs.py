"""The attacks in short, and that no public function is left out of them."""

import dataclasses
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings

import lora_bounds
import lora_dropout
from lora_dropout.audit import audit
from lora_dropout.probes.ensemble_curve import squared_loss_law
from lora_dropout.probes.example_losses import example_losses
from lora_dropout.probes.gap import generalization_gap
from tests.torture import numbers
from tests.torture.inputs import (
    bounds_cases,
    command_cases,
    dropout_cases,
    functions,
    probe_cases,
    readers,
)
from tests.torture.inputs.wild import Case, Tally, attack, attempt, elsewhere, lines, things

BOUNDS = {case.name: case for case in bounds_cases.CASES}
DROPOUT = {case.name: case for case in (*dropout_cases.CASES, *probe_cases.CASES)}
COMMANDS = {case.name: case for case in command_cases.CASES}
READERS = {reader.name: reader for reader in readers.readers()}


def held(tally: Tally) -> None:
    assert tally.tried > 0
    assert tally.held == tally.tried, "\n".join(lines(tally))


@pytest.mark.parametrize("name", BOUNDS)
def test_wild_arguments_of_lora_bounds(name):
    held(attack(BOUNDS[name], 12))


@pytest.mark.parametrize("name", DROPOUT)
def test_wild_arguments_of_lora_dropout(name):
    held(attack(DROPOUT[name], 10))


@pytest.mark.parametrize("name", COMMANDS)
def test_wild_command_lines(name):
    held(attack(COMMANDS[name], 6))


@pytest.mark.parametrize("name", READERS)
def test_mutated_files(name):
    held(attack(READERS[name].case(), 25))


def test_numbers_at_their_extremes():
    failed = [f"{row.what}: {row.note}" for row in numbers.run(long=False) if not row.passed]
    assert not failed, "\n".join(failed)


def test_every_public_name_of_lora_bounds_is_attacked():
    attacked = {name.removeprefix("lora_bounds.") for name in BOUNDS}
    assert {*lora_bounds.__all__} - attacked == bounds_cases.NOT_CALLED & {*lora_bounds.__all__}


def test_every_public_name_of_lora_dropout_is_attacked():
    attacked = {name.removeprefix("lora_dropout.") for name in DROPOUT}
    missed = {*lora_dropout.__all__} - attacked
    assert missed == dropout_cases.NOT_CALLED & {*lora_dropout.__all__}


def _public(package: str) -> set[str]:
    """Functions, and classes that check what they are given, of a package or its modules."""
    found, home = set(), importlib.import_module(f"lora_dropout.{package}")
    if hasattr(home, "__all__"):
        return {f"{package}.{name}" for name in home.__all__}
    inner = [m.name for m in pkgutil.iter_modules(getattr(home, "__path__", []))]
    for name in inner or [""]:
        module = importlib.import_module(f"{home.__name__}.{name}" if name else home.__name__)
        for member, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__ and member[0] != "_"
            record = dataclasses.is_dataclass(value) and not hasattr(value, "__post_init__")
            if own and (inspect.isfunction(value) or (inspect.isclass(value) and not record)):
                found.add(f"{package}.{name}.{member}" if name else f"{package}.{member}")
    return found


@pytest.mark.parametrize("package", ["probes", "hf", "audit", "tasks", "sweeps"])
def test_every_public_name_of_the_modules_is_attacked_or_explained(package):
    attacked = {name.removeprefix("lora_dropout.") for name in DROPOUT}
    short = {f"{name.split('.')[0]}.{name.split('.')[-1]}" for name in attacked}
    open_ = {
        name
        for name in _public(package) - attacked
        if f"{package}.{name.rpartition('.')[2]}" not in short
    }
    assert open_ - {*probe_cases.NOT_ATTACKED} == set()
    assert not {*probe_cases.NOT_ATTACKED} & attacked


def test_the_long_version_tries_a_hundred_thousand_inputs():
    planned = sum(
        max(1, round(examples * case.share))
        for _, cases, examples in functions.ATTACKED.values()
        for case in cases
    )
    assert planned >= 100_000


def test_a_reader_that_opens_another_file_is_seen(tmp_path):
    def read(folder):
        return open("/etc/hostname").read()

    reader = readers.Reader("r", "text", readers._file("a.txt", "b"), "a.txt", read)
    assert "reached outside" in lines(attack(reader.case(), 2))[0]


def test_a_message_without_the_file_is_seen():
    def read(folder):
        raise ValueError("damaged")

    reader = readers.Reader("r", "text", readers._file("a.txt", "b"), "a.txt", read)
    assert "names no file" in lines(attack(reader.case(), 2))[0]


def _tried(call) -> Tally:
    tally = Tally()
    case = Case("f", call, things(), bounds_cases.between(0, 1))
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
def test_what_is_mishandled_is_seen(call, what):
    """The attacks themselves: each way to fail is told."""
    found = _tried(call)
    assert found.held == 0 and re.search(what, lines(found)[0])


def test_what_is_handled_is_seen():
    assert _tried(lambda rate: 0.5).returned == 1
    assert _tried(lambda rate: exec("raise ValueError('rate must be 1, got rate=2')")).refused == 1


def test_a_call_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr("tests.torture.inputs.wild.CPU_SECONDS", 0.2)

    def forever(rate):
        while True:
            pass

    assert "took too long" in lines(_tried(forever))[0]


def test_least_delta_of_a_huge_sample_is_a_number():
    assert lora_bounds.least_delta(n=1.7e308, loss_range=1.0, empirical_risk=1.0) == 1.0


@pytest.mark.parametrize("n_bins", [np.int64(3), np.array(3)])
def test_numbers_of_bins_are_plain_or_refused(n_bins):
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
def test_progress_is_a_bool(progress):
    train = (torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(TypeError, match="progress must be a bool"):
        lora_dropout.fit(dropout_cases.model(), train, progress=progress)
    with pytest.raises(TypeError, match="progress must be a bool"):
        lora_dropout.fit_replicas(
            dropout_cases.model(), train, [lora_dropout.Replica()], progress=progress
        )


def test_labels_left_out_are_refused_by_the_name_of_the_argument():
    train = (torch.randn(4, 4), torch.tensor([0, 1, -100, 0]))
    with pytest.raises(ValueError, match=r"train must have no label -100.*got 1 of them"):
        lora_dropout.fit_replicas(
            dropout_cases.model(), train, [lora_dropout.Replica()], progress=False
        )


def test_a_gap_of_losses_that_are_no_numbers_is_refused():
    model, targets = dropout_cases.model(), torch.tensor([0, 1, 2, 0])
    good, bad = torch.randn(4, 4), torch.full((4, 4), float("nan"))
    with pytest.raises(ValueError, match="held_out must have finite losses, got nan for example 0"):
        generalization_gap(model, (good, targets), (bad, targets))


def test_an_audit_of_data_that_are_no_numbers_is_refused_before_its_training():
    model, targets = dropout_cases.model(), torch.tensor([0, 1, 2, 0])
    good, bad = torch.randn(4, 4), torch.full((4, 4), float("nan"))
    config = lora_dropout.FitConfig(epochs=1)
    with pytest.raises(ValueError, match="train must have finite losses, got nan for example 0"):
        audit(model, (bad, targets), (good, targets), config=config, progress=False)


def test_targets_that_a_loss_asserts_not_to_have_are_refused():
    outputs, targets = torch.randn(5, 4), torch.zeros(5, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="targets must fit loss_fn and the model's outputs"):
        example_losses(torch.nn.functional.cross_entropy, outputs, targets)


@pytest.mark.parametrize("kind", [torch.complex64, torch.bool])
def test_targets_that_are_no_real_numbers_are_refused(kind):
    with pytest.raises(TypeError, match="targets must hold real numbers"):
        squared_loss_law(torch.randn(4, 3), torch.ones(3, dtype=kind))


@pytest.mark.parametrize("inference", ["ensemble", "mean", "raw"])
def test_a_single_example_is_not_taken_for_a_batch(inference):
    with pytest.raises(ValueError, match=r"inputs must (hold one example along|fit the model)"):
        lora_dropout.predict(dropout_cases.model(), torch.randn(4), inference=inference)


def _says_back(kind) -> bool:
    """Whether it is a record of results, which takes what the functions that make it give it."""
    record = dataclasses.is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, tuple))
    return record and not hasattr(kind, "__post_init__")


NAMED = {name: case for name, case in (BOUNDS | DROPOUT).items() if not _says_back(case.call)}


@pytest.mark.parametrize("name", NAMED)
def test_an_argument_of_no_kind_is_refused_by_its_own_name(name):
    """The wild arguments ask for the name of some argument; this, for that of the bad one."""
    case = NAMED[name]

    @settings(max_examples=1, derandomize=True, database=None, phases=[Phase.generate])
    @given(case.valid)
    def refused(valid):
        for argument in sorted({*valid} - case.fixed):
            with pytest.raises((TypeError, ValueError)) as caught, elsewhere():
                case.call(**(valid | {argument: object()}))
            named = rf"(?<![A-Za-z_]){re.escape(argument)}(?![A-Za-z_])"
            assert re.search(named, str(caught.value)), (argument, str(caught.value)[:200])

    refused()
