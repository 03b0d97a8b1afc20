"""Wild tensors, beside the wild things of `wild`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.torture.inputs import wild


def tensors() -> st.SearchStrategy[Any]:
    """Tensors of odd shapes, types, layouts and places, and things that only torch has."""
    base = torch.linspace(-1.0, 1.0, 24)
    fixed: list[Any] = [
        torch.tensor(0.5), torch.tensor(3), torch.tensor(True), torch.empty(0), torch.empty(0, 5),
        torch.empty(3, 0), torch.zeros(2, 2), torch.ones(4, 5), torch.zeros((1,) * 20),
        base.view(4, 6), base.view(6, 4).T, base.double(), base.half(), base.bfloat16(),
        base.to(torch.complex64), torch.tensor([1, -1, 2]), torch.tensor([True, False]),
        torch.full((4, 5), torch.nan), torch.full((4, 5), torch.inf), torch.full((3,), 1e38),
        torch.zeros(4, 5, device="meta"), torch.eye(4).to_sparse(), base.view(4, 6)[:, ::2],
        torch.ones(4, 5, requires_grad=True), torch.tensor([0, 1, 2, 99]), torch.tensor([-100] * 4),
        torch.tensor([0, 1, 2, 0], dtype=torch.uint8), torch.full((4,), 2**62), nn.Linear(2, 2),
        torch.Generator(), torch.float32, torch.device("cpu"), "cuda:7", "meta", F.relu,
        nn.Sequential(nn.Linear(5, 3)), {"inputs": base}, {}, (base, base), [base, base], (base,),
        np.zeros((4, 5), dtype=np.float32), nn.Parameter(torch.zeros(3, 5)), nn.Identity(),
    ]  # fmt: skip
    return st.sampled_from(fixed)


def anything() -> st.SearchStrategy[Any]:
    return st.one_of(wild.anything(), wild.numbers(), tensors())


def _one_entry(tensor: Tensor, place: int, value: float) -> Tensor:
    found = tensor.clone()
    if found.numel():
        found.view(-1)[place % found.numel()] = value
    return found


def bent(tensor: Tensor) -> st.SearchStrategy[Tensor]:
    """A tensor that was valid, bent: an entry, its scale, a row, its rank, shape, type, place."""
    tensor = tensor.detach()
    if tensor.is_floating_point():
        edges: list[float] = [torch.nan, torch.inf, -torch.inf, 1e38, -1e38, 1e-45, 0.0, -1.0]
        factors = [0.0, -1.0, 1e-30, 1e10, 1e20, 1e38]
        scaled = [tensor * factor for factor in factors]
    else:
        edges, scaled = [-1, 3, 99, -100, 2**40, -(2**62)], [tensor.long() - 1, tensor + 1]
        edges = [] if tensor.dtype == torch.bool else edges
    entries = [_one_entry(tensor.contiguous(), k, edge) for k in (0, 5) for edge in edges]
    whole = [
        tensor[:1], tensor[1:], tensor.flip(0), torch.cat([tensor, tensor]), tensor[:0],
        tensor[..., None], tensor[None], tensor[..., :1], tensor.flatten(), tensor.double(),
        tensor.half(), tensor.long(), tensor.bool(), tensor.to(torch.complex64), tensor.to("meta"),
        tensor.movedim(0, -1), tensor.repeat_interleave(2, -1)[..., ::2], tensor.float(),
        torch.zeros_like(tensor), torch.ones_like(tensor), tensor.numpy(), tensor.tolist(),
    ]  # fmt: skip
    if tensor.dim() == 2:
        whole.append(tensor.to_sparse())
    return st.sampled_from([*entries, *entries, *scaled, *whole])


def bend(value: Any) -> st.SearchStrategy[Any] | None:
    """How to bend a valid argument: a tensor, or one of those in a pair, mapping or list."""
    if isinstance(value, Tensor) and value.dim() and value.numel():
        return bent(value)
    if isinstance(value, tuple) and any(isinstance(part, Tensor) for part in value):
        places = [k for k, part in enumerate(value) if bend(part) is not None]
        return st.sampled_from(places).flatmap(
            lambda k: bend(value[k]).map(lambda new: (*value[:k], new, *value[k + 1 :]))
        )
    if isinstance(value, Mapping) and any(isinstance(part, Tensor) for part in value.values()):
        return st.sampled_from([*value]).flatmap(
            lambda key: bend(value[key]).map(lambda new: {**value, key: new})
        )
    return wild.bend(value)
