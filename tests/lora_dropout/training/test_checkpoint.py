"""Checkpoints: damage of any kind is noticed."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_dropout.training.checkpoint import NAME, fingerprint, load_checkpoint, save_checkpoint

STATE = {"settings": {"epochs": 3}, "tensor": torch.arange(40.0), "step": 7}


def test_round_trip(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none", settings={}) is None
    save_checkpoint(tmp_path, STATE)
    state = load_checkpoint(tmp_path, settings={"epochs": 3})
    assert state is not None and state["step"] == 7
    assert torch.equal(state["tensor"], STATE["tensor"])
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


@given(st.data())
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, STATE)
    raw = bytearray((folder / NAME).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / NAME).write_bytes(raw)
    with pytest.raises(ValueError, match=rf"{NAME} is damaged, remove it to start afresh"):
        load_checkpoint(folder, settings=STATE["settings"])


@pytest.mark.parametrize("length", [0, 5, 32, 300, -1])
def test_truncation_is_noticed(tmp_path: Path, length: int) -> None:
    save_checkpoint(tmp_path, STATE)
    raw = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(raw[:length])
    with pytest.raises(ValueError, match="is damaged, remove it"):
        load_checkpoint(tmp_path, settings=STATE["settings"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 4}, r"other settings \(epochs: 3 there, 4 here\)"),
        ({}, r"epochs: 3 there, None here"),
        ({"epochs": 3, "seed": 1}, r"seed: None there, 1 here"),
    ],
)
def test_other_settings(tmp_path: Path, settings: dict, message: str) -> None:
    save_checkpoint(tmp_path, STATE)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path, settings=settings)


def test_fingerprints_tell_data_apart() -> None:
    x, y = torch.zeros(4, 2), torch.zeros(4).long()
    base = fingerprint((x, y))
    assert base == fingerprint((x.clone(), y.clone()))
    changed = x.clone()
    changed[3, 1] = 1e-30
    others = [
        (changed, y),
        (x.double(), y),
        (x.view(2, 4), y),
        (x, y + 1),
        ({"a": x}, y),
        ({"a": x, "b": x}, y),
        (x.bfloat16(), y),
    ]
    assert len({base, *(fingerprint(data) for data in others)}) == 8
    assert fingerprint(({"a": x, "b": y}, y)) == fingerprint(({"b": y, "a": x}, y))
