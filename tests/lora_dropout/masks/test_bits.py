"""The counter-based generator against big-integer arithmetic and published outputs."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_dropout.masks.bits import _shift_right, mix, name_key, random_bits, threshold_of

WORD = 2**64


def signed(word: int) -> int:
    return word - WORD if word >= WORD // 2 else word


def finalise(z: int) -> int:
    """SplitMix64's finaliser in Python's unbounded integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def stream(seed: int, count: int) -> list[int]:
    return [finalise((seed + (i + 1) * 0x9E3779B97F4A7C15) % WORD) for i in range(count)]


def test_published_outputs() -> None:
    # The first five of seed 1234567 as published (Rosetta Code, "Pseudo-random
    # numbers/Splitmix64", from Vigna's splitmix64.c).
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert stream(1234567, 5) == published
    gamma = torch.tensor(signed(0x9E3779B97F4A7C15))
    words = mix(1234567 + torch.arange(1, 6) * gamma)
    assert words.tolist() == [signed(word) for word in published]


@given(st.lists(st.integers(0, WORD - 1), min_size=1, max_size=20))
def test_mix_equals_big_integer_reference(words: list[int]) -> None:
    got = mix(torch.tensor([signed(word) for word in words]))
    assert got.tolist() == [signed(finalise(word)) for word in words]


@given(st.integers(0, WORD - 1), st.integers(1, 63))
def test_shift_fills_with_zeros(word: int, bits: int) -> None:
    assert _shift_right(torch.tensor([signed(word)]), bits).tolist() == [signed(word >> bits)]


@given(st.integers(0, WORD - 1), st.floats(0.0, 1.0), st.integers(1, 40))
def test_bits_equal_reference(seed: int, dropout: float, count: int) -> None:
    threshold = threshold_of(dropout)
    got = random_bits(torch.tensor([signed(seed)]), torch.arange(count), threshold)
    assert got.tolist() == [(word >> 11) < threshold for word in stream(seed, count)]


def test_limits_are_exact() -> None:
    extreme = torch.tensor([0, 2**53 - 1])
    assert threshold_of(0.0) == 2**53
    assert (extreme < threshold_of(0.0)).all()
    assert threshold_of(1.0) == 0
    assert threshold_of(0.5) == 2**52


def test_name_keys_are_stable_and_distinct() -> None:
    # The value is part of the promise: another one would change every replayed mask.
    assert name_key("encoder.0") == 8410288009475749371
    keys = {name_key(f"layer.{i}") for i in range(2000)} | {name_key("")}
    assert len(keys) == 2001
    assert all(-(2**63) <= key < 2**63 for key in keys)
