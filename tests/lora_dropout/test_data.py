"""Batches and models."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lora_dropout.data import batch_length, call_model, model_device, repeat_inputs


def test_copies_follow_each_other() -> None:
    x = torch.tensor([[1, 2], [3, 4]])
    assert repeat_inputs(x, 2).tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]
    named = repeat_inputs({"a": torch.tensor([5, 6])}, 3)
    assert named["a"].tolist() == [5, 6] * 3


def test_outputs() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=x + 1)

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    assert call_model(Named(), torch.zeros(2)).tolist() == [1, 1]
    assert call_model(Named(), {"x": torch.zeros(1)}).tolist() == [1]
    with pytest.raises(TypeError, match=r"model must return a tensor or have .logits, got tuple"):
        call_model(Pair(), torch.zeros(2))


def test_lengths_and_devices() -> None:
    assert batch_length({"a": torch.zeros(3), "b": torch.zeros(3, 2)}) == 3
    with pytest.raises(ValueError, match="x must not be empty"):
        batch_length(torch.tensor(1.0), name="x")
    with pytest.raises(ValueError, match=r"model must live on one device, got parameters on \[\]"):
        model_device(nn.ReLU())
    assert model_device(nn.Linear(1, 1)).type == "cpu"
