"""Every message names the argument and echoes its value."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_dropout.checks import (
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
