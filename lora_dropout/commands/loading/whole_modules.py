"""Which modules are trained whole and saved beside the adapter, and which layers it goes on.

An adapter is a network only together with its base model. What the base model's files do not hold
is drawn anew by every process that loads them, so all of it goes into the adapter: the head of the
task, and what else transformers reports as missing or of another shape.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from lora_dropout.tasks.data_warning import DataWarning
from lora_dropout.tasks.text import Head

# What PEFT adds to `modules_to_save` by itself.
_ADDED = {
    "classification": ("classifier", "score"),
    "regression": ("classifier", "score"),
    "spans": ("qa_outputs",),
    "causal": (),
}


def drawn_modules(loading_info: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules that a model's files hold no weights for.

    Args:
        loading_info: What `from_pretrained(..., output_loading_info=True)` returned beside it.

    Returns:
        Names of the modules that own such parameters, without those inside another one.
    """
    keys = {*loading_info["missing_keys"], *(key for key, *_ in loading_info["mismatched_keys"])}
    return _outermost({key.rpartition(".")[0] for key in keys})


def check_shapes(model: nn.Module, loading_info: Mapping[str, Any]) -> None:
    """Refuse weights that do not fit the model; a head gives way to one of another size.

    Args:
        model: Of `transformers`.
        loading_info: What `from_pretrained(..., output_loading_info=True)` returned beside it.

    Raises:
        ValueError: If a weight of the model proper has another shape than its settings say.
    """
    backbone = _backbone(model)
    for key, held, wanted in sorted(loading_info["mismatched_keys"]):
        if _inside(key, backbone):
            raise ValueError(
                f"its weights {key} have shape {tuple(held)}, by its settings {tuple(wanted)}"
            )


def whole_modules(
    model: nn.Module, head: Head, drawn: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[str, ...]:
    """The modules to train whole and to save with the adapter.

    Args:
        model: Of `transformers`, without an adapter.
        head: Of the task.
        drawn: From `drawn_modules`.
        wanted: Names from the flag, each standing for all modules whose name ends so; they take the
            place of the choice made here.

    Returns:
        Full names, none inside another: the head (of a language model only if it is drawn) and the
        drawn modules, or the wanted ones; and what PEFT saves by itself.

    Raises:
        ValueError: If a wanted module is not there, or a drawn one is not among them; or, without
            `wanted`, if the model's files lack more than a head or a pooler.
    """
    names = [name for name, _ in model.named_modules() if name]
    for name in wanted:
        if not any(_ends(full, name) for full in names):
            raise ValueError(f"--modules-to-save: the model has no module {name!r}")
    if wanted:
        chosen = {full for full in names if any(_ends(full, name) for name in wanted)}
    else:
        _check_head_only(model, drawn)
        heads = _heads(model) if head != "causal" else []
        chosen = {*heads, *drawn}
    # PEFT takes every module whose name ends with the letters of a name, `pre_classifier` too.
    letters = (*chosen, *_ADDED[head])
    found = _outermost({name for name in names if name.endswith(letters)})
    added = {name for name in names if name.endswith(_ADDED[head])} - {*found}
    # PEFT would wrap these once more inside another: their owner goes part by part.
    for outer in [o for o in found if any(_inside(name, o) for name in added)]:
        parts = {key.rpartition(".")[0] for key, _ in model.get_submodule(outer).named_parameters()}
        found = tuple(sorted({*found, *(f"{outer}.{part}" for part in parts)} - {outer}))
    lost = [name for name in drawn if not any(_inside(name, whole) for whole in found)]
    if lost:
        raise ValueError(
            f"--modules-to-save: the base model has no weights for {', '.join(lost)}, which every "
            f"process would draw anew: name {'them' if len(lost) > 1 else 'it'} too, got "
            f"{' '.join(wanted)}"
        )
    return found


def linear_layers(model: nn.Module, whole: Sequence[str]) -> list[str]:
    """What `all-linear` stands for; a warning tells of weights that are no such layers.

    Args:
        model: Of `transformers`, without an adapter.
        whole: Modules that are trained whole.

    Returns:
        Names of the linear layers, in the order of the model, without those in `whole`, without a
        language model's last one, and without those that PEFT takes for a mixture's experts.

    Raises:
        ValueError: If there is none.
    """
    last = getattr(model, "get_output_embeddings", lambda: None)()
    frozen = {
        name: module
        for name, module in model.named_modules()
        if module is not last and not any(_inside(name, outer) for outer in whole)
    }
    linear = [name for name, module in frozen.items() if _is_linear(module)]
    # PEFT takes some names for those of experts in older files, here and when it loads an adapter.
    probe = LoraConfig(target_modules=linear)
    convert_peft_config_for_transformers(probe, model, None)
    layers = [name for name in linear if name in (probe.target_modules or ())]
    if not layers:
        raise ValueError(
            f"--target-modules: all-linear finds no torch.nn.Linear in {type(model).__name__}"
        )
    stacked = [
        f"{name}.{key}"
        for name, module in frozen.items()
        if not isinstance(module, _ConvNd)
        for key, parameter in module.named_parameters(recurse=False)
        if parameter.dim() > 2
    ]
    left = stacked + [name for name in linear if name not in layers]
    if left:
        shown = ", ".join(left[:2]) + (", ..." if len(left) > 2 else "")
        warnings.warn(
            f"all-linear adapts {len(layers)} linear layers; weights that are stacked in bare "
            f"parameters, or named as experts, stay as they are: {shown}",
            DataWarning,
            stacklevel=2,
        )
    return layers


@torch.no_grad()
def _is_linear(module: nn.Module) -> bool:
    if not isinstance(module, (nn.Linear, Conv1D)):
        return False
    if type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    # Falcon's is a product all the same; a mixture's router may return more than that.
    width = module.in_features if isinstance(module, nn.Linear) else module.nx
    try:
        return isinstance(module(module.weight.new_zeros(1, width)), Tensor)
    except (RuntimeError, TypeError, ValueError):
        return False


def _check_head_only(model: nn.Module, drawn: Sequence[str]) -> None:
    backbone = _backbone(model)
    modules = dict(model.named_modules())
    words = _words(model)
    for name in drawn:
        above = [name[:i] for i, letter in enumerate(name) if letter == "."]
        if (
            not name
            or name == backbone
            or modules[name] is words
            or (
                _inside(name, backbone)
                and any(isinstance(modules[outer], nn.ModuleList) for outer in above)
            )
        ):
            raise ValueError(
                f"--model: its files hold no weights for {name or 'parameters of the whole model'}"
                f" ({len(drawn)} modules are without): are they whole, and of this architecture? "
                "--modules-to-save trains and saves what it names"
            )


def _words(model: nn.Module) -> Any:
    try:
        return getattr(model, "get_input_embeddings", lambda: None)()
    except NotImplementedError:  # CANINE reads characters
        return None


def _heads(model: nn.Module) -> list[str]:
    backbone = _backbone(model)
    if not backbone:
        return []
    return [
        name
        for name, module in model.named_children()
        if name != backbone and any(True for _ in module.parameters())
    ]


def _backbone(model: nn.Module) -> str:
    # The child that is the model without a head; empty if there is none such.
    name = getattr(model, "base_model_prefix", "")
    return name if isinstance(getattr(model, name, None), nn.Module) else ""


def _outermost(names: set[str]) -> tuple[str, ...]:
    return tuple(
        sorted(name for name in names if not any(o != name and _inside(name, o) for o in names))
    )


def _inside(name: str, outer: str) -> bool:
    return name == outer or (outer != "" and name.startswith(f"{outer}."))


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
