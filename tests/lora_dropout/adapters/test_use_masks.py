"""Masks of a whole model."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lora_dropout import (
    LAWS,
    LoRADropoutConfig,
    Masks,
    adapt,
    adapters,
    enumerate_masks,
    sample_masks,
    use_masks,
)
from lora_dropout.masks.draw import draw_layer_masks
from tests.lora_dropout.strategies import (
    IDENTITY,
    Shape,
    generator,
    laws,
    normal,
    one_layer,
    seeds,
    two_layers,
)


def config(law: str = "row_column", p: float = 0.5) -> LoRADropoutConfig:
    return LoRADropoutConfig(rank=2, dropout=p, mask=law)  # type: ignore[arg-type]


def same(a: Masks, b: Masks) -> bool:
    if a.layers.keys() != b.layers.keys() or a.n_instances != b.n_instances:
        return False
    fields = ("rows", "columns", "ranks", "entries", "keys")
    pairs = [
        (getattr(a.layers[name], field), getattr(b.layers[name], field))
        for name in a.layers
        for field in fields
    ]
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


@given(laws(), seeds(), st.integers(1, 4), st.integers(0, 3))
def test_generators_replay_and_the_first_k_agree(law: str, seed: int, k: int, more: int) -> None:
    model = two_layers(config(law))
    first = sample_masks(model, n_instances=k, generator=generator(seed))
    longer = sample_masks(model, n_instances=k + more, generator=generator(seed))
    assert same(first, longer.gather(torch.arange(k)))
    other = two_layers(config(law), seed=9)  # weights do not matter
    assert same(first, sample_masks(other, n_instances=k, generator=generator(seed)))


def test_replay_by_seeds_and_the_global_generator() -> None:
    model, drawn = two_layers(config()), torch.tensor([3, -(2**63), 2**63 - 1])
    assert same(sample_masks(model, seeds=drawn), sample_masks(model, seeds=drawn))
    assert same(sample_masks(model, seeds=drawn).select(1), sample_masks(model, seeds=drawn[1:2]))
    torch.manual_seed(4)
    one = sample_masks(model)
    assert not same(one, sample_masks(model))
    torch.manual_seed(4)
    assert same(one, sample_masks(model))


def test_bits_do_not_depend_on_other_layers() -> None:
    whole = sample_masks(two_layers(config()), seeds=torch.arange(4))
    base = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    part = adapt(base, LoRADropoutConfig(rank=2, target_modules=("2",)))
    alone = sample_masks(part, seeds=torch.arange(4))
    assert torch.equal(alone.layers["2"].rows, whole.layers["2"].rows)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("law", LAWS)
def test_gpu_masks_and_outputs(law: str) -> None:
    model = two_layers(config(law))
    x, masks = normal(6, 5, seed=1), sample_masks(model, seeds=torch.arange(3))
    with use_masks(model, masks):
        here = model(x)
    model.cuda()
    there = sample_masks(model, seeds=torch.arange(3))
    assert same(masks, there.to("cpu"))
    with use_masks(model, masks):  # masks drawn on the CPU follow the model
        torch.testing.assert_close(model(x.cuda()).cpu(), here, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("law", ["row_column", "rank", "entrywise", "none"])
def test_enumeration_is_the_product_over_layers(law: str) -> None:
    base = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model = adapt(base, LoRADropoutConfig(rank=1, dropout=0.3, mask=law))  # type: ignore[arg-type]
    masks, probability = enumerate_masks(model)
    bits = {"row_column": 4 + 3, "rank": 2, "entrywise": 4 + 2, "none": 0}[law]
    assert masks.n_instances == len(probability) == 2**bits
    assert float(probability.sum()) == pytest.approx(1.0, abs=IDENTITY)
    flat = [
        tensor.flatten(1)
        for mask in masks.layers.values()
        for tensor in (mask.rows, mask.columns, mask.ranks, mask.entries)
        if tensor is not None
    ]
    if flat:
        everything = torch.cat(flat, dim=1)
        assert len(everything.unique(dim=0)) == 2**bits
        kept = everything.sum(dim=1).double()
        torch.testing.assert_close(
            probability, 0.7**kept * 0.3 ** (bits - kept), rtol=IDENTITY, atol=IDENTITY
        )


def test_too_many_masks_in_all() -> None:
    base = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model = adapt(base, LoRADropoutConfig(rank=2))
    with pytest.raises(ValueError, match=r"at most 2\^20 masks to enumerate, got 16777216"):
        enumerate_masks(model)


def test_use_masks_restores_the_state_and_nests() -> None:
    model = two_layers(config()).eval()
    x = normal(4, 5, seed=1)
    plain = model(x)
    first, second = (sample_masks(model, seeds=torch.tensor([s])) for s in (1, 2))
    with use_masks(model, first):
        outer = model(x)
        with pytest.raises(KeyError), use_masks(model, second, rows=4):
            assert not torch.equal(model(x), outer)
            raise KeyError
        assert torch.equal(model(x), outer)
        with use_masks(model, "mean"):
            assert torch.equal(model(x), plain)
    assert torch.equal(model(x), plain)
    assert all(layer.active is None and layer.rows is None for layer in adapters(model).values())


def test_mask_free_modes_differ_by_the_mean() -> None:
    model = one_layer(Shape(3, 4, 2), LoRADropoutConfig(rank=2, dropout=0.5)).train()
    x, base = normal(2, 4, seed=1), adapters(model)["0"].base_layer
    with use_masks(model, "raw"):
        raw = model(x) - base(x)
    with use_masks(model, "mean"):
        mean = model(x) - base(x)
    torch.testing.assert_close(mean, 0.25 * raw, rtol=IDENTITY, atol=IDENTITY)


def enter(model: nn.Module, masks: object) -> None:
    with use_masks(model, masks):  # type: ignore[arg-type]
        pass


def test_masks_of_another_model_are_refused() -> None:
    model = two_layers(config())
    stranger = one_layer(Shape(4, 5, 2), LoRADropoutConfig(rank=2))
    with pytest.raises(ValueError, match=r"cover exactly the model's adapters, .* \['2'\]"):
        enter(model, sample_masks(stranger))
    wide = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    masks = sample_masks(adapt(wide, config()))
    with pytest.raises(ValueError, match=r"'0' needs columns of shape \(1, 5\), got \(1, 6\)"):
        enter(model, masks)
    assert all(layer.active is None for layer in adapters(model).values())


def test_masks_follow_the_model_to_its_device() -> None:
    model = one_layer(Shape(2, 3, 1), LoRADropoutConfig(rank=1)).to("meta")
    masks, _ = enumerate_masks(model)
    with use_masks(model, masks):
        out = model(torch.zeros(masks.n_instances, 3, dtype=torch.float64, device="meta"))
    assert out.device.type == "meta"


def test_bad_input() -> None:
    model = two_layers(config())
    with pytest.raises(ValueError, match="n_instances must be at least 1, got n_instances=0"):
        sample_masks(model, n_instances=0)
    for wrong in (torch.zeros(2), torch.zeros(1, 1).long(), torch.zeros(0).long()):
        with pytest.raises(ValueError, match=r"seeds must be a non-empty int64 vector, got seeds="):
            sample_masks(model, seeds=wrong)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator.*generator=7"):
        sample_masks(model, generator=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model must have adapters \(see adapt\), got Linear"):
        sample_masks(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="masks must be one of 'mean', 'raw', got masks='off'"):
        enter(model, "off")


def test_masks_move_as_a_whole() -> None:
    masks = sample_masks(two_layers(config()), n_instances=3, generator=generator(0))
    moved = masks.to("meta")
    assert moved.n_instances == 3
    assert moved.layers.keys() == masks.layers.keys()
    assert all(mask.rows.device.type == "meta" for mask in moved.layers.values())  # type: ignore[union-attr]


def test_seeds_fill_all_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def draw(specs, seeds, *, device):  # type: ignore[no-untyped-def]
        seen.append(seeds)
        return draw_layer_masks(specs, seeds, device=device)

    monkeypatch.setattr(sys.modules["lora_dropout.adapters.use_masks"], "draw_layer_masks", draw)
    sample_masks(two_layers(config()), n_instances=4000, generator=generator(0))
    (seeds,) = seen
    bits = (seeds[:, None] >> torch.arange(64)) & 1
    assert ((bits.double().mean(dim=0) - 0.5).abs() < 0.05).all()  # six standard errors
    assert len(seeds.unique()) == 4000


def test_masks_are_drawn_where_the_model_is() -> None:
    model = two_layers(config()).to("meta")
    masks = sample_masks(model, seeds=torch.arange(2))
    assert {mask.rows.device.type for mask in masks.layers.values()} == {"meta"}  # type: ignore[union-attr]


def test_enumerated_probabilities_are_double_and_sum_to_one() -> None:
    _, probability = enumerate_masks(one_layer(Shape(3, 2, 2), config(p=0.1)))
    assert probability.dtype == torch.float64
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-14)
