"""Put adapters into any `nn.Module`; merge them into the base and take them out again."""

import torch
from torch import Tensor, nn

from lora_dropout.adapters.layer import masked_layers, need_masked_layers
from lora_dropout.adapters.lora import AdaLoRALinear, AdapterLinear, LoRALinear
from lora_dropout.adapters.targets import saved_modules, target_layers
from lora_dropout.door import checked, unchecked
from lora_dropout.masks.config import Inference, LoRADropoutConfig

BASE_BUFFERS = "_base_buffers"  # of an adapted model: its buffers at the time

_LAYERS: dict[str, type[LoRALinear] | type[AdaLoRALinear]] = {
    "lora": LoRALinear,
    "adalora": AdaLoRALinear,
}


@checked
def adapt(
    model: nn.Module, config: LoRADropoutConfig, *, generator: torch.Generator | None = None
) -> nn.Module:
    """Put an adapter on each matching `nn.Linear`, in place; freeze everything else.

    Args:
        model: Any module.
        config: Adapter settings, patterns included.
        generator: CPU generator of the initial factors (layers in order of their names), or None
            for torch's global one.

    Returns:
        The same model. It computes what it did before until the adapters are trained.

    Raises:
        ValueError: If no module matches a pattern, the rank is above a layer's, a matched layer
            cannot carry an adapter, or the model has adapters already.
    """
    if unchecked(masked_layers)(model):
        raise ValueError("model must have no adapters yet, got one that was adapted before")
    targets = target_layers(model, config)
    smaller = min(min(layer.weight.shape) for layer in targets.values())
    if config.rank > smaller:
        raise ValueError(
            f"rank must be at most {smaller}, the smallest side of a matched layer, "
            f"got rank={config.rank}"
        )
    kept = saved_modules(model, config)
    model.requires_grad_(False)
    made: dict[int, AdapterLinear] = {}
    for name, layer in sorted(targets.items()):
        if id(layer) not in made:
            made[id(layer)] = _LAYERS[config.adapter](layer, config, name=name, generator=generator)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, made[id(layer)])
    for module in kept.values():
        module.requires_grad_(True)
    # What training moves without a gradient, as statistics of BatchNorm, is of the adapter, too.
    base = {name: buffer.detach().clone() for name, buffer in kept_buffers(model).items()}
    model.__dict__[BASE_BUFFERS] = base
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            # Its nested tensors are for layers that read weights without calling the modules.
            module.use_nested_tensor = False
    return model


def kept_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that a model's `state_dict` holds.

    Args:
        model: Any module.

    Returns:
        Name -> tensor.
    """
    kept = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in kept}


@checked
def adapters(model: nn.Module) -> dict[str, AdapterLinear]:
    """The adapter layers of a model.

    Args:
        model: Any module.

    Returns:
        Layer name (as the adapter knows it) -> layer, sorted by name; empty without adapters.
    """
    layers = unchecked(masked_layers)(model)
    return {n: m for n, m in layers.items() if isinstance(m, AdapterLinear)}


def adapter_config(model: nn.Module) -> LoRADropoutConfig:
    """The settings a model was adapted with.

    Args:
        model: An adapted model.

    Returns:
        Its configuration.

    Raises:
        ValueError: If layers differ in it: no one setting is then the model's.
    """
    (first, layer), *others = need_adapters(model).items()
    for name, other in others:
        if other.config != layer.config:
            raise ValueError(
                f"model must have one adapter configuration, layers {first!r} and {name!r} differ: "
                f"got {layer.config} and {other.config}"
            )
    return layer.config


@checked
def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that training changes: adapter factors and `modules_to_save`.

    Args:
        model: An adapted model, or a PEFT model with masks attached.

    Returns:
        Qualified name -> parameter.
    """
    need_masked_layers(model)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def check_frozen(model: nn.Module) -> None:
    """Check that no parameter is trained which `save_adapter` would not save.

    Args:
        model: An adapted model, or a PEFT model with masks attached, whose saving is PEFT's.

    Raises:
        ValueError: If the base was unfrozen after `adapt`.
    """
    layers = adapters(model)
    if not layers:
        return
    saved = {id(p) for layer in layers.values() for p in layer.parameters(recurse=False)}
    for module in saved_modules(model, adapter_config(model)).values():
        saved |= {id(parameter) for parameter in module.parameters()}
    loose = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in saved]
    if loose:
        raise ValueError(
            f"model must have its base frozen, which no adapter saves, got {loose[:4]} unfrozen"
            f"{' among others' if len(loose) > 4 else ''}: name their modules in modules_to_save, "
            "or requires_grad_(False)"
        )


def need_adapters(model: nn.Module) -> dict[str, AdapterLinear]:
    """The adapter layers of a model that must have some.

    Args:
        model: An adapted model.

    Returns:
        Layer name -> layer, sorted by name.

    Raises:
        ValueError: If there are none.
    """
    found = unchecked(adapters)(model)
    if not found and need_masked_layers(model):
        raise ValueError(
            "model must have adapters of adapt, got a PEFT model with masks attached: merge, save "
            "and load it by PEFT's own methods"
        )
    return found


@checked
def merge(model: nn.Module, *, inference: Inference | None = None) -> nn.Module:
    """Put every mask-free update into its base weight, in place.

    Args:
        model: An adapted model.
        inference: `mean`, `raw`, or None for the configuration's.

    Returns:
        The same model, now as fast as its base. The original weights are kept for `unmerge`.

    Raises:
        RuntimeError: If it is merged already.
    """
    layers = need_adapters(model)
    for name, layer in layers.items():
        if layer.merged:
            raise RuntimeError(f"layer {name!r} is merged already")
    for layer in layers.values():
        layer.merge(inference)
    return model


@checked
def unmerge(model: nn.Module) -> nn.Module:
    """Undo `merge`: the base weights are again bit-identical to the originals.

    Args:
        model: A merged model.

    Returns:
        The same model.

    Raises:
        RuntimeError: If it is not merged.
    """
    layers = need_adapters(model)
    for name, layer in layers.items():
        if not layer.merged:
            raise RuntimeError(f"layer {name!r} is not merged")
    for layer in layers.values():
        layer.unmerge()
    return model
