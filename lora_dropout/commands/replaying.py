"""`--replay RESULT` of `train` and `compare`: the settings of a record, for its repetition."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lora_dropout.commands.options import checked_values, flag_of
from lora_dropout.commands.settings import RunSettings
from lora_dropout.runs.differences import read_result

SettingsT = TypeVar("SettingsT", bound=RunSettings)


def add_replay(parser: argparse.ArgumentParser, name: str, allowed: Sequence[str]) -> None:
    """Add `--replay`.

    Args:
        parser: Of the command.
        name: Of the file that the command writes.
        allowed: Names of the settings that may be given beside it.
    """
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="RESULT",
        help=f"repeat the run that wrote this {name} (or folder) and compare; exit status 1 if a "
        f"value differs. Only {', '.join(map(flag_of, allowed))} may be given beside it",
    )


def read_recorded(given: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """Read what is to be repeated.

    Args:
        given: Value of `--replay`.
        name: Of the file, where a folder is given.

    Returns:
        (the file, its content).
    """
    path = given / name if given.is_dir() else given
    return path, read_result(path, "settings")


def recorded_settings(
    cls: type[SettingsT],
    arguments: argparse.Namespace,
    path: Path,
    recorded: Mapping[str, Any],
    *,
    allowed: Sequence[str],
    **changed: Any,
) -> SettingsT:
    """The settings of a record.

    Args:
        cls: Class of the settings.
        arguments: Of the parser.
        path: Of the record.
        recorded: Its content.
        allowed: Names of the settings that the command line may change.
        **changed: Settings that the repetition changes.

    Returns:
        The settings.

    Raises:
        ValueError: If others are given beside `--replay`, or the record's are not such settings, or
            its model was a folder that is not there now: the hub is not asked for that name.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    odd = [flag_of(name) for name in given if name not in allowed]
    if arguments.config is not None:
        odd.append("--config")
    if odd:
        raise ValueError(
            f"--replay: the settings are the record's, besides {', '.join(map(flag_of, allowed))}; "
            f"got {', '.join(odd)}"
        )
    source = f"--replay: {path}"
    values = checked_values(cls, recorded["settings"], source=source)
    # A file must not make this machine run code that its user did not ask for.
    if values.pop("trust_remote_code", False) and not given.get("trust_remote_code"):
        raise ValueError(
            f"{source} ran code that the model's repository brings: add --trust-remote-code to run "
            "it again"
        )
    model = values.get("model", "")
    if recorded.get("local_model") and "model" not in given and not Path(model).is_dir():
        raise ValueError(f"{source}: its model was a folder, {model}, not there now: give --model")
    try:
        return cls(**{**values, **changed, **given})
    except TypeError as error:
        raise ValueError(f"{source} lacks settings: {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{source} used data that are not there, give --data: {error}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
