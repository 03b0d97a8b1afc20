"""Paths of the command line, looked at before any work begins."""

import os
from pathlib import Path

_CONFIG, _ADAPTER = "config.json", "adapter_config.json"
# What `train` writes into its folder.
OF_RUN = (
    *("run.json", "started.json", "README.md", _ADAPTER, "adapter_model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"),
)


def check_model(flag: str, name: str) -> None:
    """Refuse a base model that is a path, but no folder of a model; the hub's names pass.

    Args:
        flag: For the message.
        name: The model.

    Raises:
        FileNotFoundError: If it is a path where nothing is, or a folder without a model.
        NotADirectoryError: If it is a file.
    """
    path = Path(name)
    if name and path.is_dir():
        if not any((path / file).is_file() for file in (_CONFIG, _ADAPTER)):
            raise FileNotFoundError(
                f"{flag}: {name!r} could not be loaded: there is no {_CONFIG} in this folder"
            )
    elif name and path.exists():
        raise NotADirectoryError(
            f"{flag}: {name!r} could not be loaded: it is a file, name the model's folder"
        )
    elif not name or name[0] in "/.~" or name.endswith("/") or name.count("/") > 1 or "\\" in name:
        raise FileNotFoundError(f"{flag}: {name!r} could not be loaded: there is no such folder")


def check_there(flag: str, path: Path) -> None:
    """Refuse data that are not there.

    Args:
        flag: For the message.
        path: A file or a folder.

    Raises:
        FileNotFoundError: If nothing is there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{flag}: there is no {path}")


def check_file(flag: str, path: Path) -> None:
    """Refuse what is no file to read.

    Args:
        flag: For the message.
        path: The file.

    Raises:
        FileNotFoundError: If it is not there.
        IsADirectoryError: If it is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{flag}: {path} is a folder: name a file")
    if not path.is_file():
        raise FileNotFoundError(f"{flag}: there is no file {path}")


def check_new_folder(flag: str, path: Path, *names: str) -> None:
    """Refuse a folder that could not be written to.

    Args:
        flag: For the message.
        path: Need not be there.
        *names: Of files that will be written into it.

    Raises:
        NotADirectoryError: If it is a file, or would lie in one.
        IsADirectoryError: If one of the names is taken by a folder.
        PermissionError: If it, or what it would be made in, is not writable.
    """
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        inside = "" if place == path else f" lies in {place}, which"
        raise NotADirectoryError(f"{flag}: {path}{inside} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{flag}: {place} is not writable")
    for name in names:
        if (path / name).is_dir():
            raise IsADirectoryError(f"{flag}: {path / name} is a folder, where a file is written")


def check_new_file(flag: str, path: Path) -> None:
    """Refuse a file that could not be written.

    Args:
        flag: For the message.
        path: Need not be there; is replaced if it is.

    Raises:
        IsADirectoryError: If it is a folder.
        OSError: If it would lie in a file, or its folder is not writable, or it is a device or a
            pipe.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{flag}: {path} is a folder: name a file")
    if path.exists() and not path.is_file():
        raise OSError(f"{flag}: {path} is no regular file, and would be replaced by one")
    check_new_folder(flag, path.parent)


def check_not_of_run(flag: str, path: Path, folder: Path) -> None:
    """Refuse to write over what `train` wrote.

    Args:
        flag: For the message.
        path: The file to write.
        folder: Of the run.

    Raises:
        ValueError: If the run holds such a file, other than an earlier `evaluation.json`.
    """
    of_run = path.parent.resolve() == folder.resolve() and path.name in OF_RUN
    if of_run and path.exists():
        raise ValueError(f"{flag}: {path} belongs to the run: name another file")
