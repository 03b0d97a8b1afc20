"""The masked low-rank update, the one function behind every adapter layer.

arXiv 2404.09610 v1, Eqs. 2-6. The masks multiply the small factors, (N, r, n2) and (N, n1, r),
so masking costs next to nothing beside the products with the activations.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_dropout.door import check_real, check_same_device, check_tensor, check_type, short
from lora_dropout.masks.draw import LayerMask, LayerSpec


class Place(NamedTuple):
    """Which entries of an input's axis belong to which of its R examples.

    The axis has `outer * R * inner` entries; entry i belongs to example (i // inner) mod R. Rows
    that lead have (0, 1, 1), tokens flattened example by example (0, 1, T), first tokens first
    (0, T, 1).
    """

    axis: int
    outer: int = 1
    inner: int = 1


def masked_update(
    x: Tensor, A: Tensor, B: Tensor, *, mask: LayerMask | None, scaling: float
) -> Tensor:
    """Compute scaling * (m_B * B) (A * m_A) x, for one mask or for N in one pass.

    With N > 1 draws the leading dimension of `x` is dealt out: block r, of ceil(R / N)
    consecutive entries of it, uses draw r (the last blocks are shorter, or empty, if N does not
    divide R). Every token and example inside a block shares its mask.

    Args:
        x: Input, shape (R, ..., n2); the leading dimension must run over the batch.
        A: Right factor, shape (r, n2).
        B: Left factor, shape (n1, r).
        mask: N draws, or None for no mask.
        scaling: alpha / r, times whatever rescaling the caller wants; it multiplies a small
            factor, not the output.

    Returns:
        The update, shape (R, ..., n1). Law `activation` includes its usual 1/(1-p).

    Raises:
        TypeError: If they are no tensors, or of several types.
        ValueError: If the tensors are on different devices, `x` has no batch dimension, or its
            last dimension is not n2.
    """
    for name, tensor in (("x", x), ("A", A), ("B", B)):
        check_type(name, tensor, Tensor, "a dense tensor")
    check_same_device(x=x, A=A, B=B)
    check_tensor("x", x)
    check_tensor("A", A, dims=2)
    check_tensor("B", B, dims=2)
    if x.dim() == 0 or x.shape[-1] != A.shape[1]:
        raise ValueError(f"x must end in {A.shape[1]} features, got x of shape {tuple(x.shape)}")
    scaling = check_real("scaling", scaling)
    if B.shape[1] != A.shape[0]:
        raise ValueError(f"B must have {A.shape[0]} columns, got B={short(B)}")
    kinds = {"x": x.dtype, "A": A.dtype, "B": B.dtype}
    if len({*kinds.values()}) > 1 and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"x, A and B must be of one type, got {kinds}")
    if mask is not None:
        check_type("mask", mask, LayerMask, "a LayerMask or None")
        layer = LayerSpec("", mask.law, mask.dropout, B.shape[0], A.shape[1], A.shape[0])
        try:
            mask.check_fits(layer)
        except ValueError as error:
            raise ValueError(f"mask must fit A and B: {error}") from error
        if mask.n_instances == 0:
            raise ValueError("mask must have a draw, got mask of n_instances=0")
    return unchecked_update(x, A, B, mask=mask, scaling=scaling)


def unchecked_update(
    x: Tensor,
    A: Tensor,
    B: Tensor,
    *,
    mask: LayerMask | None,
    scaling: float,
    place: Place | None = None,
) -> Tensor:
    """As `masked_update`, for layers that have checked their masks already: no check at each pass.

    Args:
        x: As there, but for `place`.
        A: As there.
        B: As there.
        mask: As there.
        scaling: As there.
        place: Where the examples are; None for each leading entry being one.

    Returns:
        As there.
    """
    B = B * scaling
    if mask is None or mask.law == "none":
        return F.linear(F.linear(x, A), B)
    if mask.n_instances == 1 and mask.law in ("row_column", "rank"):
        masked_A, masked_B = _mask_factors(A, B, mask)
        return F.linear(F.linear(x, masked_A[0]), masked_B[0])
    if place is None or place[:2] == (0, 1):
        return _instance_update(x, A, B, mask, inner=1 if place is None else place.inner)
    return _placed_update(x, A, B, mask, place)


def _mask_factors(A: Tensor, B: Tensor, mask: LayerMask) -> tuple[Tensor, Tensor]:
    if mask.rows is not None and mask.columns is not None:
        return A * mask.columns[:, None, :], B * mask.rows[:, :, None]
    if mask.ranks is not None:
        return A * mask.ranks[:, :, None], B.expand(mask.n_instances, *B.shape)
    raise ValueError(f"mask must carry the bits of its law, got an empty mask of law {mask.law!r}")


def _placed_update(x: Tensor, A: Tensor, B: Tensor, mask: LayerMask, place: Place) -> Tensor:
    n, axis = mask.n_instances, place.axis
    rows = x.shape[axis] // (place.outer * place.inner)
    block = -(-rows // n)
    split = x.unflatten(axis, (place.outer, rows, place.inner))
    if missing := n * block - rows:
        shape = (*split.shape[: axis + 1], missing, *split.shape[axis + 2 :])
        split = torch.cat([split, split.new_zeros(shape)], dim=axis + 1)
    # An instance's entries keep the order they would have in a pass of its own.
    blocks = split.unflatten(axis + 1, (n, block)).movedim(axis + 1, 0)
    update = _blocks_update(blocks.reshape(n, -1, x.shape[-1]), A, B, mask)
    update = update.reshape(*blocks.shape[:-1], B.shape[0]).movedim(0, axis + 1)
    update = update.flatten(axis + 1, axis + 2).narrow(axis + 1, 0, rows)
    return update.flatten(axis, axis + 2)


def _instance_update(x: Tensor, A: Tensor, B: Tensor, mask: LayerMask, *, inner: int = 1) -> Tensor:
    if x.dim() < 2:
        raise ValueError(f"x must have a batch dimension, got x of shape {tuple(x.shape)}")
    n = mask.n_instances
    block = -(-(x.shape[0] // inner) // n) * inner
    missing = n * block - x.shape[0]
    padded = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x
    rows = block * math.prod(x.shape[1:-1])
    update = _blocks_update(padded.reshape(n, rows, x.shape[-1]), A, B, mask)
    update = update.reshape(n * block, *x.shape[1:-1], B.shape[0])
    return update[: x.shape[0]] if missing else update


def _blocks_update(blocks: Tensor, A: Tensor, B: Tensor, mask: LayerMask) -> Tensor:
    # (N, M, n2) -> (N, M, n1), instance after instance.
    if mask.law == "activation":
        keep_rate = 1.0 - mask.dropout
        scale = 1.0 / keep_rate if keep_rate > 0 else 0.0
        return F.linear(F.linear(blocks * mask.activation_keep(blocks) * scale, A), B)
    if mask.entries is not None:
        return torch.bmm(blocks, (mask.entries * (B @ A)).transpose(1, 2))
    masked_A, masked_B = _mask_factors(A, B, mask)
    hidden = torch.bmm(blocks, masked_A.transpose(1, 2))
    return torch.bmm(hidden, masked_B.transpose(1, 2))
