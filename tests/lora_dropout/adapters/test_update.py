"""The masked update against a loop over scalars (arXiv 2404.09610, Eqs. 2-6)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lora_dropout import LayerMask, masked_update
from lora_dropout.masks.draw import LayerSpec, draw_layer_masks
from tests.lora_dropout.strategies import (
    IDENTITY,
    Shape,
    close,
    dtypes,
    inner_rates,
    laws,
    normal,
    rates,
    seeds,
    shapes,
    tolerance,
)


def draw(law: str, p: float, shape: Shape, n: int, seed: int) -> LayerMask:
    layer = LayerSpec("layer", law, p, shape.n1, shape.n2, shape.rank)  # type: ignore[arg-type]
    return draw_layer_masks([layer], torch.arange(n) + seed)["layer"]


def factors(shape: Shape, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    A = normal(shape.rank, shape.n2, seed=seed, dtype=dtype)
    return A, normal(shape.n1, shape.rank, seed=seed + 1, dtype=dtype)


def naive(x: Tensor, A: Tensor, B: Tensor, mask: LayerMask, scaling: float) -> Tensor:
    """One example and one token at a time, from the full masked matrix."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    block = math.ceil(len(x) / mask.n_instances)
    out = x.new_zeros(*flat.shape[:2], len(B))
    for i in range(len(x)):
        one = mask.select(i // block)
        for t in range(flat.shape[1]):
            matrix, v = B @ A, flat[i, t]
            if one.rows is not None and one.columns is not None:
                matrix = torch.diag(one.rows[0].to(B)) @ B @ A @ torch.diag(one.columns[0].to(A))
            if one.ranks is not None:
                matrix = B @ torch.diag(one.ranks[0].to(B)) @ A
            if one.entries is not None:
                matrix = matrix * one.entries[0]
            if one.keys is not None:
                kept = one.activation_keep(flat.new_zeros(1, block * flat.shape[1], len(v)))
                scale = 1 / (1 - mask.dropout) if mask.dropout < 1 else 0.0
                v = v * kept[0, (i % block) * flat.shape[1] + t] * scale
            out[i, t] = scaling * (matrix @ v)
    return out.reshape(*x.shape[:-1], len(B))


token_dims = st.sampled_from([(), (1,), (3,), (2, 2)])


@given(
    laws(), rates(), shapes(4), st.integers(1, 4), st.integers(1, 6), token_dims, dtypes(), seeds()
)
def test_equals_the_loop(
    law: str,
    p: float,
    shape: Shape,
    n: int,
    size: int,
    tokens: tuple[int, ...],
    dtype: torch.dtype,
    seed: int,
) -> None:
    A, B = factors(shape, seed, dtype)
    x = normal(size, *tokens, shape.n2, seed=seed + 2, dtype=dtype)
    mask = draw(law, p, shape, n, seed)
    got = masked_update(x, A, B, mask=mask, scaling=0.7)
    assert got.shape == (size, *tokens, shape.n1)
    close(got, naive(x, A, B, mask, 0.7), tolerance(dtype))


@given(laws(), inner_rates(), shapes(), st.integers(1, 4), st.integers(1, 3), token_dims, seeds())
def test_one_pass_of_n_equals_n_passes(
    law: str, p: float, shape: Shape, n: int, size: int, tokens: tuple[int, ...], seed: int
) -> None:
    A, B = factors(shape, seed)
    x = normal(size, *tokens, shape.n2, seed=seed + 2)
    mask = draw(law, p, shape, n, seed)
    together = masked_update(x.repeat(n, *[1] * (x.dim() - 1)), A, B, mask=mask, scaling=1.0)
    for r, part in enumerate(together.split(size)):
        close(part, masked_update(x, A, B, mask=mask.select(r), scaling=1.0), IDENTITY)


@given(st.sampled_from(["row_column", "rank", "entrywise"]), shapes(), seeds(), st.integers(2, 5))
def test_every_token_and_example_shares_the_mask(
    law: str, shape: Shape, seed: int, size: int
) -> None:
    A, B = factors(shape, seed)
    mask = draw(law, 0.5, shape, 1, seed)
    x = normal(shape.n2, seed=seed + 2).expand(size, 3, shape.n2)
    update = masked_update(x, A, B, mask=mask, scaling=1.0)
    close(update, update[:1, :1].expand_as(update), IDENTITY)


def test_activation_dropout_differs_between_tokens() -> None:
    A, B = factors(Shape(4, 8, 3), 0)
    mask = draw("activation", 0.5, Shape(4, 8, 3), 1, 0)
    update = masked_update(torch.ones(2, 3, 8).double(), A, B, mask=mask, scaling=1.0)
    assert len(update.flatten(0, 1).unique(dim=0)) == 6


@given(shapes(), st.integers(1, 4), inner_rates(), seeds())
def test_masked_rows_and_columns_get_exactly_zero_gradient(
    shape: Shape, n: int, p: float, seed: int
) -> None:
    A, B = (f.requires_grad_() for f in factors(shape, seed))
    mask = draw("row_column", p, shape, n, seed)
    x = normal(2 * n, 3, shape.n2, seed=seed + 2)
    masked_update(x, A, B, mask=mask, scaling=1.0).square().sum().backward()
    assert mask.rows is not None and mask.columns is not None
    assert (B.grad[~mask.rows.any(dim=0)] == 0).all()
    assert (A.grad[:, ~mask.columns.any(dim=0)] == 0).all()
    both = (mask.rows.any(dim=1) & mask.columns.any(dim=1))[:, None]
    # What some instance keeps does move: the zeros above come from the mask.
    assert (B.grad[(mask.rows & both).any(dim=0)] != 0).all()
    assert (A.grad[:, (mask.columns & both).any(dim=0)] != 0).all()


@pytest.mark.parametrize("law", ["row_column", "rank", "activation", "entrywise", "none"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("size", [3, 4])
def test_gradients_agree_with_finite_differences(law: str, n: int, size: int) -> None:
    shape = Shape(3, 4, 2)
    A, B = (f.requires_grad_() for f in factors(shape, 1))
    x = normal(size, 2, 4, seed=3).requires_grad_()
    mask = draw(law, 0.4, shape, n, 5)

    def update(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return masked_update(x, A, B, mask=mask, scaling=1.3)

    assert torch.autograd.gradcheck(update, (x, A, B))


@pytest.mark.parametrize("law", ["row_column", "rank", "activation", "entrywise"])
@pytest.mark.parametrize("n", [1, 3])
def test_empty_batch(law: str, n: int) -> None:
    A, B = factors(Shape(3, 4, 2), 1)
    mask = draw(law, 0.4, Shape(3, 4, 2), n, 5)
    x = torch.zeros(0, 2, 4, dtype=A.dtype)
    assert masked_update(x, A, B, mask=mask, scaling=1.0).shape == (0, 2, 3)


def test_bad_input() -> None:
    A, B = factors(Shape(3, 4, 2), 1)
    mask = draw("row_column", 0.5, Shape(3, 4, 2), 2, 0)
    with pytest.raises(ValueError, match=r"x must end in 4 features, got x of shape \(2, 5\)"):
        masked_update(torch.zeros(2, 5), A, B, mask=None, scaling=1.0)
    with pytest.raises(ValueError, match=r"x must have a batch dimension, got x of shape \(4,\)"):
        masked_update(torch.zeros(4).double(), A, B, mask=mask, scaling=1.0)
    with pytest.raises(ValueError, match="one device, got x on meta, A on cpu, B on cpu"):
        masked_update(torch.zeros(2, 4, device="meta"), A, B, mask=None, scaling=1.0)
    with pytest.raises(ValueError, match="empty mask of law 'rank'"):
        masked_update(torch.zeros(2, 4).double(), A, B, mask=LayerMask("rank", 1), scaling=1.0)


_X, _A, _B = torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(3, 2)
_MASK = draw("row_column", 0.5, Shape(3, 4, 2), 2, 0)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"x": 1}, "x must be a dense tensor, got x=1"),
        ({"A": "a"}, "A must be a dense tensor, got A='a'"),
        ({"B": None}, "B must be a dense tensor, got B=None"),
        ({"x": _X.to_sparse()}, "x must be a dense tensor, got x=float32 tensor of shape (2, 4)"),
        ({"A": _A.to_sparse()}, "A must be a dense tensor, got A=float32 tensor of shape (2, 4)"),
        ({"B": _B.to_sparse()}, "B must be a dense tensor, got B=float32 tensor of shape (3, 2)"),
        ({"A": _A[0]}, "A must have 2 dimensions, got A=float32 tensor of shape (4,)"),
        ({"B": _B[None]}, "B must have 2 dimensions, got B=float32 tensor of shape (1, 3, 2)"),
        ({"B": _B.T}, "B must have 2 columns, got B=float32 tensor of shape (2, 3)"),
        (
            {"x": _X.double(), "B": _B.half()},
            "x, A and B must be of one type, got {'x': torch.float64, 'A': torch.float32, "
            "'B': torch.float16}",
        ),
        ({"x": _X.double()}, "x, A and B must be of one type"),
        ({"scaling": "2"}, "scaling must be a real number, got scaling='2'"),
        ({"mask": 0.5}, "mask must be a LayerMask or None, got mask=0.5"),
        ({"mask": _MASK.gather(torch.arange(0))}, "mask must have a draw, got mask of n_instan"),
        (
            {"mask": draw("row_column", 0.5, Shape(5, 4, 2), 2, 0)},
            "mask must fit A and B: masks must fit the model: layer '' needs rows of shape (2, 3)",
        ),
    ],
)
def test_what_does_not_fit_is_named(changed: dict[str, object], error: str) -> None:
    arguments = {"x": _X, "A": _A, "B": _B, "mask": _MASK, "scaling": 1.0} | changed
    with pytest.raises((TypeError, ValueError)) as caught:
        masked_update(**arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(error)


def test_autocast_may_mix_types() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = masked_update(_X.bfloat16(), _A, _B, mask=None, scaling=1.0)
    assert out.dtype == torch.bfloat16
