"""Every message names the argument and echoes its value."""

import math
import re
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_dropout import door
from lora_dropout.data import call_loss, call_model
from lora_dropout.door import (
    check_choice,
    check_count,
    check_generator,
    check_positive,
    check_probability,
    check_same_device,
)


@given(st.floats(0.0, 1.0))
def test_probabilities_pass_unchanged(value: float) -> None:
    assert check_probability("p", value) == value
    assert type(check_probability("p", np.float64(value))) is float


@given(st.floats().filter(lambda v: not 0 <= v <= 1))
def test_other_numbers_are_no_probabilities(value: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"rate must be in [0, 1], got rate={value!r}")):
        check_probability("rate", value)


@pytest.mark.parametrize("value", ["0.5", None, True, 1j])
def test_probability_must_be_real(value: object) -> None:
    with pytest.raises(TypeError, match=re.escape(f"got p={value!r}")):
        check_probability("p", value)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_positive(value: float) -> None:
    message = re.escape(f"alpha must be positive and finite, got alpha={value!r}")
    with pytest.raises(ValueError, match=message):
        check_positive("alpha", value)


def test_zero_where_allowed() -> None:
    assert check_positive("w", 0, zero_ok=True) == 0.0
    with pytest.raises(ValueError, match=re.escape("w must be non-negative and finite, got w=-1")):
        check_positive("w", -1, zero_ok=True)


def test_count() -> None:
    assert check_count("n", np.int64(3)) == 3
    assert type(check_count("n", np.int64(3))) is int
    with pytest.raises(ValueError, match="n must be at least 1, got n=0"):
        check_count("n", 0)
    for wrong in (1.0, True, "2"):
        with pytest.raises(TypeError, match=re.escape(f"n must be an integer, got n={wrong!r}")):
            check_count("n", wrong)


def test_choice() -> None:
    assert check_choice("mode", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match="mode must be one of 'a', 'b', got mode='c'"):
        check_choice("mode", "c", ("a", "b"))


class CudaGenerator(torch.Generator):
    """Looks as a generator on a GPU does, on a machine without one."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda:0")


def test_generator() -> None:
    assert check_generator("generator", None) is None
    ours = torch.Generator()
    assert check_generator("generator", ours) is ours
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator or None, got.*=3"):
        check_generator("generator", 3)
    with pytest.raises(ValueError, match=r"generator must be a CPU generator.* on cuda:0"):
        check_generator("generator", CudaGenerator())


def test_devices_are_listed() -> None:
    with pytest.raises(ValueError, match="got x on cpu, A on meta"):
        check_same_device(x=torch.zeros(1), A=torch.zeros(1, device="meta"))
    check_same_device(x=torch.zeros(1), A=torch.ones(1))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: door.check_array("v", ["a"]), TypeError, "v must hold real numbers, got v="),
        (
            lambda: door.check_array("v", [[1.0]]),
            ValueError,
            "v must be a vector of .* got shape",
        ),
        (lambda: door.check_array("v", [1.0, np.nan]), ValueError, "v must be finite .* got nan"),
        (lambda: door.check_array("v", [1e200]), ValueError, r"at most 1e\+150 .* got 1e\+200"),
        (
            lambda: door.check_indices("i", [0, 3], 3),
            ValueError,
            r"i must be indices in",
        ),
        (lambda: door.check_indices("i", 3, 3), TypeError, "i must be a sequence of object, got"),
        (
            lambda: door.check_sequence("s", [1, "a"], int),
            TypeError,
            "s must be a .* of int,",
        ),
        (lambda: door.check_path("p", 3), TypeError, "p must be a text or a path, got p=3"),
        (lambda: door.check_path("p", "a\0b"), ValueError, "p must be the name of a place, got"),
        (lambda: door.check_device("d", 0), TypeError, "d must be a device or its name, got d=0"),
        (
            lambda: door.check_device("d", "cuda:99"),
            ValueError,
            "d must be here, got d='cuda",
        ),
        (lambda: door.check_device("d", "meta"), ValueError, "d must compute .* got d='meta'"),
        (
            lambda: door.check_tensor("t", [1]),
            TypeError,
            "t must be a dense tensor, got",
        ),
        (lambda: door.check_tensor("t", torch.ones(1, device="meta")), ValueError, "hold values"),
        (lambda: door.check_numbers("t", torch.tensor([1])), TypeError, "t must hold floating"),
        (lambda: door.check_numbers("t", torch.tensor([torch.nan])), ValueError, "got NaN in t"),
        (lambda: door.check_count("n", torch.tensor(True)), TypeError, "n must be an integer"),
        (
            lambda: door.check_count("n", 10**20),
            ValueError,
            "n must be at most 92233720368",
        ),
        (lambda: door.check_callable("f", 3), TypeError, "f must be a function, got f=3"),
    ],
)
def test_what_was_given_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_any_value_is_shown_in_one_short_line():
    cyclic = []
    cyclic.append(cyclic)
    for value in (10**5000, "x\n" * 10_000, cyclic, np.zeros((9, 9)), torch.zeros(9, 9), object()):
        assert len(door.short(value)) <= 80 and "\n" not in door.short(value)


def test_arrays_pass_through_the_check():
    assert door.check_array("v", [1, 2]).tolist() == [1.0, 2.0]
    assert door.check_indices("i", np.array([2, 0]), 3) == [2, 0]
    assert door.check_device("d", "cpu") == torch.device("cpu")


def test_a_model_or_loss_that_does_not_fit_is_told_with_its_own_words():
    layer = torch.nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"inputs must fit the model, got inputs=float32 .*: mat1"):
        call_model(layer, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"targets must fit loss_fn .* outputs=float32 tensor"):
        call_loss(torch.nn.functional.mse_loss, torch.ones(2), None)
    with pytest.raises(TypeError, match="loss_fn must return a tensor of one number, got 3"):
        call_loss(lambda o, t: 3, torch.ones(2), torch.ones(2))
    with pytest.raises(FloatingPointError):  # what a loss raises on its own account stays

        def alarmed(o, t):
            raise FloatingPointError

        call_loss(alarmed, torch.ones(2), torch.ones(2))


@door.checked
def _behind(n: door.Count, *, rate: door.Probability | None = None, kind: Literal["a", "b"] = "a"):
    return n, rate, kind


def test_a_door_checks_what_is_given_and_hands_on_plain_values() -> None:
    assert _behind(np.int64(2), rate=np.float64(0.5)) == (2, 0.5, "a")
    assert type(_behind(np.int64(2))[0]) is int
    for arguments, message in (
        ({"n": 0}, "n must be at least 1, got n=0"),
        ({"n": 1, "rate": 2}, r"rate must be in \[0, 1\], got rate=2"),
        ({"n": 1, "kind": "c"}, "kind must be one of 'a', 'b', got kind='c'"),
    ):
        with pytest.raises(ValueError, match=message):
            _behind(**arguments)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'n'"):
        _behind()
    assert door.unchecked(_behind)(0, rate=2) == (0, 2, "a")
