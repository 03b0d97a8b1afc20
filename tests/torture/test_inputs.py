"""The attacks in short, and that no public function is left out of them."""

import re

import pytest

import lora_bounds
from tests.torture import bounds_cases
from tests.torture.wild import Case, Tally, attack, attempt, lines, things

BOUNDS = {case.name: case for case in bounds_cases.CASES}


def held(tally: Tally) -> None:
    assert tally.tried > 0
    assert tally.held == tally.tried, "\n".join(lines(tally))


@pytest.mark.parametrize("name", BOUNDS)
def test_wild_arguments_of_lora_bounds(name):
    held(attack(BOUNDS[name], 12))


def test_every_public_name_of_lora_bounds_is_attacked():
    attacked = {name.removeprefix("lora_bounds.") for name in BOUNDS}
    assert {*lora_bounds.__all__} - attacked == bounds_cases.NOT_CALLED & {*lora_bounds.__all__}


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
    monkeypatch.setattr("tests.torture.wild.CPU_SECONDS", 0.2)

    def forever(rate):
        while True:
            pass

    assert "took too long" in lines(_tried(forever))[0]
