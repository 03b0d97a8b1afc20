"""Which modules are matched."""

import pytest
from torch import nn

from lora_dropout import LoRADropoutConfig
from lora_dropout.adapters.targets import saved_modules, target_layers


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.fc = nn.Linear(4, 4)
        self.prefc = nn.Linear(4, 4)


def model() -> nn.Module:
    return nn.ModuleDict({"x": Block(), "y": Block(), "head": nn.Linear(4, 2)})


@pytest.mark.parametrize(
    ("targets", "saved", "found"),
    [
        ("all-linear", (), {"x.fc", "x.prefc", "y.fc", "y.prefc", "head"}),
        ("all-linear", ("head",), {"x.fc", "x.prefc", "y.fc", "y.prefc"}),
        ("all-linear", ("x", "head"), {"y.fc", "y.prefc"}),
        (("fc",), (), {"x.fc", "y.fc"}),  # and not prefc
        (("x.fc", "head"), (), {"x.fc", "head"}),
        (r"[xy]\.(pre)?fc", (), {"x.fc", "x.prefc", "y.fc", "y.prefc"}),
        (r".*\.fc", (), {"x.fc", "y.fc"}),
    ],
)
def test_matches(targets: str | tuple[str, ...], saved: tuple[str, ...], found: set[str]) -> None:
    config = LoRADropoutConfig(target_modules=targets, modules_to_save=saved)
    assert set(target_layers(model(), config)) == found
    assert set(saved_modules(model(), config)) == set(saved)


@pytest.mark.parametrize(
    ("targets", "saved", "message"),
    [
        (("query",), (), r"target_modules must match .* 'query'; there are: fc, head, out_proj"),
        (("fc", "query"), (), "none matches 'query'"),
        ("f", (), "none matches 'f'"),
        (("out_proj",), (), r"'x.attention.out_proj' inside nn.MultiheadAttention"),
        (("fc",), ("y",), "'y.fc' is matched by target_modules and by modules_to_save"),
        ("all-linear", ("tail",), "modules_to_save must name modules, none matches 'tail'"),
    ],
)
def test_refused(targets: str | tuple[str, ...], saved: tuple[str, ...], message: str) -> None:
    config = LoRADropoutConfig(target_modules=targets, modules_to_save=saved)
    with pytest.raises(ValueError, match=message):
        target_layers(model(), config)


def test_no_linear_layer_at_all() -> None:
    with pytest.raises(ValueError, match="none matches 'all-linear'; there are: none"):
        target_layers(nn.Sequential(nn.ReLU()), LoRADropoutConfig())


def test_attention_under_a_second_name_is_found() -> None:
    shared = nn.ModuleDict({"a": nn.MultiheadAttention(4, 2)})
    shared["b"] = shared["a"]
    shared["fc"] = nn.Linear(4, 4)
    assert set(target_layers(shared, LoRADropoutConfig())) == {"fc"}
