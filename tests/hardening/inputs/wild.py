"""Values that no function expects: numbers at their edges, odd arrays and tensors, no numbers."""

import enum
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

_SELF: list[Any] = []
_SELF.append(_SELF)
_DEEP: list[Any] = []
for _ in range(200):
    _DEEP = [_DEEP]


class _Shade(enum.Enum):
    RED = 1


def numbers() -> st.SearchStrategy[Any]:
    """Single numbers, of every kind and at every edge of their range.

    No whole number lies between 1e4 and 1e11: as a size it would be slow rather than wrong.
    """
    edges = [
        float("nan"), float("inf"), float("-inf"), -1.0, -0.0, 0, 1, -1, 0.5, 2, 7, 1.0 + 2**-52,
        1.0 - 2**-53, 5e-324, -5e-324, 2.2e-308, 1e-300, 1e-160, 1e-16, 1e16, 1e160, 1.7e308,
        -1.7e308, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**12, 10**400, -(10**400), 10**5000,
        0.1, 1.5, 3,
    ]  # fmt: skip
    typed = [
        np.float32("nan"), np.float16(0.5), np.float64(1e300), np.int8(-3), np.uint64(2**64 - 1),
        np.bool_(True), np.longdouble("1e4000"), np.float32(1e-45), np.int64(3), np.array(0.5),
        np.array(2), np.complex128(1 + 0j), np.array(np.nan), np.datetime64("2024-04-15"),
    ]  # fmt: skip
    return st.one_of(
        st.sampled_from(edges),
        st.sampled_from(typed),
        st.floats(),
        st.floats(0.0, 1.0),
        st.integers(-10, 100),
    )


def things() -> st.SearchStrategy[Any]:
    """What is no number at all."""
    fixed = [
        None, True, False, "", "0.5", "nan", "row_column", "upper", "\0", "x" * 10_000,
        "../..", b"1", 1j, Decimal("0.1"), Fraction(1, 3), (), {}, {"a": 1}, {1, 2}, object(),
        len, repr, range(3), Path("x"), _Shade.RED, _SELF, _DEEP, slice(3), Ellipsis,
        NotImplemented, memoryview(b"abc"), np.dtype(float), types.SimpleNamespace(value=1),
    ]  # fmt: skip
    return st.one_of(st.sampled_from(fixed), st.text(max_size=5))


def arrays() -> st.SearchStrategy[Any]:
    """Arrays and lists of odd shapes, types, layouts and contents."""
    base = np.linspace(0.1, 0.9, 24)
    fixed = [
        [], [[]], [[], []], [0.5], [0.5, 0.25], [[0.5]], [[1, 2], [3]], [0.1, "a"], [None, 1.0],
        [float("nan"), 0.5], [0.5, float("inf")], [True, False], (0.5, 0.7, 0.9), [10**400, 1],
        np.empty(0), np.empty((0, 3)), np.empty((3, 0)), np.zeros((2, 2)), np.ones((2, 3, 4)),
        np.zeros((1,) * 40), base.reshape(4, 6), base[::3], base[::-1][:3], base.reshape(4, 6).T,
        np.asfortranarray(base.reshape(6, 4)), base.astype(np.float16)[:2],
        base.astype(np.longdouble)[:2], np.array([1, 2, 3], dtype=np.uint8),
        np.array([1 + 1j, 2]), np.array(["a", "b"]), np.array([None, 1], dtype=object),
        np.array([Fraction(1, 2)], dtype=object), np.array(["2024-04-15"], dtype="M8[D]"),
        np.ma.masked_array([0.5, 0.7], [True, False]), np.array([(1, 0.5)], dtype="i4,f8"),
        np.array([1e308, 1e308]), np.array([[1.0, np.nan], [0.0, 1.0]]), np.eye(3) * 1e-310,
        np.full((2, 2), -np.inf), base.astype(">f8")[:2], np.broadcast_to(np.float64(0.5), (3, 2)),
        np.array([[1.0, 2.0], [2.0, 1.0]]), [[[0.5]]], np.array([1e200, 1e-200, 0.0]),
    ]  # fmt: skip
    drawn = st.lists(st.one_of(st.floats(), st.integers(-3, 5)), min_size=1, max_size=6)
    return st.one_of(st.sampled_from(fixed), drawn, st.lists(drawn, min_size=1, max_size=3))


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
    """For `lora_bounds`, which knows no tensors."""
    return st.one_of(numbers(), numbers(), things(), arrays())


def anything_of_torch() -> st.SearchStrategy[Any]:
    """For `lora_dropout`."""
    return st.one_of(anything(), numbers(), tensors())


def _set(value: Any, place: int, entry: Any) -> Any:
    found = value.copy() if isinstance(value, np.ndarray) else value.clone()
    found.reshape(-1)[place % value.size if isinstance(value, np.ndarray) else place] = entry
    return found


def bent_array(array: Any) -> st.SearchStrategy[Any]:
    """An array that was valid, bent: one entry, its scale, a row, its rank, shape or type."""
    edges = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e160, 1e-160, 5e-324, 0.0, -1.0, 0.5]
    plain = np.array(array, dtype=np.float64, order="C")
    entry = st.tuples(st.integers(0, 50), st.sampled_from(edges)).map(
        lambda drawn: _set(plain, *drawn)
    )
    factors = [0.0, -1.0, 1e-320, 1e-200, 1e-160, 1e-8, 1e8, 1e100, 1e150, 1e160, 1e200, 1e300]
    whole = [
        array[:1], array[1:], array[::-1], np.concatenate([array, array]), array[:0],
        np.repeat(array[:1], len(array), 0), array.T, array[..., :1], array[None], array[..., None],
        np.asfortranarray(array), array.tolist(), np.repeat(array, 2, -1)[..., ::2], array.ravel(),
        array.astype(bool), array.astype(str), array.astype(object), array.astype(complex),
        array.astype(np.float32), np.sign(array).astype(np.int8), np.round(array).astype(int),
        array + 1e9, np.ones_like(array), np.ma.masked_array(array, array > 0),
    ]  # fmt: skip
    return st.one_of(
        entry, st.sampled_from(factors).map(lambda factor: array * factor), st.sampled_from(whole)
    )


def bent_tensor(tensor: Tensor) -> st.SearchStrategy[Any]:
    """A tensor that was valid, bent: an entry, its scale, a row, its rank, shape, type, place."""
    tensor = tensor.detach()
    if tensor.is_floating_point():
        edges: list[float] = [torch.nan, torch.inf, -torch.inf, 1e38, -1e38, 1e-45, 0.0, -1.0]
        scaled = [tensor * factor for factor in (0.0, -1.0, 1e-30, 1e10, 1e20, 1e38)]
    else:
        edges, scaled = [-1, 3, 99, -100, 2**40, -(2**62)], [tensor.long() - 1, tensor + 1]
        edges = [] if tensor.dtype == torch.bool else edges
    places = (0, min(5, tensor.numel() - 1))
    entries = [_set(tensor.contiguous(), k, edge) for k in places for edge in edges]
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


Bend = Callable[[Any], st.SearchStrategy[Any] | None]


def bend(value: Any) -> st.SearchStrategy[Any] | None:
    """How to bend a valid array or tensor, or one in a pair or mapping; else None."""
    if isinstance(value, np.ndarray) and value.ndim and value.size and value.dtype.kind in "if":
        return bent_array(value)
    if isinstance(value, Tensor) and value.dim() and value.numel():
        return bent_tensor(value)
    if isinstance(value, tuple) and any(isinstance(part, Tensor) for part in value):
        places = [k for k, part in enumerate(value) if bend(part) is not None]
        return st.sampled_from(places).flatmap(
            lambda k: bend(value[k]).map(lambda new: (*value[:k], new, *value[k + 1 :]))
        )
    if isinstance(value, Mapping) and any(isinstance(part, Tensor) for part in value.values()):
        return st.sampled_from([*value]).flatmap(
            lambda key: bend(value[key]).map(lambda new: {**value, key: new})
        )
    return None
