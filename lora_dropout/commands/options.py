"""Settings as dataclasses that are flags on the command line and keys of a YAML file at once."""

import argparse
import dataclasses
import math
import types
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lora_dropout.door import short

SettingsT = TypeVar("SettingsT")


def option(default: Any = dataclasses.MISSING, *, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A field of a settings class.

    Args:
        default: Its default; without one it is required.
        help: What `--help` says.
        choices: The values allowed.

    Returns:
        The field.
    """
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def add_options(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add a flag for each field, and `--config`.

    Args:
        parser: Gets the flags; one that is not given leaves no trace in the namespace.
        cls: A dataclass with fields made by `option`.
    """
    parser.add_argument(
        "--config", type=Path, metavar="YAML", help="file with any of these settings; flags win"
    )
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, many = _kind(hints[field.name])
        text = field.metadata["help"].replace("%", "%%")
        if field.default is dataclasses.MISSING:
            text += " (required)"
        elif field.default not in (None, False, ()):
            shown = field.default
            text += f" (default {' '.join(map(str, shown)) if many else shown})"
        common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text}
        flag = flag_of(field.name)
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        elif field.metadata["choices"]:
            parser.add_argument(flag, choices=field.metadata["choices"], **common)
        else:
            shown = "PATH" if kind is Path else {int: "N", float: "X"}.get(kind, "TEXT")
            nargs = "+" if many else None
            parser.add_argument(flag, type=_converter(kind), nargs=nargs, metavar=shown, **common)


def flag_of(name: str) -> str:
    """The flag of a field.

    Args:
        name: Of the field.

    Returns:
        Such as `--learning-rate`.
    """
    return "--" + name.replace("_", "-")


def read_settings(cls: type[SettingsT], arguments: argparse.Namespace) -> SettingsT:
    """Settings from defaults, the file of `--config`, and flags, in this order.

    Args:
        cls: The class given to `add_options`.
        arguments: Of the parser.

    Returns:
        The settings.

    Raises:
        ValueError: If the file holds an unknown key or a value of another kind, or a required
            setting is missing.
    """
    path = getattr(arguments, "config", None)
    values = _read_file(cls, path) if path is not None else {}
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in names:
        if hasattr(arguments, name):
            given = getattr(arguments, name)
            values[name] = tuple(given) if isinstance(given, list) else given
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.name not in values:
            raise ValueError(f"{flag_of(field.name)} is required, here or in a --config file")
    return cls(**values)


def _read_file(cls: type, path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"--config: there is no file {path}")

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        # Of two equal keys YAML takes the last; here only nodes are made, no values.
        node = yaml.compose(text, yaml.SafeLoader)
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise ValueError(f"the key {short(twice[0])} is there twice")
    except Exception as error:  # YAML: KeyError for "!!bool x", RecursionError for "[[[...", ...
        raise ValueError(f"--config: {path} is no YAML: {str(error)[:500]}") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ValueError(f"--config: {path} must hold key: value lines")
    return checked_values(cls, content, source=f"--config: {path}")


def checked_values(cls: type, content: Mapping[Any, Any], *, source: str) -> dict[str, Any]:
    """Settings as a YAML or JSON file has them, as those that a settings class takes.

    Args:
        cls: A dataclass with fields made by `option`.
        content: Name of a setting, with hyphens or underscores -> value.
        source: Of the content; messages begin with it.

    Returns:
        Name of a field -> value of its type.

    Raises:
        ValueError: If a key is unknown or there twice, or a value of another kind.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints, values = get_type_hints(cls), {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name in values:
            raise ValueError(f"{source}: {flag_of(name)} is there twice")
        if name not in fields:
            close = get_close_matches(name, fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{source}: unknown key {short(str(key))}{hint}")
        try:
            values[name] = _from_yaml(name, value, hints[name])
            choices = fields[name].metadata["choices"]
            if choices and values[name] not in choices:
                allowed = ", ".join(choices)
                raise ValueError(f"{flag_of(name)} must be one of {allowed}, got {short(value)}")
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    return values


def _from_yaml(name: str, value: Any, hint: Any) -> Any:
    kind, many = _kind(hint)
    if value is None and type(None) in get_args(hint):
        return None
    if many:
        items = value if isinstance(value, list) else [value]
        return tuple(_one(name, item, kind) for item in items)
    return _one(name, value, kind)


def _one(name: str, value: Any, kind: type) -> Any:
    wanted = {bool: "true or false", int: "an integer", float: "a number"}.get(kind, "a text")
    if kind is bool or isinstance(value, bool):
        fits = kind is bool and isinstance(value, bool)
    elif kind in (str, Path):
        fits = isinstance(value, (str, int, float))
    else:  # YAML reads 1e-3 as a text
        fits = isinstance(value, (int, float, str))
    try:
        if not fits:
            raise ValueError(value)
        return value if kind is bool else _converter(kind)(str(value))
    except (ValueError, argparse.ArgumentTypeError):
        raise ValueError(f"{flag_of(name)} must be {wanted}, got {short(value)}") from None


def _converter(kind: type) -> Any:
    def convert(text: str) -> Any:
        value = kind(text)
        if kind is float and not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"must be finite, got {text!r}")
        return value

    convert.__name__ = kind.__name__  # argparse names it in its message
    return convert


def _kind(hint: Any) -> tuple[type, bool]:
    # (the type of one value, whether there may be several)
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False
