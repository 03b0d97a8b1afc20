"""The masks of a whole model: drawn, enumerated, and put to use."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from lora_dropout.adapters.layer import need_called, need_masked_layers
from lora_dropout.adapters.placement import placing
from lora_dropout.door import (
    Count,
    Held,
    check_choice,
    check_count,
    check_tensor,
    check_type,
    checked,
    short,
    trusted,
)
from lora_dropout.masks.config import Inference
from lora_dropout.masks.draw import LayerMask, draw_layer_masks, enumerate_layer_masks


@dataclass(frozen=True, eq=False)
class Masks:
    """N draws of the masks of a whole model.

    Attributes:
        layers: Layer name -> that layer's N draws.
        n_instances: N.
    """

    WHAT: ClassVar[str] = "masks of sample_masks"
    layers: Mapping[str, LayerMask]
    n_instances: int

    def __post_init__(self) -> None:
        check_type("layers", self.layers, Mapping, "masks by layer name")
        check_count("n_instances", self.n_instances)
        for name, mask in self.layers.items():
            check_type("layers", mask, LayerMask, "masks by layer name")
            if mask.n_instances != self.n_instances:
                raise ValueError(
                    f"n_instances must be that of every layer, got n_instances={self.n_instances} "
                    f"and {mask.n_instances} for layer {name!r}"
                )

    def select(self, index: int) -> "Masks":
        """Take one draw.

        Args:
            index: Which draw, 0 <= index < N.

        Returns:
            Masks with N = 1.
        """
        picked = {name: mask.select(index) for name, mask in self.layers.items()}
        return trusted(Masks, layers=picked, n_instances=1)

    def gather(self, indices: Tensor) -> "Masks":
        """Take several draws.

        Args:
            indices: Which draws, int64, shape (K,).

        Returns:
            Masks with N = K.
        """
        picked = {name: mask.gather(indices) for name, mask in self.layers.items()}
        return trusted(Masks, layers=picked, n_instances=len(indices))

    def to(self, device: torch.device | str) -> "Masks":
        """Move all masks.

        Args:
            device: Target device.

        Returns:
            The same masks there.
        """
        moved = {name: mask.to(device) for name, mask in self.layers.items()}
        return trusted(Masks, layers=moved, n_instances=self.n_instances)


@checked
def sample_masks(
    model: nn.Module,
    *,
    n_instances: Held = 1,
    generator: torch.Generator | None = None,
    seeds: Tensor | None = None,
) -> Masks:
    """Draw N independent masks for all adapters of a model (Eq. 2).

    Args:
        model: An adapted model.
        n_instances: N, at least 1.
        generator: CPU generator that the N seeds are drawn from; None is torch's global one. It
            advances by N draws, whatever the model.
        seeds: The seeds themselves, int64 of shape (N,), to replay a draw; `n_instances` and
            `generator` then go unused.

    Returns:
        The masks, on the model's device. Equal seeds give equal masks on any device, and the
        first k of N draws are the k draws of the same generator.

    Raises:
        ValueError: If N < 1, `seeds` has the wrong shape, or the model has no adapters.
    """
    layers = need_masked_layers(model)
    if seeds is None:
        seeds = torch.randint(-(2**63), 2**63 - 1, (n_instances,), generator=generator)
    else:
        check_tensor("seeds", seeds)
    if seeds.dtype != torch.int64 or seeds.dim() != 1 or len(seeds) == 0:
        raise ValueError(f"seeds must be a non-empty int64 vector, got seeds={short(seeds)}")
    device = next(iter(layers.values())).device
    drawn = draw_layer_masks([layer.spec for layer in layers.values()], seeds, device=device)
    return trusted(Masks, layers=drawn, n_instances=len(seeds))


@checked
def enumerate_masks(model: nn.Module) -> tuple[Masks, Tensor]:
    """All masks of a model, with their probabilities.

    Args:
        model: An adapted model with few mask bits in all (for law `activation`, those of a
            single input row).

    Returns:
        (masks, float64 probabilities of shape (n_instances,) that sum to 1).

    Raises:
        ValueError: If there are more than 2^20 masks, or the model has no adapters.
    """
    layers = need_masked_layers(model)
    parts = {name: enumerate_layer_masks(layer.spec) for name, layer in layers.items()}
    total = 1
    for _, weights in parts.values():
        total *= len(weights)
    if total > 2**20:
        raise ValueError(f"model must have at most 2^20 masks to enumerate, got {total}")
    grid = torch.cartesian_prod(*(torch.arange(len(weights)) for _, weights in parts.values()))
    choices = grid.reshape(total, len(parts)).unbind(1)
    masks, probability = {}, torch.ones(total, dtype=torch.float64)
    for (name, (mask, weights)), choice in zip(parts.items(), choices, strict=True):
        masks[name] = mask.gather(choice)
        probability = probability * weights[choice]
    return trusted(Masks, layers=masks, n_instances=total), probability


def check_masks(model: nn.Module, masks: Masks | Inference) -> None:
    """Check that masks are those of a model.

    Args:
        model: An adapted model.
        masks: Draws, or a mask-free mode.

    Raises:
        TypeError: If `masks` is neither.
        ValueError: If they do not cover exactly the model's adapters or do not fit them, or there
            is no such mode.
    """
    if isinstance(masks, Masks):
        layers = need_masked_layers(model)
        if masks.layers.keys() != layers.keys():
            odd = sorted(masks.layers.keys() ^ layers.keys())
            raise ValueError(f"masks must cover exactly the model's adapters, they differ in {odd}")
        for name, layer in layers.items():
            masks.layers[name].check_fits(layer.spec)
        return
    if not isinstance(masks, str):
        raise TypeError(f"masks must be Masks, 'mean' or 'raw', got masks={short(masks)}")
    check_choice("masks", masks, get_args(Inference))


@checked
def use_masks(
    model: nn.Module, masks: Masks | Inference, *, rows: Count | None = None
) -> AbstractContextManager[None]:
    """Run forward passes under given masks, or mask-free; restores the former state at the end.

    Args:
        model: An adapted model.
        masks: Masks for every adapter; or `mean` (masks off, update scaled to the mask's mean)
            or `raw` (masks off, unscaled). Masks are moved to the model's device.
        rows: Number of examples in the coming passes, copies for each instance included; None
            takes the leading dimension of the model's first input. With N > 1 masks a pass must be
            one of `model` itself: its batch is dealt out among the masks, in blocks of
            ceil(rows / N) examples, wherever the batch is in the layers' inputs.

    Returns:
        A context manager.

    Raises:
        ValueError: If the masks are not those of this model's layers; in a pass with N > 1, if
            examples meet in the model or a layer's input does not show which example is where;
            at the end, if a layer's weight was used without calling the layer, past its mask.
    """
    check_masks(model, masks)
    return using(model, masks, rows=rows)


@contextmanager
def using(model: nn.Module, masks: Masks | Inference, *, rows: int | None = None) -> Iterator[None]:
    """As `use_masks`, for masks that are known to be the model's."""
    layers = need_masked_layers(model)
    active: dict[str, LayerMask | Inference] = {}
    for name, layer in layers.items():
        if isinstance(masks, Masks):
            mask, device = masks.layers[name], layer.device
            active[name] = mask if mask.device in (None, device) else mask.to(device)
        else:
            active[name] = masks
    before = {name: (layer.active, layer.rows) for name, layer in layers.items()}
    several = isinstance(masks, Masks) and masks.n_instances > 1
    try:
        for name, layer in layers.items():
            layer.active, layer.rows = active[name], rows
            layer.called = layer.weight_read = False
        with placing(model, layers, rows) if several else nullcontext():
            yield
        need_called(layers)
    finally:
        for name, layer in layers.items():
            layer.active, layer.rows = before[name]
