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

_PROBE = 2**20  # bytes that a folder must have room for
_TEMPORARY = re.compile(r"\.(.+)\.\w{8}\.tmp")  # as `mkstemp` makes them for a target


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Write a file so that it appears whole or not at all.

    What killed writers of the same target left behind is removed. A living writer, also in another
    process, holds a lock on its temporary file, by which the two are told apart.

    Args:
        target: The file to make or replace; its folder is made if needed. A link is replaced, not
            followed. What is no file, such as a pipe, a device or /dev/stdout, stays what it is:
            the content is written into it.

    Yields:
        A temporary file in the same folder, to be written in place: it replaces `target` if the
        block ends well and is removed if it does not.

    Raises:
        OSError: If it cannot be written, as on a full disk, or is a folder; it names a file.
    """
    target = Path(target)
    if _is_stream(target):
        with _written_through(target) as temporary:
            yield temporary
        return
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


def check_target(name: str, target: str | Path) -> None:
    """Find out, before work begins, whether a file can be written.

    Args:
        name: Name of the argument, for the message.
        target: The file.

    Raises:
        ValueError: If its folder is missing or full, or it is a folder itself, or not ours.
    """
    target = Path(target)
    if target.is_dir():
        raise ValueError(f"{name}: {target} is a folder")
    if not target.parent.is_dir():
        raise ValueError(f"{name}: there is no folder {target.parent}")
    try:
        if _is_stream(target):
            if not os.access(target, os.W_OK):
                raise ValueError(f"{name}: {target} is not ours to write")
            return
        with tempfile.TemporaryFile(dir=target.parent) as probe:
            probe.write(b"0" * _PROBE)
            probe.flush()
    except OSError as error:
        raise ValueError(f"{name}: cannot write {target}: {error.strerror}") from error


def _is_stream(target: Path) -> bool:
    # By the link /dev/stdout even a file is written as a stream: the shell holds it open.
    if target.parts[:2] in (("/", "dev"), ("/", "proc")):
        return target.exists() and not str(target).startswith("/dev/shm/")
    return target.exists() and not target.is_file() and not target.is_dir()


@contextmanager
def _written_through(target: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "content"
        yield temporary
        content = temporary.read_bytes()
    try:
        with open(target, "ab" if target.is_file() else "wb") as stream:
            stream.write(content)
    except OSError as error:
        error.filename = str(target)
        raise


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
