"""Folders that may come from strangers: what in them would run code or lead elsewhere is refused.

The libraries read more than the weights: PEFT follows other adapters, files and modules that an
adapter's settings name, transformers the shards that an index names. And where a file is missing,
they ask the hub for a repository called like the folder.
"""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

from peft import AdaLoraConfig, LoraConfig
from transformers.utils import find_adapter_config_file

from lora_dropout.adapters.folder import PEFT_CONFIG, WEIGHTS
from lora_dropout.door import short
from lora_dropout.safe_files import json_object

# What `train` writes that is not PEFT's default; none of it names a file, a module or a model
# that is loaded (the base model is loaded before).
_SET = {
    *("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision"),
    *("auto_mapping", "inference_mode", "target_modules", "exclude_modules", "modules_to_save"),
    *("r", "lora_alpha", "lora_dropout", "rank_pattern", "fan_in_fan_out"),
    *("init_r", "target_r", "tinit", "tfinal", "deltaT", "total_step"),
}
# What the Trainer would read from a checkpoint, and never writes into one of `train`.
_NEVER_SAVED = ("adapter_model.bin", "model.safetensors", "pytorch_model.bin", "scaler.pt")


def check_base(folder: Path) -> None:
    """Refuse a base model whose files lead out of its folder.

    Args:
        folder: The folder of a model.

    Raises:
        ValueError: If it holds an adapter, which names a base model of its own, or its index names
            weights elsewhere.
    """
    if (folder / PEFT_CONFIG).exists():
        raise ValueError(f"{folder} holds an adapter, {PEFT_CONFIG}: name its base model")
    # The others, such as pytorch_model.bin.index.json, are not read.
    for path in sorted(folder.glob("*.safetensors.index.json")):
        shards = json_object(path).get("weight_map")
        for name in shards.values() if isinstance(shards, dict) else ():
            if Path(str(name)).name != name or not name.endswith(".safetensors"):
                raise ValueError(
                    f"{path} names what is no safetensors file beside it: {short(name)}"
                )


def check_repository(name: str, revision: str | None) -> None:
    """Refuse a base model on the hub that would be loaded as an adapter of another one.

    Args:
        name: On the hub.
        revision: On the hub.

    Raises:
        ValueError: If it holds an adapter, which names a base model of its own.
    """
    if find_adapter_config_file(name, revision=revision) is not None:
        raise ValueError(f"{name} holds an adapter, {PEFT_CONFIG}: name its base model")


def check_code(config: Any) -> None:
    """Refuse a model whose settings make transformers fetch code or read pickled weights.

    Args:
        config: The model's, of transformers.

    Raises:
        ValueError: If it names a kernel of the hub, or weights that are no safetensors file beside
            it.
    """
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in parts:
        for name in ("_attn_implementation", "_experts_implementation"):
            if "/" in str(getattr(part, name, None)):
                raise ValueError(f"its settings name code to fetch: {getattr(part, name)!r}")
    weights = getattr(config, "transformers_weights", None)
    if weights is not None and (
        Path(str(weights)).name != weights
        or not weights.endswith((".safetensors", ".safetensors.index.json"))
    ):
        raise ValueError(f"its settings name what is no safetensors file beside them: {weights!r}")


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that is not of the kind that `train` writes.

    Args:
        folder: The adapter's.

    Raises:
        ValueError: If a file is missing or damaged, or the settings ask for another kind of
            adapter, or for anything that could read another file or import a module.
    """
    for name in (PEFT_CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no adapter: there is no {name}")
    path = folder / PEFT_CONFIG
    content = json_object(path)
    configs = {"LORA": LoraConfig(), "ADALORA": AdaLoraConfig(total_step=1)}
    kind = content.get("peft_type")
    if kind not in ("LORA", "ADALORA"):
        raise ValueError(f"{path}: peft_type must be LORA or ADALORA, got {short(kind)}")
    defaults = configs[kind].to_dict()
    for key, value in content.items():
        if key not in _SET and value and value != defaults.get(key):
            raise ValueError(f"{path}: {short(key)} is not supported, got {short(value)}")


def check_checkpoint(folder: Path) -> None:
    """Refuse a checkpoint of the Trainer that is damaged, or has what `train` did not save.

    The Trainer writes files in place: one that was killed leaves them cut short.

    Args:
        folder: The checkpoint's.

    Raises:
        ValueError: If files are missing or damaged, or there are other weights.
    """
    check_adapter(folder)
    json_object(folder / "trainer_state.json")
    for path in sorted(folder.glob("*.pt*")):
        try:
            with ZipFile(path) as archive:  # as torch writes them, with a checksum of each part
                bad = archive.testzip()
        except Exception as error:  # whatever is odd in it
            raise ValueError(f"--resume: {path} is damaged or not of torch: {error}") from error
        if bad is not None:
            raise ValueError(f"--resume: {path} is damaged: {bad}")
    for path in (*(folder / name for name in _NEVER_SAVED), *folder.glob("*/adapter_*")):
        if path.exists():
            raise ValueError(f"--resume: {path} is not of a checkpoint that train saved")


def check_output(folder: Path) -> None:
    """Refuse to write where a link would lead the libraries' plain writes out of the folder.

    Args:
        folder: For what is written; need not exist.

    Raises:
        ValueError: If it holds a symbolic link.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"--output: {path} is a symbolic link; choose another folder")
