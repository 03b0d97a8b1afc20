"""Crash-safe files: a reader sees the old content or the new, never half of it."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing of others removed
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.(.+)\.\w{8}\.tmp")  # as `mkstemp` makes them for a target


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Write a file so that it appears whole or not at all.

    What killed writers of the same target left behind is removed. A living writer, also in another
    process, holds a lock on its temporary file, by which the two are told apart.

    Args:
        target: The file to make or replace; its folder is made if needed.

    Yields:
        A temporary file in the same folder, to be written in place: it replaces `target` if the
        block ends well and is removed if it does not.

    Raises:
        OSError: If it cannot be written, as on a full disk; it names a file.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_orphans(target.parent, re.escape(target.name))
    handle, temporary = _locked_temporary(target)
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        if error.filename is None:  # a full disk does not say of which file it speaks
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def json_digest(content: Any) -> str:
    """A digest by which damage to a JSON file shows.

    Args:
        content: What the file holds, representable in JSON.

    Returns:
        Hexadecimal BLAKE2b digest (16 bytes) of the content as JSON with sorted keys; what JSON
        gives back has the same.
    """
    # There and back first: keys that are numbers sort otherwise than their text.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def remove_orphans(folder: str | Path, names: str = ".+") -> None:
    """Remove temporary files whose writers are dead.

    Where the file system knows no locks, nothing is removed.

    Args:
        folder: Where to look.
        names: Regular expression for the names of their targets.
    """
    if not Path(folder).is_dir():
        return
    for path in Path(folder).iterdir():
        found = _TEMPORARY.fullmatch(path.name)
        if found and re.fullmatch(names, found[1]):
            _remove_if_orphan(path)


def _locked_temporary(target: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        if not _lock(handle, wait=True) or _is_at(handle, name):
            return handle, Path(name)
        os.close(handle)  # another process saw it before it was locked, and took it for an orphan


def _remove_if_orphan(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # gone by now, or not ours to touch
        return
    try:
        if _lock(handle, wait=False) and _is_at(handle, path):
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another's, or the file system has no locks
        return False
    return True


def _is_at(handle: int, path: str | Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
