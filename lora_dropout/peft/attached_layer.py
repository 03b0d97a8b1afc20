"""A PEFT LoRA layer with masks on its update, whatever base layer PEFT put it on."""

from typing import Any

import attrs
import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from lora_dropout.adapters.layer import MaskedLayer
from lora_dropout.adapters.update import unchecked_update
from lora_dropout.door import Count, by_domain
from lora_dropout.masks.config import MaskConfig
from lora_dropout.masks.draw import LayerSpec


@attrs.frozen(kw_only=True, slots=False, field_transformer=by_domain)
class AttachConfig(MaskConfig):
    """What `attach` puts on a PEFT model.

    Attributes:
        rescale: On by default: plain PEFT knows no mask factor, and with it needs none (see
            `attach`).
        n_instances: Mask draws N that `LoRADropoutTrainer` uses.
    """

    rescale: bool = True
    n_instances: Count = 4

    def __attrs_post_init__(self) -> None:
        if self.dropout == 1.0 and self.mask != "none":
            raise ValueError(f"dropout must be below 1, got dropout={self.dropout!r}")


class AttachedLayer(MaskedLayer):
    """Goes before the class of a PEFT layer: the base layer's output, plus the masked update.

    Adapters that are active together are masked as the one adapter of their stacked factors,
    which computes the same: sum_k B_k A_k = [B_1 B_2 ...] [A_1; A_2; ...]. Without a mask and
    without a factor on the update, PEFT's own forward pass runs.
    """

    config: AttachConfig
    # PEFT's own; the base layer may be of any kind that maps x to x W' + b.
    base_layer: nn.Module
    active_adapters: list[str]
    in_features: int
    out_features: int
    lora_A: nn.Module
    disable_adapters: bool
    merged_adapters: list[str]

    @property
    def spec(self) -> LayerSpec:
        """What a mask of this layer must fit; the rank is that of the active adapters."""
        config = self.config
        rank = sum(len(adapter_factors(self, adapter)[0]) for adapter in self._adapters())
        return LayerSpec(
            self.name, config.mask, config.dropout, self.out_features, self.in_features, rank
        )

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return next(self.lora_A.parameters()).device

    @property
    def merged(self) -> bool:
        """Whether an update now sits in the base weight."""
        return bool(self.merged_adapters)

    @property
    def weight(self) -> Any:
        """The base layer's weight; whoever reads it may compute without the adapter."""
        self.weight_read = True
        return super().weight  # type: ignore[misc]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer.

        Args:
            x: Input, shape (..., in_features).
            *args: For the base layer.
            **kwargs: For the base layer.

        Returns:
            Output, shape (..., out_features).

        Raises:
            RuntimeError: If masks are asked for while the layer is merged.
            ValueError: If the examples of the instances in this pass cannot be told apart in `x`,
                an active adapter cannot be masked, or PEFT's `adapter_names` come with masks.
        """
        self.called = True
        adapters = self._adapters()
        if self.disable_adapters or not adapters:
            return super().forward(x, *args, **kwargs)
        mask, factor = self._mask_and_factor(x.device)
        if mask is None and factor == 1.0:
            return super().forward(x, *args, **kwargs)
        if self.merged_adapters:
            raise RuntimeError(
                f"layer {self.name!r} is merged: call unmerge_adapter() before training or masking"
            )
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                "adapter_names (several adapters in one batch) do not go with masks: predict mask-"
                f"free by a model attached with rescale=True, got them at layer {self.name!r}"
            )
        for adapter in adapters:
            problem = adapter_problem(self, adapter)
            if problem:
                raise ValueError(f"layer {self.name!r}, adapter {adapter!r}: {problem}")
        place = None if mask is None else self._place(x, mask.n_instances)
        output = self.base_layer(x, *args, **kwargs)
        A, B = self._factors(adapters)
        if x.dtype != A.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(A.dtype)
        update = unchecked_update(x, A, B, mask=mask, scaling=factor, place=place)
        return output + update.to(output.dtype)

    def merge(self, *args: Any, **kwargs: Any) -> None:
        """Merge as PEFT does.

        Args:
            *args: PEFT's arguments.
            **kwargs: PEFT's arguments.

        Raises:
            RuntimeError: If the raw update is not what the mask-free forward pass computes.
        """
        if self._inference_factor(self.config.inference) != 1.0:
            raise RuntimeError(
                f"layer {self.name!r} was trained with rescale=False: PEFT would merge the raw "
                "update; call detach(model, fold=True) first"
            )
        super().merge(*args, **kwargs)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class is made at run time; what it was made from has a name.
        return _blank_layer, (peft_class(self),), self.__dict__

    def _adapters(self) -> list[str]:
        return [name for name in self.active_adapters if name in self.lora_A]  # type: ignore[operator]

    def _factors(self, adapters: list[str]) -> tuple[Tensor, Tensor]:
        pairs = [adapter_factors(self, adapter) for adapter in adapters]
        if len(pairs) == 1:
            return pairs[0]
        return torch.cat([A for A, _ in pairs]), torch.cat([B for _, B in pairs], dim=1)


_CLASSES: dict[type, type] = {}


def attached_class(cls: type) -> type:
    """The class of a PEFT layer with masks.

    Args:
        cls: The layer's own class.

    Returns:
        A subclass of `AttachedLayer` and of it, the same one each time.
    """
    if cls not in _CLASSES:
        _CLASSES[cls] = type(f"Masked{cls.__name__}", (AttachedLayer, cls), {})
    return _CLASSES[cls]


def peft_class(layer: nn.Module) -> type:
    """The class a layer had before.

    Args:
        layer: A layer with masks.

    Returns:
        PEFT's class.
    """
    return next(own for own, masked in _CLASSES.items() if isinstance(layer, masked))


def adapter_factors(layer: nn.Module, adapter: str) -> tuple[Tensor, Tensor]:
    """The factors of one adapter of a PEFT layer, PEFT's scaling included.

    Args:
        layer: The layer.
        adapter: Its name.

    Returns:
        (A, B) of shapes (r, in_features), (out_features, r); the update is B A.
    """
    assert isinstance(layer, LoraLayer)
    A, B, scaling = layer.lora_A[adapter], layer.lora_B[adapter], layer.scaling[adapter]
    if isinstance(layer, AdaLoraLayer):
        # PEFT's own formula, the 1e-5 against division by a rank of zero included.
        singular_values = layer.lora_E[adapter] * (scaling / (layer.ranknum[adapter] + 1e-5))
        return A * singular_values, B
    return A.weight, B.weight * scaling


def adapter_problem(layer: nn.Module, adapter: str) -> str | None:
    """Why an adapter of a linear PEFT layer cannot be masked.

    Args:
        layer: The layer.
        adapter: Its name.

    Returns:
        The reason and the remedy, or None if it can be.
    """
    assert isinstance(layer, LoraLayer)
    if adapter in layer.lora_variant:
        kind = type(layer.lora_variant[adapter]).__name__.removesuffix("LinearVariant")
        return (
            f"{kind} computes more than a low-rank update: make the adapter without it "
            "(use_dora, use_bdlora, alora_invocation_tokens, ... off)"
        )
    if layer.lora_bias.get(adapter):
        return "its bias would escape the masks: make the adapter with lora_bias=False"
    rate = getattr(layer.lora_dropout[adapter], "p", 0.0)
    if rate > 0:
        return (
            f"its own lora_dropout={rate} would come on top of the masks: make it with "
            f"lora_dropout=0.0 (for just that dropout, attach mask='activation', dropout={rate})"
        )
    return None


def _blank_layer(cls: type) -> nn.Module:
    layer: object = nn.Module.__new__(attached_class(cls))
    assert isinstance(layer, nn.Module)
    return layer
