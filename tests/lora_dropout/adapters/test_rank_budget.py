"""AdaLoRA's rank allocation (arXiv 2303.10512)."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lora_dropout import (
    LoRADropoutConfig,
    RankAllocator,
    RankBudget,
    adapters,
    orthogonality_penalty,
)
from tests.lora_dropout.strategies import IDENTITY, generator, seeds, two_layers

CONFIG = LoRADropoutConfig(rank=3, adapter="adalora", dropout=0.0)


@given(
    st.integers(0, 10),
    st.integers(0, 10),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(0, 60),
)
def test_schedule(warmup: int, final: int, span: int, target: int, extra: int) -> None:
    total, initial = warmup + span + final, target + extra
    budget = RankBudget(target_rank=1, warmup_steps=warmup, final_steps=final)
    values = [
        budget.at(t, total_steps=total, initial=initial, target=target) for t in range(total + 1)
    ]
    assert values[: warmup + 1] == [initial] * (warmup + 1)
    assert values[total - final :] == [target] * (final + 1)
    assert all(a >= b for a, b in itertools.pairwise(values))
    for t in range(warmup, total - final + 1):  # Eq. 12, in exact integer arithmetic
        exact = target + (initial - target) * (span - (t - warmup)) ** 3 / span**3
        assert abs(values[t] - exact) <= 0.5 + 1e-9


def set_gradients(model: nn.Module, seed: int) -> None:
    random = generator(seed)
    for layer in adapters(model).values():
        for p in layer.parameters(recurse=False):
            p.grad = torch.randn(p.shape, generator=random, dtype=p.dtype)


@given(seeds(), st.floats(0, 1), st.floats(0, 1))
def test_sensitivity_recursion_and_scores(seed: int, beta1: float, beta2: float) -> None:
    model = two_layers(CONFIG, seed=seed)
    budget = RankBudget(target_rank=1, beta1=beta1, beta2=beta2)
    allocator = RankAllocator(model, budget, total_steps=10)
    mean: dict[str, float] = {}
    spread: dict[str, float] = {}
    for step in range(3):
        set_gradients(model, seed + step)
        allocator.observe()
        for name, layer in adapters(model).items():  # one number at a time
            for factor in ("lora_A", "lora_E", "lora_B"):
                p = getattr(layer, factor)
                for i in range(p.shape[0]):
                    for j in range(p.shape[1]):
                        key = f"{name}.{factor}.{i}.{j}"
                        now = abs(p[i, j].item() * p.grad[i, j].item())
                        mean[key] = beta1 * mean.get(key, 0.0) + (1 - beta1) * now
                        gap = abs(now - mean[key])
                        spread[key] = beta2 * spread.get(key, 0.0) + (1 - beta2) * gap
    for name, layer in adapters(model).items():
        n1, n2 = layer.lora_B.shape[0], layer.lora_A.shape[1]
        for k in range(3):
            s = {key: mean[key] * spread[key] for key in mean}
            want = (
                s[f"{name}.lora_E.{k}.0"]
                + sum(s[f"{name}.lora_A.{k}.{j}"] for j in range(n2)) / n2
                + sum(s[f"{name}.lora_B.{i}.{k}"] for i in range(n1)) / n1
            )
            assert float(allocator.scores()[name][k]) == pytest.approx(
                want, rel=1e-10, abs=IDENTITY
            )


@given(seeds(), st.integers(1, 3), st.integers(1, 3))
def test_exactly_the_best_triplets_stay(seed: int, target: int, interval: int) -> None:
    model = two_layers(CONFIG, seed=seed)
    budget = RankBudget(target_rank=target, warmup_steps=1, final_steps=2, interval=interval)
    allocator = RankAllocator(model, budget, total_steps=8)
    for step in range(1, 9):
        with torch.no_grad():  # an optimiser may revive a pruned value
            for layer in adapters(model).values():
                layer.lora_E.add_(torch.ones_like(layer.lora_E))
        set_gradients(model, seed + step)
        allocator.observe()
        ranked = sorted(
            ((float(s), n, i) for n, v in allocator.scores().items() for i, s in enumerate(v)),
            reverse=True,
        )
        room = allocator.prune(step)
        alive = {
            (n, i) for n, m in adapters(model).items() for i in range(3) if m.lora_E[i, 0] != 0
        }
        if step >= 6:  # the last two steps, and the one before, have the final budget
            assert room == 2 * target
        if step == 1 or (step < 6 and step % interval):
            assert len(alive) == 6
        elif step < 7:
            assert alive == {(n, i) for _, n, i in ranked[:room]}
            fixed = alive
        else:
            assert alive == fixed  # fine-tuning with the distribution fixed


def test_no_pressure_prunes_nothing() -> None:
    model = two_layers(CONFIG)
    before = [layer.lora_E.clone() for layer in adapters(model).values()]
    allocator = RankAllocator(model, RankBudget(target_rank=3), total_steps=4)
    for step in range(1, 5):
        set_gradients(model, step)
        allocator.observe()
        assert allocator.prune(step) == 6
    for old, layer in zip(before, adapters(model).values(), strict=True):
        assert torch.equal(old, layer.lora_E)


def test_orthogonality_sums_over_layers() -> None:
    model = two_layers(CONFIG)
    want = sum(layer.orthogonality() for layer in adapters(model).values())
    torch.testing.assert_close(orthogonality_penalty(model), want, rtol=IDENTITY, atol=IDENTITY)
    with torch.no_grad():
        for layer in adapters(model).values():
            layer.lora_A.copy_(torch.eye(3, layer.lora_A.shape[1]))
            layer.lora_B.copy_(torch.eye(layer.lora_B.shape[0], 3))
    assert float(orthogonality_penalty(model).detach()) == 0.0


def test_bad_input() -> None:
    for field, minimum in (
        ("target_rank", 1),
        ("interval", 1),
        ("warmup_steps", 0),
        ("final_steps", 0),
    ):
        message = f"{field} must be at least {minimum}, got {field}={minimum - 1}"
        with pytest.raises(ValueError, match=message):
            RankBudget(**{"target_rank": 1, field: minimum - 1})
    with pytest.raises(ValueError, match=r"beta1 must be in \[0, 1\], got beta1=2"):
        RankBudget(target_rank=1, beta1=2)
    plain = two_layers(LoRADropoutConfig(rank=2))
    with pytest.raises(
        ValueError, match=r"rank_budget needs a model adapted with adapter='adalora'"
    ):
        RankAllocator(plain, RankBudget(target_rank=1), total_steps=4)
    with pytest.raises(ValueError, match="orthogonality needs a model adapted with"):
        orthogonality_penalty(plain)
    with pytest.raises(ValueError, match="target_rank must be at most rank=3, got target_rank=4"):
        RankAllocator(two_layers(CONFIG), RankBudget(target_rank=4), total_steps=4)
    late = RankBudget(target_rank=1, warmup_steps=3, final_steps=1)
    with pytest.raises(ValueError, match=r"must be below total_steps=4, got 3 \+ 1"):
        RankAllocator(two_layers(CONFIG), late, total_steps=4)
