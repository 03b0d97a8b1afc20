"""Adapters on disk, in the format of Hugging Face PEFT.

`adapter_model.safetensors` and `adapter_config.json` are PEFT's. PEFT knows no inference mode:
its `lora_alpha` is written such that plain PEFT computes what our mask-free inference computes.
`lora_dropout_config.json` beside them holds the settings of the training, for our own loader, and
digests of itself and of the weights, by which damage shows.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lora_dropout.adapters.adapt import (
    BASE_BUFFERS,
    adapt,
    adapter_config,
    adapters,
    check_frozen,
    kept_buffers,
)
from lora_dropout.adapters.targets import saved_modules, target_layers
from lora_dropout.door import checked
from lora_dropout.masks.config import Inference, LoRADropoutConfig
from lora_dropout.safe_files import atomic_path, bytes_digest, json_digest, json_object

WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
OWN_CONFIG = "lora_dropout_config.json"
_DIGESTS = "digests"
_PREFIX = "base_model.model."

# PEFT settings that change what an adapter computes, with the values we can load.
_PLAIN = {
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "exclude_modules": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "use_bdlora": None,
    "arrow_config": None,
    "kasa_config": None,
    "monteclora_config": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "lora_bias": False,
    "target_parameters": None,
    "trainable_token_indices": None,
}
# PEFT's other ways to initialise change the base weights as well.
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


@checked
def save_adapter(
    model: nn.Module, folder: str | Path, *, inference: Inference | None = None
) -> list[Path]:
    """Write the adapters and `modules_to_save` of a model, and buffers moved since `adapt`.

    Args:
        model: An adapted model.
        folder: Target folder, made if needed; each file in it is replaced atomically, and none
            before all are written.
        inference: What plain PEFT shall compute after loading: `mean`, `raw`, or None for the
            configuration's.

    Returns:
        The files written.

    Raises:
        ValueError: If the mask's mean is zero (dropout 1), which leaves PEFT nothing to scale, or
            the base was unfrozen after `adapt`.
    """
    config = adapter_config(model)
    check_frozen(model)
    folder = Path(folder)
    factor = config.mean_factor if (inference or config.inference) == "mean" else 1.0
    if factor == 0.0:
        raise ValueError(f"dropout must be below 1 to save, got dropout={config.dropout!r}")
    # Cloned: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {
        key: tensor.detach().cpu().contiguous().clone()
        for key, tensor in (_tensors(model) | _moved_buffers(model)).items()
    }
    weights, settings = save(tensors, metadata={"format": "pt"}), attrs.asdict(config)
    digests = {WEIGHTS: bytes_digest(weights), "settings": json_digest(settings)}
    contents = {
        folder / WEIGHTS: weights,
        folder / PEFT_CONFIG: _json(_peft_config(config, _peft_targets(model, config), factor)),
        folder / OWN_CONFIG: _json({**settings, _DIGESTS: digests}),
    }
    with ExitStack() as stack:
        for target, content in contents.items():
            stack.enter_context(atomic_path(target)).write_bytes(content)
    return list(contents)


@checked
def load_adapter(model: nn.Module, folder: str | Path) -> nn.Module:
    """Read adapters into a model, adapting it first if it has none.

    A folder that plain PEFT wrote is read as law `activation` at its `lora_dropout` (or `none`).
    Everything is checked before anything is changed.

    Args:
        model: The base model, or one adapted with the same layers, rank, alpha and kind. Such a
            model keeps its own mask law and dropout.
        folder: A folder that `save_adapter` or PEFT's `save_pretrained` wrote.

    Returns:
        The same model.

    Raises:
        FileNotFoundError: If a file is missing.
        RuntimeError: If the model is merged.
        ValueError: If a file is damaged, asks for something unsupported, or its tensors do not
            fit the model: missing or extra keys, wrong shapes.
    """
    folder = Path(folder)
    config, digest = _read_config(folder)
    if not (folder / OWN_CONFIG).is_file():
        # PEFT lists what a head may be called ("classifier", "score"), whichever the model has.
        there = tuple(name for name in config.modules_to_save if _names_a_module(model, name))
        config = attrs.evolve(config, modules_to_save=there)
    if adapters(model):
        for name, layer in adapters(model).items():
            if layer.merged:
                raise RuntimeError(f"layer {name!r} is merged: unmerge before loading")
        present = adapter_config(model)
        for field in ("adapter", "rank", "alpha"):
            ours, theirs = getattr(present, field), getattr(config, field)
            if ours != theirs:
                raise ValueError(
                    f"{field} must be {ours!r} as in the model, got {theirs!r} in {folder}"
                )
        expected = {key: tuple(tensor.shape) for key, tensor in _tensors(model).items()}
    else:
        try:
            expected = _expected_shapes(model, config)
        except ValueError as error:
            raise ValueError(f"{folder} does not fit the model: {error}") from error
    tensors = _read_tensors(folder / WEIGHTS, digest)
    buffers = {f"{_PREFIX}{name}": buffer for name, buffer in kept_buffers(model).items()}
    expected |= {key: tuple(t.shape) for key, t in buffers.items() if key in tensors}
    _check_fit(tensors, expected, folder / WEIGHTS)
    if not adapters(model):
        adapt(model, config)
    with torch.no_grad():
        for key, tensor in _moved_buffers(model).items():
            tensor.copy_(vars(model).get(BASE_BUFFERS, {})[key.removeprefix(_PREFIX)])
        for key, tensor in (buffers | _tensors(model)).items():
            if key in tensors:
                tensor.copy_(tensors[key])
    return model


def _names_a_module(model: nn.Module, name: str) -> bool:
    return any(other == name or other.endswith("." + name) for other, _ in model.named_modules())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    suffix = ".weight" if adapter_config(model).adapter == "lora" else ""
    found: dict[str, Tensor] = {}
    for name, layer in adapters(model).items():
        for factor, tensor in layer.named_parameters(recurse=False):
            found[f"{_PREFIX}{name}.{factor}{suffix}"] = tensor
    for name, module in saved_modules(model, adapter_config(model)).items():
        for key, tensor in module.state_dict(keep_vars=True).items():
            found[f"{_PREFIX}{name}.{key}"] = tensor
    return found


def _moved_buffers(model: nn.Module) -> dict[str, Tensor]:
    saved, base = _tensors(model), vars(model).get(BASE_BUFFERS, {})
    return {
        f"{_PREFIX}{name}": buffer
        for name, buffer in kept_buffers(model).items()
        if f"{_PREFIX}{name}" not in saved
        and name in base
        and not torch.equal(buffer, base[name].to(buffer.device))
    }


def _expected_shapes(model: nn.Module, config: LoRADropoutConfig) -> dict[str, tuple[int, ...]]:
    expected: dict[str, tuple[int, ...]] = {}
    seen: set[int] = set()
    for name, layer in sorted(target_layers(model, config).items()):
        if id(layer) in seen:  # a layer that two names share has one adapter, under the first
            continue
        seen.add(id(layer))
        key, r = f"{_PREFIX}{name}.", config.rank
        if config.adapter == "lora":
            expected[key + "lora_A.weight"] = (r, layer.in_features)
            expected[key + "lora_B.weight"] = (layer.out_features, r)
        else:
            expected[key + "lora_A"] = (r, layer.in_features)
            expected[key + "lora_E"] = (r, 1)
            expected[key + "lora_B"] = (layer.out_features, r)
    for name, module in saved_modules(model, config).items():
        for key, tensor in module.state_dict().items():
            expected[f"{_PREFIX}{name}.{key}"] = tuple(tensor.shape)
    return expected


def _check_fit(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    problems = [f"missing key {key!r}" for key in sorted(expected.keys() - tensors.keys())]
    problems += [f"extra key {key!r}" for key in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{key!r} has shape {tuple(tensors[key].shape)}, the model needs {shape}"
        for key, shape in sorted(expected.items())
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    problems += [
        f"{key!r} holds values that are not finite"
        for key, tensor in sorted(tensors.items())
        if not torch.isfinite(tensor).all()
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))
        raise ValueError(f"{path} does not fit the model: {shown}")


def _read_tensors(path: Path, digest: str | None) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no adapter weights at {path}")
    content = path.read_bytes()
    if digest is not None and digest != bytes_digest(content):
        raise ValueError(f"{path} is damaged, or of another adapter than {OWN_CONFIG} beside it")
    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error


def _read_config(folder: Path) -> tuple[LoRADropoutConfig, str | None]:
    # The settings, and the digest of the weights where there is one.
    own = folder / OWN_CONFIG
    path = own if own.is_file() else folder / PEFT_CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"no adapter settings at {path}")
    content = json_object(path)
    try:
        if own.is_file():
            digest = _check_settings(content, path)
            if isinstance(content.get("target_modules"), list):
                content["target_modules"] = tuple(content["target_modules"])
            return LoRADropoutConfig(**content), digest
        return _from_peft(content), None
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: unusable adapter settings: {str(error)[:500]}") from error


def _check_settings(content: dict[str, Any], path: Path) -> str | None:
    # Takes the digests, which older folders have not, off the settings; returns the weights'.
    if _DIGESTS not in content:
        return None
    digests = content.pop(_DIGESTS)
    if digests["settings"] != json_digest(content):
        raise ValueError(f"{path} is damaged: its settings are not those of its digest")
    return digests[WEIGHTS]


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _peft_targets(model: nn.Module, config: LoRADropoutConfig) -> list[str] | str:
    if config.target_modules != "all-linear":
        targets = config.target_modules
        return targets if isinstance(targets, str) else list(targets)
    names = list(adapters(model))
    endings = tuple(f".{name}" for name in names)
    if any(
        isinstance(module, nn.Linear) and name.endswith(endings) and name not in names
        for name, module in model.named_modules()
    ):
        # To PEFT a listed name stands for every module whose name ends in it; an expression does
        # not.
        return "|".join(re.escape(name) for name in names)
    return names


def _peft_config(
    config: LoRADropoutConfig, targets: list[str] | str, factor: float
) -> dict[str, Any]:
    common = {
        "lora_alpha": _whole(config.alpha * factor),
        "lora_dropout": config.dropout if config.mask == "activation" else 0.0,
        "target_modules": targets,
        "modules_to_save": list(config.modules_to_save) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "base_model_name_or_path": None,
        "task_type": None,
    }
    if config.adapter == "lora":
        return {"peft_type": "LORA", "r": config.rank, **common}
    # PEFT divides AdaLoRA's update by the rank; pruned triplets are stored as zeros at full rank.
    # It also insists on a schedule, which loading never uses.
    schedule = {"total_step": 1, "tinit": 0, "tfinal": 0}
    return {
        "peft_type": "ADALORA",
        "init_r": config.rank,
        "target_r": config.rank,
        **schedule,
        **common,
    }


def _whole(alpha: float) -> int | float:
    return int(alpha) if math.isfinite(alpha) and alpha == int(alpha) else alpha


def _from_peft(content: dict[str, Any]) -> LoRADropoutConfig:
    kinds = {"LORA": ("lora", "r"), "ADALORA": ("adalora", "init_r")}
    if content.get("peft_type") not in kinds:
        raise ValueError(f"peft_type must be LORA or ADALORA, got {content.get('peft_type')!r}")
    for field, plain in _PLAIN.items():
        value = content.get(field, plain)
        if value != plain and value:
            raise ValueError(f"{field} is not supported, got {field}={value!r}")
    start = content.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise ValueError(f"init_lora_weights={start!r} changes the base, which is not supported")
    kind, rank_field = kinds[content["peft_type"]]
    dropout = float(content.get("lora_dropout") or 0.0)
    targets = content["target_modules"]
    return LoRADropoutConfig(
        adapter=kind,  # type: ignore[arg-type]
        rank=content[rank_field],
        alpha=float(content["lora_alpha"]),
        dropout=dropout,
        mask="activation" if dropout > 0 else "none",
        target_modules=targets if isinstance(targets, str) else tuple(targets),
        modules_to_save=tuple(content.get("modules_to_save") or ()),
    )
