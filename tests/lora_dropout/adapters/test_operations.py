"""Whatever is done with an adapted model, it computes the same, or an error says why not."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lora_dropout import (
    FitConfig,
    LoRADropoutConfig,
    adapt,
    evaluate,
    fit,
    load_adapter,
    merge,
    save_adapter,
    unmerge,
)
from lora_dropout.adapters.adapt import adapters
from lora_dropout.adapters.lora import MergedError
from lora_dropout.replicas import Replica, fit_replicas

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval()


def adapted(kind: str = "lora", **changes: Any) -> nn.Module:
    named = {"rank": 2, "dropout": 0.4, "adapter": kind, **changes}
    return adapt(base(), LoRADropoutConfig(**named)).eval()


def trained(kind: str) -> nn.Module:
    model = adapted(kind)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in adapters(model).values():
            for parameter in layer.parameters(recurse=False):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def merged_already(model: nn.Module) -> bool:
    return any(layer.merged for layer in adapters(model).values())


def through_file(state: dict[str, Tensor]) -> dict[str, Tensor]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def into_fresh(model: nn.Module, kind: str, folder: Path) -> nn.Module:
    fresh = adapted(kind)
    fresh.load_state_dict(through_file(model.state_dict()))
    return fresh


def into_merged(model: nn.Module, kind: str, folder: Path) -> nn.Module:
    other = merge(adapted(kind))
    with pytest.raises(MergedError, match="is merged: unmerge before loading"):
        other.load_state_dict(model.state_dict())
    unmerge(other).load_state_dict(model.state_dict())
    return other


def by_adapter(model: nn.Module, kind: str, folder: Path) -> nn.Module:
    save_adapter(model, folder)
    return load_adapter(base(), folder).eval()


OPERATIONS: dict[str, Callable[[nn.Module, str, Path], nn.Module]] = {
    "merge": lambda model, kind, folder: model if merged_already(model) else merge(model),
    "unmerge": lambda model, kind, folder: unmerge(model) if merged_already(model) else model,
    "deepcopy": lambda model, kind, folder: copy.deepcopy(model),
    "pickle": lambda model, kind, folder: pickle.loads(pickle.dumps(model)),
    "state dict": into_fresh,
    "state dict into merged": into_merged,
    "adapter": by_adapter,
}


@given(
    kind=st.sampled_from(["lora", "adalora"]),
    names=st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_operations_changes_the_network(
    tmp_path_factory: pytest.TempPathFactory, kind: str, names: list[str]
) -> None:
    model = trained(kind)
    expected = model(X)
    for name in names:
        model = OPERATIONS[name](model, kind, tmp_path_factory.mktemp("adapter"))
        torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-5)
    if merged_already(model):
        unmerge(model)
    for key, value in base()[0].state_dict().items():  # the base is what it was, bit for bit
        assert torch.equal(model[0].base_layer.state_dict()[key], value)


def test_a_merged_state_dict_keeps_its_graph() -> None:
    model = merge(trained("lora"))
    state = model.state_dict(keep_vars=True)
    assert state["0.lora_A"].requires_grad
    assert not torch.equal(state["0.base_layer.weight"], model[0].base_layer.weight)


# --- what is trained is saved, or refused --------------------------------------------------------

DATA = (X, torch.tensor([0, 1, 2, 0, 1]))


@pytest.mark.parametrize("name", ["0.base_layer.weight", "1.weight", "2.base_layer.bias"])
def test_an_unfrozen_base_is_refused_by_name(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)]
    model = adapt(nn.Sequential(*parts), LoRADropoutConfig(rank=2))
    model.get_parameter(name).requires_grad_(True)
    said = rf"base frozen, which no adapter saves, got \['{name}'\] unfrozen.*modules_to_save"
    with pytest.raises(ValueError, match=said):
        fit(model, DATA, progress=False)
    with pytest.raises(ValueError, match=said):
        fit_replicas(model, DATA, [Replica()], progress=False)
    with pytest.raises(ValueError, match=said):
        save_adapter(model, tmp_path)
    model.get_parameter(name).requires_grad_(False)
    fit(model, DATA, config=FitConfig(epochs=1), progress=False)


@pytest.mark.parametrize("saved", [("1",), ()])
def test_statistics_that_training_moves_are_saved(saved: tuple[str, ...], tmp_path: Path) -> None:
    def start() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()

    config = LoRADropoutConfig(
        rank=2, dropout=0.2, target_modules=("0", "2"), modules_to_save=saved
    )
    model = adapt(start(), config)
    save_adapter(model, tmp_path / "fresh")
    fit(model, DATA, config=FitConfig(epochs=3, learning_rate=0.1, mode="loop"), progress=False)
    expected = model(X)
    if not saved:
        assert not torch.equal(model[1].running_mean, start()[1].running_mean)
    save_adapter(model, tmp_path)
    again = load_adapter(start(), tmp_path).eval()
    torch.testing.assert_close(again(X), expected)
    save_adapter(again, tmp_path / "again")
    torch.testing.assert_close(load_adapter(start(), tmp_path / "again").eval()(X), expected)
    # A model whose statistics have moved takes those of the adapter, or the base's.
    torch.testing.assert_close(load_adapter(again, tmp_path / "fresh")(X), start()(X))
    from peft import PeftModel

    plain = PeftModel.from_pretrained(start(), str(tmp_path)).eval()
    torch.testing.assert_close(plain(X), expected, rtol=1e-4, atol=1e-5)


# --- data of other kinds -------------------------------------------------------------------------

NUMBERS, LABELS = X.numpy(), DATA[1].numpy()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((NUMBERS, LABELS), r"data\[0\], the inputs, .* numpy.ndarray: torch.from_numpy makes one"),
        ((X, LABELS), r"data\[1\], the targets, .* numpy.ndarray: torch.from_numpy makes one"),
        ((X, LABELS.tolist()), r"data\[1\], the targets, .* builtins.list: torch.tensor makes one"),
        ((NUMBERS.tolist(), DATA[1]), r"data\[0\], the inputs, .* builtins.list: torch.tensor"),
        ((pd.DataFrame(NUMBERS), DATA[1]), r"data\[0\], .* pandas.*DataFrame: .*to_numpy\(\)\)"),
        ((X, pd.Series(LABELS)), r"data\[1\], .* pandas.*Series: torch.as_tensor\(.*to_numpy"),
        (({"x": NUMBERS}, DATA[1]), r"data\[0\]\['x'\], the inputs, .*torch.from_numpy makes one"),
        ([X, DATA[1]], r"data must be a pair \(inputs, targets\), got list"),
        ((X, DATA[1], X), r"data must be a pair \(inputs, targets\), got tuple of 3"),
        ((X, np.float64(1.0)), r"data\[1\], the targets, must be a tensor"),
    ],
)
def test_data_of_other_kinds_are_named(data: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        evaluate(adapted(), data)
    with pytest.raises(TypeError, match=said.replace("data", "train")):
        fit(adapted(), data, progress=False)
    with pytest.raises(TypeError, match=said.replace("data", "train")):
        fit_replicas(adapted(), data, [Replica()], progress=False)
