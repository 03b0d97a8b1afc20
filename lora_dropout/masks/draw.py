"""Mask laws: which parts of an adapter a draw keeps (arXiv 2404.09610 v1, Eqs. 2, 3, 5).

A draw is named by one 64-bit seed. Every keep-bit of it is a hash of (seed, layer name,
position), so a mask depends on nothing else: not on the device, the number of threads, the
order of the layers, or which other layers exist. Equal seeds replay equal masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lora_bounds.bounds.laws import MASK_LAWS as LAWS
from lora_bounds.bounds.laws import LawName, mask_law
from lora_bounds.bounds.laws import MaskLaw as MaskLaw
from lora_dropout.door import (
    Probability,
    check_choice,
    check_count,
    check_probability,
    check_tensor,
    checked,
    short,
    trusted,
)
from lora_dropout.masks.bits import UNIT, mix, name_key, random_bits, threshold_of

MAX_ENUMERATED_BITS = 20
_BITS = ("rows", "columns", "ranks", "entries", "activations", "keys")


class LayerSpec(NamedTuple):
    """What a mask must fit: one adapted layer."""

    name: str
    law: LawName
    dropout: float
    out_features: int
    in_features: int
    rank: int


@dataclass(frozen=True, eq=False)
class LayerMask:
    """N draws of one layer's mask; True keeps, False drops. Only the law's own fields are set.

    Attributes:
        law: The mask law.
        n_instances: Number of draws N.
        rows: Kept rows of B, shape (N, out_features); law `row_column`.
        columns: Kept columns of A, shape (N, in_features); law `row_column`.
        ranks: Kept rank components, shape (N, rank); law `rank`.
        entries: Kept entries of B A, shape (N, out_features, in_features); law `entrywise`.
        activations: Kept inputs, shape (N, 1, in_features); law `activation`, enumerated only.
        keys: One int64 hash state a draw, shape (N,); law `activation`, whose bits are drawn
            when the input's shape is known.
        dropout: Rate p, needed with `keys` and for the usual 1/(1-p) of law `activation`.
    """

    law: LawName
    n_instances: int
    rows: Tensor | None = None
    columns: Tensor | None = None
    ranks: Tensor | None = None
    entries: Tensor | None = None
    activations: Tensor | None = None
    keys: Tensor | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_choice("law", self.law, LAWS)
        check_count("n_instances", self.n_instances, minimum=0)
        check_probability("dropout", self.dropout)
        for field, tensor in self._tensors().items():
            if tensor is not None:
                check_tensor(field, tensor)
                wanted = torch.int64 if field == "keys" else torch.bool
                if tensor.dtype != wanted or tensor.shape[:1] != (self.n_instances,):
                    raise ValueError(
                        f"{field} must be {wanted} and have n_instances={self.n_instances} draws "
                        f"first, got {field}={short(tensor)}"
                    )

    def select(self, index: int) -> "LayerMask":
        """Take one draw.

        Args:
            index: Which draw, 0 <= index < N.

        Returns:
            A mask with N = 1.

        Raises:
            IndexError: If there is no such draw.
        """
        if not 0 <= index < self.n_instances:
            raise IndexError(f"index must be in [0, {self.n_instances}), got index={index}")
        return self.gather(torch.tensor([index]))

    def gather(self, indices: Tensor) -> "LayerMask":
        """Take several draws.

        Args:
            indices: Which draws, int64, shape (K,).

        Returns:
            A mask with N = K.
        """
        picked = {
            field: None if tensor is None else tensor[indices.to(tensor.device)]
            for field, tensor in self._tensors().items()
        }
        return self._with(n_instances=len(indices), **picked)

    def to(self, device: torch.device | str) -> "LayerMask":
        """Move the mask.

        Args:
            device: Target device.

        Returns:
            The same mask there.
        """
        moved = {
            field: None if tensor is None else tensor.to(device)
            for field, tensor in self._tensors().items()
        }
        return self._with(**moved)

    def activation_keep(self, x: Tensor) -> Tensor:
        """Keep-bits of law `activation` for an input.

        Args:
            x: Input in instance-major form, shape (N, M, in_features).

        Returns:
            Bool tensor of the shape of `x`; draw r depends on its own key and on the position
            inside block r alone, so one pass of N equals N passes.

        Raises:
            ValueError: If an enumerated mask (of a single input row) meets more rows.
        """
        if self.activations is not None:
            if x.shape[1] != 1:
                raise ValueError(
                    "enumerated masks of law 'activation' are those of one input row, "
                    f"got x with {x.shape[1]} rows per instance"
                )
            return self.activations
        assert self.keys is not None
        counters = torch.arange(x[0].numel(), device=x.device)
        bits = random_bits(self.keys.to(x.device)[:, None], counters, threshold_of(self.dropout))
        return bits.view(x.shape)

    @property
    def device(self) -> torch.device | None:
        """Where the bits are; None for law `none`, which has none."""
        return next((t.device for t in self._tensors().values() if t is not None), None)

    def check_fits(self, layer: LayerSpec) -> None:
        """Check that these bits are for a layer of this shape.

        Args:
            layer: The layer they are to mask.

        Raises:
            ValueError: If a shape differs; the message names the layer and both shapes.
        """
        n, out, width = self.n_instances, layer.out_features, layer.in_features
        shapes: dict[str, tuple[int, ...]] = {
            "rows": (n, out),
            "columns": (n, width),
            "ranks": (n, layer.rank),
            "entries": (n, out, width),
            "activations": (n, 1, width),
            "keys": (n,),
        }
        for field, tensor in self._tensors().items():
            if tensor is not None and tuple(tensor.shape) != shapes[field]:
                raise ValueError(
                    f"masks must fit the model: layer {layer.name!r} needs {field} of shape "
                    f"{shapes[field]}, got {tuple(tensor.shape)}"
                )

    def _with(self, **changes: object) -> "LayerMask":
        return trusted(LayerMask, **{**vars(self), **changes})

    def _tensors(self) -> dict[str, Tensor | None]:
        return {field: getattr(self, field) for field in _BITS}


@checked
def mean_factor(law: LawName, dropout: Probability) -> float:
    """Mean of the masked update as a multiple of B A.

    Exact: (1-p)^2 for `row_column`, 1-p for `rank` and `entrywise`, 1 for `none` and for
    `activation`, which carries its own 1/(1-p) (at p = 1 that update is 0, and so is the mean).

    Args:
        law: The mask law.
        dropout: Dropout rate p in [0, 1].

    Returns:
        The factor, in [0, 1].
    """
    return float(mask_law(law).unchecked_mean(dropout))


def draw_layer_masks(
    layers: Sequence[LayerSpec],
    seeds: Tensor,
    *,
    dropout: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, LayerMask]:
    """Draw the masks that `seeds` name, for all layers in one computation.

    Args:
        layers: The layers, in any order; the order changes nothing.
        seeds: int64 tensor of shape (N,), one seed a draw.
        dropout: A rate for each draw, float64 of shape (N,), in place of the layers' own; not for
            law `activation`, whose bits are drawn later.
        device: Where the masks are computed and live; it does not change their bits.

    Returns:
        Layer name -> mask with N draws. Bits are independent over draws, layers and
        positions, each True with probability 1-p to within 2^-53.
    """
    seeds = seeds.to(device)
    n_layers, n_draws = len(layers), len(seeds)
    layer_keys = torch.tensor([name_key(layer.name) for layer in layers], device=device)
    states = mix(mix(seeds)[:, None] + layer_keys)  # (N, L)
    sizes = [_n_bits(layer) if layer.law != "activation" else 0 for layer in layers]
    if n_layers == 1:  # a forward pass that draws its own: no gathers
        streams, counters = states, torch.arange(sizes[0], device=device)
        own: Tensor | int = threshold_of(layers[0].dropout)
    else:
        lengths = torch.tensor(sizes, device=device)
        starts = lengths.cumsum(0) - lengths
        of_layer = torch.repeat_interleave(
            torch.arange(n_layers, device=device), lengths, output_size=sum(sizes)
        )
        streams = states[:, of_layer]
        counters = torch.arange(sum(sizes), device=device) - starts[of_layer]
        rates = [threshold_of(layer.dropout) for layer in layers]
        own = torch.tensor(rates, device=device)[of_layer]
    if dropout is not None:
        # As `threshold_of`: 2^53 times a float64 is exact.
        own = ((1.0 - dropout) * UNIT).round().long().to(device)[:, None]
    bits = random_bits(streams, counters, own)  # (N, total)
    return {
        layer.name: _assemble(layer, n_draws, part, states[:, index])
        for index, (layer, part) in enumerate(zip(layers, bits.split(sizes, dim=1), strict=True))
    }


def enumerate_layer_masks(layer: LayerSpec) -> tuple[LayerMask, Tensor]:
    """All masks of one layer, with their probabilities.

    For law `activation` these are the masks of a single input row.

    Args:
        layer: The layer.

    Returns:
        (mask with 2^k draws, float64 probabilities of shape (2^k,) that sum to 1), where k is
        the law's number of bits: n1 + n2 for `row_column`, r for `rank`, n1 n2 for `entrywise`,
        n2 for `activation`, 0 for `none`.

    Raises:
        ValueError: If k is above 20 (a million masks).
    """
    n_bits = _n_bits(layer)
    if n_bits > MAX_ENUMERATED_BITS:
        raise ValueError(
            f"layer {layer.name!r} has 2^{n_bits} masks of law {layer.law!r}; at most "
            f"2^{MAX_ENUMERATED_BITS} are enumerated"
        )
    codes = torch.arange(2**n_bits)
    bits = (codes[:, None] >> torch.arange(n_bits)) & 1 == 1
    kept = bits.sum(dim=1).double()
    dropped = n_bits - kept
    rate = torch.tensor(layer.dropout, dtype=torch.float64)
    probability = (1.0 - rate) ** kept * rate**dropped
    mask = _assemble(layer, len(codes), bits, None)
    return mask, probability


def bare_mask(law: LawName, n_instances: int, dropout: float, **bits: Tensor) -> LayerMask:
    """A mask of bits that are known to be those of its law."""
    parts: dict[str, Tensor | None] = {**dict.fromkeys(_BITS), **bits}
    return trusted(LayerMask, law=law, n_instances=n_instances, dropout=dropout, **parts)


def _n_bits(layer: LayerSpec) -> int:
    sizes = {
        "row_column": layer.out_features + layer.in_features,
        "rank": layer.rank,
        "entrywise": layer.out_features * layer.in_features,
        "activation": layer.in_features,
        "none": 0,
    }
    return sizes[layer.law]


def _assemble(layer: LayerSpec, n_draws: int, bits: Tensor, keys: Tensor | None) -> LayerMask:
    mask = bare_mask(layer.law, n_draws, layer.dropout)
    if layer.law == "row_column":
        rows, columns = bits.split([layer.out_features, layer.in_features], dim=1)
        return mask._with(rows=rows, columns=columns)
    if layer.law == "rank":
        return mask._with(ranks=bits)
    if layer.law == "entrywise":
        return mask._with(entries=bits.view(n_draws, layer.out_features, layer.in_features))
    if layer.law == "activation":
        if keys is not None:
            return mask._with(keys=keys)
        return mask._with(activations=bits[:, None, :])
    return mask
