"""What every masked layer has in common, wherever its factors live: a name, a mask, its use."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_dropout.adapters.update import Place
from lora_dropout.door import checked, unchecked
from lora_dropout.masks.config import Inference, MaskConfig
from lora_dropout.masks.draw import LayerMask, LayerSpec, draw_layer_masks

Active = LayerMask | Inference | None

ONE_A_PASS = (
    "run one instance a pass (mode='loop'; in ensemble_predict, max_rows = the number of examples)"
)


class MergedError(RuntimeError):
    """What is asked for is not possible while an update sits in a base weight."""


class MaskedLayer(nn.Module, ABC):
    """A layer whose low-rank update is masked.

    A forward pass adds the update of the active mask. Without an active mask, training mode
    draws a fresh one from torch's global generator (one a forward, as `nn.Dropout` would), and
    eval mode follows `config.inference`.

    Attributes:
        name: Qualified name; it keys the layer's masks.
        config: Mask settings.
        active: The mask, or mask-free mode, of the passes to come (see `use_masks`).
        rows: Number of examples in the passes to come, where known.
        planned: The shapes of the layer's inputs and where the examples are in them, as the last
            forward pass of a model under several masks found (see `adapters.placement`); the
            entries along that axis go by the number of examples.
        placed: Whether such a pass is under way.
        misplaced: Why the examples are nowhere.
        called: Whether the layer has run since `use_masks` began.
        weight_read: Whether its weight was read by others since then.
    """

    name: str
    config: MaskConfig
    active: Active
    rows: int | None = None
    planned: tuple[tuple[tuple[int, ...], Place], ...] = ()
    placed: bool = False
    misplaced: str | None = None
    called: bool = False
    weight_read: bool = False

    @property
    @abstractmethod
    def spec(self) -> LayerSpec:
        """What a mask of this layer must fit."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the factors are, and the masks are wanted."""

    @property
    @abstractmethod
    def merged(self) -> bool:
        """Whether the update now sits in the base weight."""

    def _place(self, x: Tensor, n_instances: int) -> Place | None:
        if n_instances == 1:
            return None
        compiling = torch.compiler.is_compiling()
        if not self.placed and not (compiling and self.planned):
            raise ValueError(
                f"layer {self.name!r} met {n_instances} masks outside of a forward pass of the "
                f"model that use_masks was given: call that model, or {ONE_A_PASS}"
            )
        rows = self.rows or 0
        places = {place for shape, place in self.planned if _fits(x, shape, place, rows)}
        if compiling and not places:  # a compiled pass cannot probe for a new length of text
            places = {place for _, place in self.planned if _of_rows(x, place, rows)}
        if len(places) != 1:
            # By call rather than by shape would be wrong where checkpointing calls again.
            several = "calls of one shape have the batch in several places" if places else ""
            reason = f": {self.misplaced or several}" if self.misplaced or several else ""
            raise ValueError(
                f"layer {self.name!r} must get the batch of {self.rows} rows in a place of its "
                f"input that can be told to run {n_instances} instances in one pass, got x of "
                f"shape {tuple(x.shape)}{reason}; {ONE_A_PASS}"
            )
        return places.pop()

    def _inference_factor(self, inference: Inference) -> float:
        return self.config.mean_factor if inference == "mean" else 1.0

    def _mask_and_factor(self, device: torch.device) -> tuple[LayerMask | None, float]:
        active = self.active
        if active is None and self.training:
            # From the CPU generator, which activation checkpointing saves and restores.
            seed = torch.randint(-(2**63), 2**63 - 1, (1,))
            active = draw_layer_masks([self.spec], seed, device=device)[self.name]
        if isinstance(active, LayerMask):
            return active, self.config.mask_scale
        return None, self._inference_factor(active or self.config.inference)


def _fits(x: Tensor, shape: tuple[int, ...], place: Place, rows: int) -> bool:
    size = (*shape[: place.axis], place.outer * rows * place.inner, *shape[place.axis + 1 :])
    return tuple(x.shape) == size


def _of_rows(x: Tensor, place: Place, rows: int) -> bool:
    return place[1:] == (1, 1) and place.axis < x.dim() - 1 and x.shape[place.axis] == rows


@checked
def masked_layers(model: nn.Module) -> dict[str, MaskedLayer]:
    """The masked layers of a model, adapted or attached.

    Args:
        model: Any module.

    Returns:
        Layer name (as the layer knows it) -> layer, sorted by name; empty without any.

    Raises:
        ValueError: If two layers have one name, as after `adapt` on two parts of a model: their
            masks would be the same.
    """
    layers = [m for m in model.modules() if isinstance(m, MaskedLayer)]
    found = {layer.name: layer for layer in layers}
    if len(found) < len(layers):
        names = sorted(layer.name for layer in layers)
        raise ValueError(f"adapter names must be unique in a model, got {names}")
    return dict(sorted(found.items()))


def need_masked_layers(model: nn.Module) -> dict[str, MaskedLayer]:
    """The masked layers of a model that must have some.

    Args:
        model: An adapted model, or a PEFT model with masks attached.

    Returns:
        Layer name -> layer, sorted by name.

    Raises:
        ValueError: If there are none.
    """
    found = unchecked(masked_layers)(model)
    if not found:
        raise ValueError(
            f"model must have adapters (see adapt), got {type(model).__name__}; on a PEFT model "
            "call lora_dropout.peft.attach first"
        )
    return found


def need_called(layers: Mapping[str, MaskedLayer]) -> None:
    """See that no layer was passed by in the passes of `use_masks`.

    A layer that a pass skips (as LayerDrop does) computes nothing, masked or not. One whose weight
    is read without a call (`nn.MultiheadAttention`'s `out_proj`, fused kernels) computes without
    its adapter.

    Args:
        layers: The masked layers.

    Raises:
        ValueError: If a layer's weight was read, and the layer never called.
    """
    passed_by = [name for name, m in layers.items() if m.weight_read and not m.called]
    if passed_by:
        raise ValueError(
            f"layers {passed_by} must be called to be masked, but the model reads their weights "
            "without calling them: leave them out of target_modules"
        )
