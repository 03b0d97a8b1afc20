"""What is damaged: files of each kind, how they are written and what reading them gives."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from lora_bounds import measurements
from lora_dropout import LoRADropoutConfig, adapt, load_adapter, save_adapter
from lora_dropout.runs.store import Store
from lora_dropout.training.checkpoint import load_checkpoint, save_checkpoint
from paper_figures.experiments import digits_runs
from paper_figures.experiments.__main__ import measure


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        write: Write the files of version 0, 1, ... into a folder.
        read: What is read from them, comparable; the function that users call.
    """

    write: Callable[[Path, int], object]
    read: Callable[[Path], object]


def _state(version: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(version)
    weights = torch.randn(60, 60, generator=generator)
    return {"settings": {"epochs": 3}, "epoch": version, "parameters": {"w": weights}}


def _read_state(folder: Path) -> object:
    state = load_checkpoint(folder, settings={"epochs": 3})
    return None if state is None else {**state, "parameters": state["parameters"]["w"].tolist()}


def _net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))


def _write_adapter(folder: Path, version: int) -> object:
    config = LoRADropoutConfig(rank=3, alpha=6 + version, dropout=0.5)
    generator = torch.Generator().manual_seed(version)
    model = adapt(_net(), config, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return save_adapter(model, folder)


def _read_adapter(folder: Path) -> object:
    model = load_adapter(_net(), folder)
    configs = [asdict(m.config) for m in model.modules() if hasattr(m, "lora_A")]
    return [p.tolist() for p in model.parameters()], configs


CELL = {"seed": 1}


def _write_cell(folder: Path, version: int) -> object:
    value = [{"loss": version + k / 7, "steps": k} for k in range(200)]
    return Store(folder).put(CELL, value)


def _write_base(folder: Path, version: int) -> object:
    def pretrain(**_: Any) -> nn.Module:
        return nn.Linear(12, 10 + version)

    before, digits_runs.pretrain_digits = digits_runs.pretrain_digits, pretrain
    try:
        return digits_runs.pretrained(Store(folder), epochs=version)
    finally:
        digits_runs.pretrain_digits = before


def _read_base(folder: Path) -> object:
    def refuse(**_: Any) -> nn.Module:
        raise AssertionError("trained again in silence")

    before, digits_runs.pretrain_digits = digits_runs.pretrain_digits, refuse
    try:
        return digits_runs.pretrained(Store(folder), epochs=0)
    finally:
        digits_runs.pretrain_digits = before


@dataclass(frozen=True)
class _Settings:
    version: int = 0


def _write_measurement(folder: Path, version: int) -> object:
    module: Any = ModuleType("paper_figures.experiments.small")
    module.QUESTION = "?"
    module.run = lambda settings, folder: {"gap": [settings.version + k / 7 for k in range(400)]}
    sys.modules[module.__name__] = module
    made = {"command": "none", "commit": "none"}
    return measure("small", out=folder, work=folder, settings=_Settings(version), made=made)


def _read_measurement(folder: Path) -> object:
    return asdict(measurements.read(folder / "small.json"))


KINDS = {
    "checkpoint": Kind(lambda folder, v: save_checkpoint(folder, _state(v)), _read_state),
    "adapter": Kind(_write_adapter, _read_adapter),
    "store": Kind(_write_cell, lambda folder: Store(folder).get(CELL)),
    "base model": Kind(_write_base, _read_base),
    "measurement": Kind(_write_measurement, _read_measurement),
}


def same(one: object, other: object) -> bool:
    """Whether two readings are the same, as text: bytes and floats to the last bit."""
    return repr(one) == repr(other)


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
