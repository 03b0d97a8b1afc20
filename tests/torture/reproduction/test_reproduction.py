"""One seed, one result, in short; and that the attacks see what differs."""

import json
import pickle

import pytest
import torch

from lora_dropout.training.fit import fit as training
from tests.torture.reproduction import fingerprint as fp
from tests.torture.reproduction import repeats
from tests.torture.reproduction import ways as rep

NAMES = ("lora, batched", "adalora, budget")


@pytest.fixture(scope="module")
def here():
    with repeats.threads(1):
        return json.loads(json.dumps(fp.fingerprint(["masks", "bounds", "replicas"])))


@pytest.fixture(scope="module")
def small():
    with repeats.threads(1):
        return {name: fp.trained(*fp.VARIANTS[name]) for name in NAMES}


def test_another_process_finds_the_same(here):
    row = rep.row("", rep.zipped(here, rep.elsewhere(here, PYTHONHASHSEED="1")))
    assert row.passed and row.tried == 3, row.note


def test_two_threads_find_the_same(small):
    name = NAMES[0]
    with repeats.threads(2):
        row = rep.row("", [(name, small[name], fp.trained(*fp.VARIANTS[name]))])
    assert row.passed, row.note


def test_long_sums_differ_between_threads_by_rounding_only():
    row = rep.row(
        "", rep.tensors("", repeats.long_sums(1), repeats.long_sums(2)), within=rep.rounding(65_536)
    )
    assert row.passed, row.note


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_layers_does_not_matter(name):
    row = rep.row("", repeats.orders([name], False))
    assert row.passed, row.note


@pytest.mark.parametrize("name", NAMES)
def test_a_restarted_run_and_a_copied_one_end_the_same(name, small):
    assert rep.row("", [(name, small[name], repeats.restarted(name))]).passed
    copied = repeats.copied(lambda one: pickle.loads(pickle.dumps(one)), name)
    assert rep.row("", [(name, small[name], copied)]).passed


@pytest.mark.parametrize("adapter", ["lora", "adalora"])
def test_the_modes_differ_by_rounding_only(adapter):
    found = repeats.by_modes(adapter)
    pairs = rep.tensors(adapter, found["loop"], found["batched"])
    assert rep.row("", pairs, within=rep.rounding(1_000)).passed
    assert any(value != 0 for _, one, _ in pairs[1:] for value in one)


def test_chunks_change_nothing(here):
    assert rep.row("", [("chunks of 2", here["replicas"], fp.replicas(2))]).passed


def test_a_last_bit_is_seen_and_told(small):
    one = small[NAMES[0]]
    other = json.loads(json.dumps(one))
    other["ensemble"][3] *= 1 + 2**-52
    row = rep.row("w", [("a", one, one), ("b", one, other)])
    assert (row.tried, row.held, row.passed) == (2, 1, False)
    assert "WRONG: b (ensemble[3]: " in row.note
    assert rep.row("w", [("b", one, other)], within=1e-12).passed
    assert not rep.row("w", [("b", one, other)], within=1e-18).passed
    assert not rep.row("w", [("b", {"a": [1.0]}, {"a": ["x"]})], within=1e-3).passed
    assert not rep.row("w", [("b", {"a": [1.0]}, {})], within=1e-3).passed


def test_what_a_restart_forgets_is_seen(small, monkeypatch):
    restore = training._Run.restore

    def forgetful(run, state, folder):
        forgotten = torch.Generator().manual_seed(77).get_state()
        restore(run, {**state, "generator": forgotten}, folder)

    monkeypatch.setattr(training._Run, "restore", forgetful)
    assert not rep.row("", [("r", small[NAMES[0]], repeats.restarted(NAMES[0]))]).passed
