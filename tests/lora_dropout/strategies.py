"""Shared Hypothesis strategies, small models and tolerance tiers."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from lora_dropout import LoRADropoutConfig, adapt, adapters

# Tolerance tiers. Absolute and relative; float64 unless said otherwise.
IDENTITY = 1e-12  # the same computation in another order of a few terms
ALGEBRA = 1e-10  # another algebraic route to the same number
SINGLE = 2e-5  # another route in float32
HALF = 5e-2  # another route in bfloat16 (8 bits)
OPTIMUM = 1e-5  # an optimiser against a closed form
BLOCK_LAWS = ("row_column", "rank", "activation", "entrywise")


@dataclass(frozen=True)
class Shape:
    """Of one adapted layer."""

    n1: int
    n2: int
    rank: int


@st.composite
def shapes(draw, most: int = 6) -> Shape:
    n1, n2 = draw(st.integers(1, most)), draw(st.integers(1, most))
    return Shape(n1, n2, draw(st.integers(1, min(n1, n2))))


def rates() -> st.SearchStrategy[float]:
    return st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.0, 1.0, width=32))


def inner_rates() -> st.SearchStrategy[float]:
    return st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])


def laws() -> st.SearchStrategy[str]:
    return st.sampled_from(BLOCK_LAWS)


def dtypes() -> st.SearchStrategy[torch.dtype]:
    return st.sampled_from([torch.float32, torch.float64])


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def tolerance(dtype: torch.dtype) -> float:
    return {torch.float64: ALGEBRA, torch.float32: SINGLE, torch.bfloat16: HALF}[dtype]


def close(a: Tensor, b: Tensor, tier: float) -> None:
    torch.testing.assert_close(a, b, rtol=tier, atol=tier)


def fill(model: nn.Module, seed: int) -> nn.Module:
    """Give every factor random values: an adapter starts with an update of zero."""
    random = generator(seed)
    with torch.no_grad():
        for layer in adapters(model).values():
            for parameter in layer.parameters(recurse=False):
                parameter.copy_(torch.randn(parameter.shape, generator=random))
    return model


def seeded(model: nn.Module, seed: int) -> nn.Module:
    """Give every parameter seeded values."""
    random = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.5)
    return model


def one_layer(
    shape: Shape, config: LoRADropoutConfig, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> nn.Module:
    """One adapted linear layer, named "0", with random factors."""
    base = seeded(nn.Sequential(nn.Linear(shape.n2, shape.n1, dtype=dtype)), seed)
    return fill(adapt(base, config, generator=generator(seed)), seed + 1)


def two_layers(
    config: LoRADropoutConfig, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> nn.Module:
    """Two adapted layers ("0" and "2") around a tanh: 5 features, 3 classes."""
    base = nn.Sequential(nn.Linear(5, 4, dtype=dtype), nn.Tanh(), nn.Linear(4, 3, dtype=dtype))
    return fill(adapt(seeded(base, seed), config, generator=generator(seed)), seed + 1)
