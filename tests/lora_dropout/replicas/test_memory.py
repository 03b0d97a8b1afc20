"""How many replicas go together: what is kept, counted by hand, and that results do not change."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import FitConfig, LoRADropoutConfig, Replica, adapt, fit_replicas
from lora_dropout.replicas import memory
from lora_dropout.replicas.stack import Stack
from tests.lora_dropout.strategies import ALGEBRA, close, normal

CONFIG = FitConfig(epochs=2, batch_size=8, learning_rate=0.05, n_instances=2)
REPLICAS = [Replica(seed=k, dropout=0.1 * k) for k in range(5)]


def problem(width: int = 6, mask: str = "row_column") -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3)).double()
    adapt(model, LoRADropoutConfig(rank=2, mask=mask))  # type: ignore[arg-type]
    return model, normal(16, 5, seed=1), torch.arange(16) % 3


def chunk(config: FitConfig = CONFIG, width: int = 6) -> int:
    model, x, y = problem(width)
    return memory.default_chunk_size(Stack(model), x, y, config, F.cross_entropy)


def test_what_a_product_keeps() -> None:
    stack = Stack(problem()[0])
    a, b = normal(7, 4, seed=0).requires_grad_(), normal(4, 9, seed=1).requires_grad_()
    # A product keeps both factors, the square its argument: 28 + 36 + 63 float64.
    assert memory._bytes_kept(stack, lambda: (a @ b).square()) == 8 * (28 + 36 + 63)
    # A view adds nothing; parameters of the model do not count.
    weight = next(iter(stack.parameters.values()))
    assert memory._bytes_kept(stack, lambda: weight.T @ weight) == 0


def test_larger_steps_mean_fewer_replicas() -> None:
    assert chunk(width=60) < chunk()
    assert chunk(replace(CONFIG, batch_size=16)) < chunk()
    assert chunk(replace(CONFIG, n_instances=8)) < chunk()
    assert chunk(replace(CONFIG, mode="grouped")) > chunk()


def test_what_the_optimizer_holds_counts() -> None:
    model, x, y = problem(width=400)
    stack = Stack(model)
    alone = replace(CONFIG, batch_size=1, n_instances=1)
    size = memory.default_chunk_size(stack, x, y, alone, F.cross_entropy)
    # Parameters, gradient and two moments in float64, at the least.
    assert size * 4 * 8 * sum(stack.sizes) <= 2**26


def test_the_budget_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    most = chunk()
    monkeypatch.setitem(memory._BUDGET, "cpu", memory._BUDGET["cpu"] // 2)
    assert chunk() in (most // 2, most // 2 + 1)
    monkeypatch.setitem(memory._BUDGET, "cpu", 1)
    assert chunk() == 1


@pytest.mark.parametrize("mask", ["row_column", "activation"])
def test_results_do_not_depend_on_it(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = problem(mask=mask)

    def results() -> list[Tensor]:
        runs = fit_replicas(model, (x, y), REPLICAS, config=CONFIG, device="cpu", progress=False)
        got = [runs.outputs(model, x, inference=way) for way in ("mean", "ensemble")]  # type: ignore[arg-type]
        return [*runs.parameters.values(), *got]

    groups = []
    deal = Stack.groups

    def noted(self: Stack, rates: list[float], size: int) -> list[list[int]]:
        groups.append(deal(self, rates, size))
        return groups[-1]

    monkeypatch.setattr(Stack, "groups", noted)
    want = results()
    smallest = len(REPLICAS) if mask == "activation" else 1
    assert [len(found) for found in groups] == [smallest] * 3
    monkeypatch.setitem(memory._BUDGET, "cpu", 1)
    for got, expected in zip(results(), want, strict=True):
        close(got, expected, ALGEBRA)
    assert [len(found) for found in groups[3:]] == [len(REPLICAS)] * 3
