"""Which modules of a model get an adapter, and which are trained whole."""

import re
from collections.abc import Mapping

from torch import nn

from lora_dropout.door import short
from lora_dropout.masks.config import LoRADropoutConfig


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name == pattern or name.endswith("." + pattern) for pattern in patterns)


def saved_modules(model: nn.Module, config: LoRADropoutConfig) -> dict[str, nn.Module]:
    """The modules that are trained whole.

    Args:
        model: The model.
        config: Its adapter settings.

    Returns:
        Name -> module.

    Raises:
        ValueError: If a name in `modules_to_save` matches none.
    """
    found = {n: m for n, m in model.named_modules() if _matches(n, config.modules_to_save)}
    for pattern in config.modules_to_save:
        if not any(_matches(name, (pattern,)) for name in found):
            raise ValueError(f"modules_to_save must name modules, none matches {short(pattern)}")
    return found


def target_layers(model: nn.Module, config: LoRADropoutConfig) -> dict[str, nn.Linear]:
    """The layers of a base model that `target_modules` asks for.

    Args:
        model: A model without adapters.
        config: Adapter settings.

    Returns:
        Name -> layer.

    Raises:
        ValueError: If nothing matches, an expression is none, or a matched layer cannot carry an
            adapter.
    """
    linear = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Linear) and name
    }
    attention = {
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.MultiheadAttention)
    }
    saved = tuple(saved_modules(model, config))
    patterns = config.target_modules
    if patterns == "all-linear":
        inside = tuple(f"{name}." for name in (*saved, *attention))
        found = {n: m for n, m in linear.items() if n not in saved and not n.startswith(inside)}
    elif isinstance(patterns, str):
        try:
            found = {n: m for n, m in linear.items() if re.fullmatch(patterns, n)}
        except re.error as error:
            raise ValueError(
                f"target_modules must be a regular expression, got {short(patterns)}: {error}"
            ) from error
    else:
        for pattern in patterns:
            if not any(_matches(name, (pattern,)) for name in linear):
                raise ValueError(_no_match(pattern, linear))
        found = {n: m for n, m in linear.items() if _matches(n, patterns)}
    if not found:
        raise ValueError(_no_match(patterns, linear))
    for name in found:
        if name.rpartition(".")[0] in attention:
            raise ValueError(
                f"target_modules matches {name!r} inside nn.MultiheadAttention, which reads that "
                "weight without calling the layer: an adapter there would do nothing"
            )
        if any(name == other or name.startswith(other + ".") for other in saved):
            raise ValueError(f"{name!r} is matched by target_modules and by modules_to_save")
    return found


def _no_match(pattern: object, linear: Mapping[str, nn.Linear]) -> str:
    known = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
    what = f"target_modules must match nn.Linear modules, none matches {short(pattern)}"
    return f"{what}; there are: {known}"
