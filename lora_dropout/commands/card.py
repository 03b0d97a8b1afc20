"""What a run leaves beside its weights: run.json for programs, README.md for people."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_dropout.commands.settings import RunSettings
from lora_dropout.runs.torch_provenance import provenance
from lora_dropout.safe_files import atomic_path

_LIBRARIES = ("transformers", "peft", "accelerate", "datasets", "torchmetrics")


def describe_process() -> dict[str, Any]:
    """Where a result comes from.

    Returns:
        `provenance()` with the libraries of the extra `hf` and the GPU.
    """
    import torch

    found = provenance()
    found["versions"] |= {name: version(name) for name in _LIBRARIES}
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def plain(value: Any) -> Any:
    """A value that JSON can hold.

    Args:
        value: Of settings or results.

    Returns:
        Paths as texts, NaN and infinities as None.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all.

    Args:
        path: The file.
        content: Made `plain` first.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def write_run(
    settings: RunSettings,
    outcome: Mapping[str, Any],
    *,
    results: Mapping[str, Any],
    not_measured: Sequence[str],
    resumed_at: int | None,
) -> dict[str, Any]:
    """Write `run.json` and `README.md` of a trained adapter.

    Args:
        settings: Of the run.
        outcome: What came out of the training.
        results: Split -> metrics.
        not_measured: Splits that are still to be measured.
        resumed_at: The step at which a stopped run was gone on with.

    Returns:
        The content of `run.json`.
    """
    origin = describe_process() | ({} if resumed_at is None else {"resumed_at_step": resumed_at})
    missing = {"not_measured": not_measured} if not_measured else {}
    record = plain(
        {"settings": asdict(settings), "results": results, **missing, **outcome}
        | {"provenance": origin}
    )
    # The README first: run.json is what marks a run as finished.
    with atomic_path(settings.output / "README.md") as path:
        path.write_text(card(record), encoding="utf-8")
    write_json(settings.output / "run.json", record)
    return record


def card(record: Mapping[str, Any]) -> str:
    """A model card.

    Args:
        record: The content of `run.json`.

    Returns:
        Markdown with the hub's metadata on top.
    """
    from huggingface_hub import ModelCardData

    settings, task = record["settings"], record["settings"]["task"]
    # A folder is no name on the hub.
    base = settings["model"] if not Path(settings["model"]).exists() else None
    tags = ["lora", "lora-dropout", f"lora-dropout-task:{task}"]
    head = ModelCardData(base_model=base, library_name="peft", tags=tags).to_yaml()
    rescale = "on" if settings["rescale"] else "off (Eq. 3), folded into the saved factors"
    rows = [
        ("base model", Path(settings["model"]).name if base is None else base),
        ("task", f"{task}, {record['n_train']} training examples"),
        ("adapter", f"{settings['adapter']}, rank {settings['rank']}, alpha {settings['alpha']:g}"),
        ("masks", f"{settings['mask']}, p = {settings['dropout']:g}, rescaling {rescale}"),
        ("instances", f"N = {settings['instances']} in training ({settings['mode']})"),
        ("trained", f"{record['trainable']:,} of {record['total']:,} parameters"),
        ("training", _training(record)),
        ("trained whole", ", ".join(record["trained_whole"]) or "nothing"),
        ("learning rate, seed", f"{settings['learning_rate']:g}, {settings['seed']}"),
    ]
    lines = ["---", head, "---", "", f"# LoRA Dropout adapter for {task}", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    members = f" of {settings['eval_instances']}" if record["inference"] == "ensemble" else ""
    lines += [f"Measured by `{record['inference']}`{members}, one seed:", ""]
    lines += ["| split | metric | value |", "|---|---|---|"]
    for split, metrics in record["results"].items():
        for name, value in metrics.items():
            shown = "undefined" if value is None else f"{value:.4g}"
            lines.append(f"| {split} | {name} | {shown} |")
    for split in record.get("not_measured", ()):
        lines.append(f"| {split} | | not measured yet: `lora-dropout evaluate` does it |")
    notes = [
        f"{share:.1%} of {split} was truncated to {record['max_length']} tokens."
        for split, share in record["share_truncated"].items()
        if share > 0
    ]
    if record["overlap_left_out"]:
        notes.append(
            f"{record['overlap_left_out']} training examples that a dev set has too were left out."
        )
    if settings["precision"] == "bf16":
        notes.append("Measured under bfloat16 autocast; other passes round otherwise.")
    lines += ["", *notes, ""]
    shown = ", ".join(f"{key}={value!r}" for key, value in record["plain"]["arguments"].items())
    name = record["plain"]["class"]
    lines += [
        "Plain PEFT computes the mean network from this folder, without masks:",
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {name}",
        "",
        f"base = {name}.from_pretrained({base or Path(settings['model']).name!r}, {shown})",
        f"model = PeftModel.from_pretrained(base, {str(settings['output'])!r}).eval()",
        "```",
        "",
        *(
            [f"Outputs are {', '.join(record['classes'])}, in this order."]
            if record["classes"]
            else []
        ),
        "The ensemble: "
        f"`lora-dropout evaluate {settings['output']}`, or `lora_dropout.hf.attach` after loading.",
        "",
        "Method: LoRA Dropout (arXiv 2404.09610). Everything else is in `run.json`.",
        "",
    ]
    return "\n".join(lines)


def _training(record: Mapping[str, Any]) -> str:
    at = record["provenance"].get("resumed_at_step")
    since = "" if at is None else f" since step {at}, where it was gone on with"
    return f"{record['steps']} steps, {record['seconds']:.0f} s on {record['device']}{since}"
