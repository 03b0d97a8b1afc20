"""Putting adapters in, merging them and taking them out."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lora_dropout import (
    LoRADropoutConfig,
    adapt,
    adapters,
    ensemble_predict,
    merge,
    trainable_parameters,
    unmerge,
)
from tests.lora_dropout.strategies import (
    ALGEBRA,
    Shape,
    close,
    fill,
    generator,
    laws,
    normal,
    one_layer,
    seeds,
    shapes,
    two_layers,
)


class Tied(nn.Module):
    """An embedding whose matrix is also the output layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.body = nn.Linear(5, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embedding(tokens)))


@given(
    laws(),
    st.sampled_from(["lora", "adalora"]),
    shapes(),
    st.sampled_from(["mean", "raw"]),
    seeds(),
)
def test_merge_and_unmerge(law: str, kind: str, shape: Shape, inference: str, seed: int) -> None:
    settings = LoRADropoutConfig(
        rank=shape.rank, dropout=0.3, mask=law, adapter=kind, inference=inference
    )
    model = one_layer(shape, settings, seed=seed).eval()
    x, layer = normal(4, shape.n2, seed=seed), adapters(model)["0"]
    weight, before = layer.base_layer.weight, layer.base_layer.weight.clone()
    apart = model(x)
    merge(model)
    close(model(x), apart, ALGEBRA)
    assert not torch.equal(layer.base_layer.weight, before)
    unmerge(model)
    assert layer.base_layer.weight is weight
    assert torch.equal(weight, before)
    assert torch.equal(model(x), apart)


def test_many_merges_leave_no_trace() -> None:
    model = two_layers(LoRADropoutConfig(rank=2), dtype=torch.float32)
    before = copy.deepcopy(model.state_dict())
    for inference in ("mean", "raw", None) * 5:
        unmerge(merge(model, inference=inference))  # type: ignore[arg-type]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_merging_one_of_two_tied_weights_leaves_the_other() -> None:
    model = adapt(Tied(), LoRADropoutConfig(rank=2, target_modules=("head",))).eval()
    fill(model, 1)
    before, tokens = model.embedding.weight.clone(), torch.arange(7)
    apart = model(tokens)
    merge(model)
    assert torch.equal(model.embedding.weight, before)
    torch.testing.assert_close(model(tokens), apart, rtol=2e-5, atol=2e-5)
    unmerge(model)
    assert model.head.base_layer.weight is model.embedding.weight


def test_merge_errors() -> None:
    model = two_layers(LoRADropoutConfig(rank=2))
    with pytest.raises(RuntimeError, match="layer '0' is not merged"):
        unmerge(model)
    with pytest.raises(ValueError, match=r"inference must be one of .*, got inference='all'"):
        merge(model, inference="all")  # type: ignore[arg-type]
    merge(model)
    with pytest.raises(RuntimeError, match="layer '0' is merged already"):
        merge(model)
    x = normal(2, 5, seed=1)
    with pytest.raises(RuntimeError, match="layer '0' is merged: unmerge before training"):
        model.train()(x)
    with pytest.raises(RuntimeError, match="unmerge before training, masking"):
        ensemble_predict(model.eval(), x)
    with pytest.raises(ValueError, match="model must have adapters"):
        merge(nn.Linear(2, 2))


def test_only_adapters_and_saved_modules_train() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    adapt(model, LoRADropoutConfig(rank=2, modules_to_save=("2",)))
    assert set(trainable_parameters(model)) == {"0.lora_A", "0.lora_B", "2.weight", "2.bias"}
    assert set(adapters(model)) == {"0"}


def test_initial_factors_follow_the_generator() -> None:
    def made(seed: int) -> torch.Tensor:
        base = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model = adapt(base, LoRADropoutConfig(rank=2), generator=generator(seed))
        return torch.stack([layer.lora_A for layer in adapters(model).values()])

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    assert not torch.equal(*made(1))


def test_a_shared_layer_has_one_adapter() -> None:
    shared = nn.Linear(4, 4)
    model = adapt(nn.Sequential(shared, nn.Tanh(), shared), LoRADropoutConfig(rank=2))
    assert model[0] is model[2]
    assert set(adapters(model)) == {"0"}


@pytest.mark.parametrize("padding", [False, True])
def test_torch_transformer_layers_use_their_adapters_in_eval_mode(padding: bool) -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(block, 2)
    adapt(model, LoRADropoutConfig(rank=2, dropout=0.0))
    x = normal(3, 4, 8, seed=1, dtype=torch.float32)
    pad = torch.tensor([[False] * 3 + [True]] * 3) if padding else None
    before = model.train()(x, src_key_padding_mask=pad)
    fill(model, 1)
    trained = model(x, src_key_padding_mask=pad)
    assert not torch.allclose(before, trained, atol=1e-2)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(x, src_key_padding_mask=pad), trained, rtol=1e-4, atol=1e-4
        )


def test_bad_input() -> None:
    def two() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))

    base = two()
    with pytest.raises(ValueError, match=r"rank must be at most 3, .*, got rank=4"):
        adapt(base, LoRADropoutConfig(rank=4))
    assert all(p.requires_grad for p in base.parameters())  # nothing was changed
    with pytest.raises(ValueError, match="model must have no adapters yet"):
        adapt(two_layers(LoRADropoutConfig(rank=2)), LoRADropoutConfig(rank=2))
    halves = nn.ModuleDict({"a": two(), "b": two()})
    for half in halves.values():
        adapt(half, LoRADropoutConfig(rank=2))
    with pytest.raises(ValueError, match=r"adapter names must be unique .* \['0', '0', '1', '1'\]"):
        adapters(halves)
