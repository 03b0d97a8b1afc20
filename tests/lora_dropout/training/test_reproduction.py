"""One seed, one result to the last bit: in another process, by two threads, for copies of all.

Restarts are compared in `test_fit.py`, modes in `test_objective.py`, chunks of replicas in
`replicas/test_against_fit.py`, masks over threads and orders of layers in `masks/test_draw.py`.
"""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_bounds import theorem_4_4
from lora_dropout import (
    FitConfig,
    LoRADropoutConfig,
    RankBudget,
    adapt,
    ensemble_predict,
    fit,
    sample_masks,
    trainable_parameters,
)

SIZES = {"a": (6, 16), "b": (16, 16), "c": (16, 3)}
BUDGET = RankBudget(target_rank=1, warmup_steps=2, final_steps=4, interval=2)
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": ({}, {}),
    "adalora": ({"adapter": "adalora", "mask": "rank"}, {"rank_budget": BUDGET}),
}


class Net(nn.Module):
    """Linear layers that run by name and are registered in any order."""

    def __init__(self, order: Iterable[str]) -> None:
        super().__init__()
        for name in order:
            torch.manual_seed(ord(name))
            self.add_module(name, nn.Linear(*SIZES[name]))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


def same(one: Any) -> Any:
    return one


def trained(name: str, order: str = "abc", copy: Callable[[Any], Any] = same) -> str:
    """Train, clipping at work; a digest of weights, history and ensemble predictions."""
    adapter, settings = VARIANTS[name]
    model = Net(order)
    config = LoRADropoutConfig(rank=2, alpha=4, dropout=0.5, **adapter)
    adapt(model, config, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(96, 6, generator=generator)
    labels = torch.randint(3, (96,), generator=generator)
    model, inputs, labels = copy(model), copy(inputs), copy(labels)
    how = FitConfig(
        epochs=3, batch_size=16, learning_rate=0.01, max_grad_norm=0.01, seed=3, **settings
    )
    sets = (inputs[:64], labels[:64]), (inputs[64:], labels[64:])
    result = fit(model, sets[0], held_out=sets[1], config=copy(how), device="cpu", progress=False)
    digest = hashlib.blake2b(json.dumps(copy(result).history).encode())
    model, generator = copy(model), torch.Generator().manual_seed(9)
    for _, parameter in sorted(trainable_parameters(model).items()):
        digest.update(parameter.detach().numpy().tobytes())
    masks = copy(sample_masks(model, n_instances=4, generator=generator))
    digest.update(ensemble_predict(model, inputs, masks=masks).numpy().tobytes())
    return digest.hexdigest()


def bound() -> str:
    result = theorem_4_4(
        n=100, delta=0.05, lipschitz=0.5, curvature=0.0, regularization=10.0, dropout=0.5,
        loss_range=1.0, empirical_risk=0.1,
    )  # fmt: skip
    return repr(result.value)


@pytest.mark.parametrize("name", VARIANTS)
def test_orders_of_layers_threads_and_copies_change_nothing(name: str) -> None:
    expected, before = trained(name), torch.get_num_threads()
    assert trained(name, order="cab") == expected
    assert trained(name, copy=lambda one: pickle.loads(pickle.dumps(one))) == expected
    torch.set_num_threads(3 - min(before, 2))
    try:
        assert trained(name) == expected
    finally:
        torch.set_num_threads(before)


def test_another_process_finds_the_same() -> None:
    root = Path(__file__).parents[3]
    program = (
        "from tests.lora_dropout.training.test_reproduction import bound, trained\n"
        "print(trained('lora'), bound())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == [trained("lora"), bound()], done.stderr
