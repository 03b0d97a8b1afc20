"""LoRA Dropout on a model that PEFT adapted; what PEFT saves stays an ordinary adapter."""

import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from peft import PeftModel
from peft.tuners.adalora.layer import SVDConv2d
from peft.tuners.lora.layer import Embedding, LoraLayer, MultiheadAttention, ParamWrapper, _ConvNd
from peft.tuners.lora.tp_layer import LoraParallelLinear
from torch import nn

from lora_bounds.bounds.laws import LawName
from lora_dropout.adapters.layer import masked_layers
from lora_dropout.door import check_type
from lora_dropout.masks.config import Inference
from lora_dropout.masks.draw import LayerMask
from lora_dropout.peft.attached_layer import (
    AttachConfig,
    AttachedLayer,
    adapter_factors,
    adapter_problem,
    attached_class,
    peft_class,
)

ModelT = TypeVar("ModelT", bound=nn.Module)

_PREFIX = "base_model.model."
# Layers whose update is no product with a linear layer's input.
_OTHER_BASES = (
    Embedding,
    _ConvNd,
    MultiheadAttention,
    ParamWrapper,
    LoraParallelLinear,
    SVDConv2d,
)
_OWN = (
    "name", "config", "active", "rows", "planned", "placed", "misplaced", "called", "weight_read",
)  # fmt: skip
# Initialisations whose factors start at an update of zero under every mask, on an unchanged base.
_STARTS_AT_THE_BASE = (True, False, "gaussian", "eva", "mica")


def attach(
    model: ModelT,
    *,
    dropout: float = 0.5,
    mask: LawName = "row_column",
    n_instances: int = 4,
    rescale: bool = True,
    inference: Inference = "mean",
) -> ModelT:
    """Put LoRA Dropout (arXiv 2404.09610) on a PEFT model with LoRA or AdaLoRA adapters, in place.

    Linear layers, GPT-2's `Conv1D` and their quantised forms are masked; several adapters, also
    active together, are too (each layer's masks cover all adapters active in it). In training
    mode a forward pass draws one mask a layer; `LoRADropoutTrainer`, or `instance_losses` in a
    loop of your own, trains by the N-instance loss (Eq. 7). In eval mode the masks are off, and
    `ensemble_predict` or the trainer puts them on for the ensemble (Eq. 8). `sample_masks`,
    `use_masks`, `instance_loss`, `ensemble_predict` and `fit` work as on an adapted model. The
    ranks of AdaLoRA fall under `LoRADropoutTrainer`; in a loop of your own, call PEFT's
    `update_and_allocate` after each optimiser step (`fit` refuses such a model).

    What is saved. `save_pretrained` writes what it wrote before: PEFT's factors, without masks.
    Plain PEFT then computes the raw update B A. With `rescale` (the default here) the masked
    update is divided by its mask's mean while training, so that B A is the mean of the masked
    update: this model in eval mode, plain PEFT after loading, and PEFT's `merge_and_unload` all
    compute the same mean network. Without it (the paper's Eq. 3) the mean is (1-p)^2 B A (law
    `row_column`): this model in eval mode computes that (`inference="mean"`), but plain PEFT the
    raw update, four times too large at p = 0.5. Then call `detach(model, fold=True)` before
    saving, which multiplies the factors by that mean; a warning says so.

    Modules that the base model's files hold no weights for (a new head, or a pooler: transformers
    names them as missing) are drawn anew by whoever loads it: put them into PEFT's
    `modules_to_save`, which knows only `classifier`, `score` and `qa_outputs` by itself.

    Args:
        model: A `PeftModel`, or a transformers model after `add_adapter`.
        dropout: Rate p in [0, 1) of the mask law.
        mask: Mask law, see `MaskConfig`.
        n_instances: Mask draws N of `LoRADropoutTrainer`.
        rescale: Whether the masked update is divided by its mask's mean (see above).
        inference: What the mask-free forward pass computes in eval mode without `rescale`: `mean`
            (scaled to the mask's mean) or `raw` (the paper's Drop_train, and plain PEFT).

    Returns:
        The same model.

    Raises:
        ValueError: If a setting is out of range, or a layer cannot be masked: DoRA and other
            variants, `lora_bias`, `lora_dropout` above 0, layers that are not linear, merged
            adapters, initialisations that change the base (PiSSA, OLoRA, ...) or start at factors
            whose product alone is zero, masks attached before. All reasons are given, and nothing
            is changed.
    """
    config = AttachConfig(
        dropout=dropout, mask=mask, n_instances=n_instances, rescale=rescale, inference=inference
    )
    if masked_layers(model):
        raise ValueError("model must have no masks yet, got one with masks: detach them first")
    layers = _lora_layers(model)
    if not layers:
        raise ValueError(
            "model must have LoRA or AdaLoRA layers (see peft.get_peft_model), "
            f"got {type(model).__name__} without any"
        )
    problems = [problem for name, layer in layers.items() for problem in _problems(name, layer)]
    if config.dropout > 0 and config.mask != "none":
        problems += _started_elsewhere(model)
    if problems:
        shown = "; ".join(problems[:5]) + f"; and {len(problems) - 5} more" * (len(problems) > 5)
        raise ValueError(f"model cannot be masked: {shown}")
    if config.inference == "mean" and config.mean_factor != 1.0:
        warnings.warn(
            f"with rescale=False save_pretrained writes factors whose update plain PEFT runs "
            f"{1 / config.mean_factor:.3g} times larger than this model does: call "
            "detach(model, fold=True) before saving",
            UserWarning,
            stacklevel=2,
        )
    for name, layer in layers.items():
        layer.__class__ = attached_class(type(layer))
        assert isinstance(layer, AttachedLayer)
        layer.name, layer.config = name, config
        layer.active = None
        layer.register_forward_pre_hook(_do_nothing)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            # Its nested tensors are for layers that read weights without calling the modules.
            module.use_nested_tensor = False
    for root in _roots(model):
        root.register_forward_pre_hook(_check_later)
    return model


@torch.no_grad()
def detach(model: ModelT, *, fold: bool = False) -> ModelT:
    """Take the masks off again, in place.

    Args:
        model: A model after `attach`.
        fold: Multiply the factors of the active adapters by what the mask-free forward pass
            multiplies the update by, so that plain PEFT computes the same. Needed once, at the
            end of training without `rescale`; with `rescale` there is nothing to fold.

    Returns:
        The same model; its layers are again what PEFT made them.

    Raises:
        ValueError: If no masks are attached.
    """
    check_type("fold", fold, bool, "a bool")
    config = attached_config(model)
    factor = config.mean_factor if config.inference == "mean" else 1.0
    for layer in _attached(model).values():
        if fold and factor != 1.0:
            for adapter in layer._adapters():
                factors = layer.lora_B[adapter]  # type: ignore[index]
                getattr(factors, "weight", factors).mul_(factor)
        layer.__class__ = peft_class(layer)
        _remove_hook(layer, _do_nothing)
        for attribute in _OWN:
            layer.__dict__.pop(attribute, None)
    for root in _roots(model):
        _remove_hook(root, _check_later)
    return model


def attached_config(model: nn.Module) -> AttachConfig:
    """The settings of `attach`.

    Args:
        model: A model after `attach`.

    Returns:
        Its settings.

    Raises:
        ValueError: If no masks are attached, or a LoRA layer came later and has none.
    """
    attached = _attached(model)
    if not attached:
        raise ValueError(f"model must have masks (see attach), got {type(model).__name__}")
    later = sorted(n for n, m in _lora_layers(model).items() if not isinstance(m, AttachedLayer))
    if later:
        raise ValueError(_LATER.format(later[0]))
    return next(iter(attached.values())).config


_LATER = "layer {!r} got its adapter after attach and is not masked: detach, then attach again"


def _do_nothing(module: nn.Module, inputs: tuple[object, ...]) -> None:
    # In eval mode nn.TransformerEncoderLayer reads the weights of its layers without calling them,
    # past adapter and mask, unless one of them has a hook.
    pass


def _check_later(module: nn.Module, inputs: tuple[object, ...]) -> None:
    # Refuses a pass under masks in which an adapter that came after `attach` has none.
    if torch.compiler.is_compiling():
        return
    layers = [m for m in module.modules() if isinstance(m, LoraLayer)]
    masks = module.training or any(
        isinstance(getattr(m, "active", None), LayerMask) for m in layers
    )
    if not masks or all(isinstance(m, AttachedLayer) for m in layers):
        return
    for name, layer in _lora_layers(module).items():
        on = not isinstance(layer, AttachedLayer) and not layer.disable_adapters
        if on and any(adapter in layer.lora_A for adapter in layer.active_adapters):  # type: ignore[operator,union-attr]
            raise ValueError(_LATER.format(name))


def _roots(model: nn.Module) -> list[nn.Module]:
    # PEFT's wrapper and the model inside: either may be called.
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return [model] if base is model else [model, base]


def _remove_hook(module: nn.Module, hook: object) -> None:
    hooks = module._forward_pre_hooks
    for key in [key for key, found in hooks.items() if found is hook]:
        del hooks[key]


def _started_elsewhere(model: nn.Module) -> list[str]:
    configs: dict[str, Any] = {}
    for module in model.modules():
        found = getattr(module, "peft_config", None)
        if isinstance(found, Mapping):
            configs |= found
    return [
        f"adapter {name!r} was made by init_lora_weights={config.init_lora_weights!r}, whose "
        "factors make up the base network only unmasked: make it with init_lora_weights=True, or "
        "attach with mask='none'"
        for name, config in configs.items()
        if getattr(config, "init_lora_weights", True) not in _STARTS_AT_THE_BASE
    ]


def _attached(model: nn.Module) -> dict[str, AttachedLayer]:
    return {n: m for n, m in masked_layers(model).items() if isinstance(m, AttachedLayer)}


def _lora_layers(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name.removeprefix(_PREFIX): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def _problems(name: str, layer: nn.Module) -> list[str]:
    assert isinstance(layer, LoraLayer)
    base = type(layer.get_base_layer()).__name__
    if isinstance(layer, ParamWrapper):
        return [
            f"layer {name!r} is a bare parameter, not a linear layer: leave it out of "
            "target_parameters"
        ]
    if isinstance(layer, _OTHER_BASES):
        return [
            f"layer {name!r} on {base} is not linear, its update has no rows and columns to mask: "
            "leave it out of target_modules"
        ]
    if "forward" in layer.__dict__:
        return [
            f"layer {name!r} has had its forward pass replaced, as accelerate's dispatch does: "
            "attach before that"
        ]
    if layer.merged:
        return [f"layer {name!r} is merged: call unmerge_adapter() first"]
    problems = []
    for adapter in layer.active_adapters:
        if adapter not in layer.lora_A:
            continue
        problem = adapter_problem(layer, adapter)
        if problem is None:
            A, B = adapter_factors(layer, adapter)
            if (A.shape[1:], B.shape[:1]) != ((layer.in_features,), (layer.out_features,)):
                problem = (
                    f"factors of shapes {tuple(A.shape)}, {tuple(B.shape)} are not those of a "
                    f"linear layer {layer.in_features} -> {layer.out_features}: leave it out of "
                    "target_modules"
                )
        if problem:
            problems.append(f"layer {name!r}, adapter {adapter!r}: {problem}")
    return problems
