"""What decides a run's result: its settings, what they name, and the code.

A stopped run goes on only as what it was, and a comparison reuses a run only for the same.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_dropout.commands.card import plain, write_json
from lora_dropout.commands.options import flag_of
from lora_dropout.commands.settings import TrainSettings
from lora_dropout.runs.store import package_digest

if TYPE_CHECKING:
    from datasets import Dataset

STARTED = "started.json"
# All other settings decide the result. Of data and model the content counts, not the place.
MAY_DIFFER = frozenset(
    {
        *("output", "resume", "dry_run", "report_to", "save_every", "eval_batch_size"),
        *("data", "model", "revision", "trust_remote_code"),
    }
)
_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers")
# Of a model's folder: weights in formats that are not read, and texts for people.
_NOT_READ = (".bin", ".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".pt", ".pth", ".md")


def model_identity(name: str, commit: str | None) -> str:
    """What a base model is.

    Args:
        name: On the hub, or a folder.
        commit: The hub's, where it is known.

    Returns:
        A digest of the files of a folder; else the name with the commit.
    """
    folder = Path(name)
    if not folder.is_dir():
        return f"{name}@{commit or 'unknown'}"
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in _NOT_READ and not path.name.startswith("."):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "blake2b").digest()
            digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()


def rows_identity(splits: "Mapping[str, Dataset]") -> str:
    """What the data of a run are.

    Args:
        splits: Name -> rows.

    Returns:
        A digest of all rows in their order.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, rows in splits.items():
        digest.update(json.dumps([name, sorted(rows.column_names)]).encode())
        for column in sorted(rows.column_names):
            digest.update(json.dumps(list(rows[column])).encode())
    return digest.hexdigest()


def check_started(settings: TrainSettings) -> None:
    """Refuse to go on with a run by other settings than it began with.

    Args:
        settings: Of the resumed run.

    Raises:
        ValueError: If settings differ, by their names, or it is not known how the run began.
    """
    began = _read(settings.output)["settings"]
    now = plain(asdict(settings))
    odd = [
        f"{flag_of(name)} {_shown(began.get(name))}, got {_shown(now[name])}"
        for name in _deciding()
        if began.get(name) != now[name]
    ]
    if odd:
        raise ValueError(f"--resume: the run in {settings.output} began with {'; '.join(odd)}")


def begin(settings: TrainSettings, inputs: Mapping[str, Any], *, first_process: bool) -> None:
    """Write down how a run begins, or refuse to go on with it by other means.

    Args:
        settings: Of the run, which `check_started` has passed if it is resumed.
        inputs: Name -> identity of what the settings name.
        first_process: Whether this process writes.

    Raises:
        ValueError: If data, model, number of processes or code differ from those of the beginning.
    """
    means = {**inputs, "lora_dropout": package_digest()}
    means |= {name: version(name) for name in _LIBRARIES}
    if not settings.resume:
        if first_process:
            content = {"settings": asdict(settings), "means": means}
            write_json(settings.output / STARTED, content)
        return
    began = _read(settings.output)["means"]
    odd = [
        f"another {_MEANS.get(name, name)} ({_shown(began.get(name))}, now {_shown(value)})"
        for name, value in means.items()
        if began.get(name) != value
    ]
    if odd:
        raise ValueError(f"--resume: the run in {settings.output} began with {', '.join(odd)}")


_MEANS = {"model": "--model", "data": "--data", "processes": "number of processes"}


def _deciding() -> Iterator[str]:
    return (field.name for field in fields(TrainSettings) if field.name not in MAY_DIFFER)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / STARTED
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(content[name], dict) for name in ("settings", "means")):
            raise TypeError("settings and means must be objects")
        return content
    except FileNotFoundError as error:
        raise ValueError(
            f"--resume: there is no {STARTED} in {folder}, which says how the run began: start "
            "anew in another folder"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"--resume: {path} is damaged: {str(error)[:200]}") from error


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
