"""Damaged files, full disks, read-only folders: an error that names the file, and nothing lost."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.torture import ROOT
from tests.torture.faults.damage import KINDS, contents, same
from tests.torture.report import Row


def damaged(kind: str, name: str, content: bytes, folder: Path, right: object) -> str:
    """Put a damaged file in a folder and read it.

    Args:
        kind: One of `KINDS`.
        name: The file.
        content: Its damaged content.
        folder: The folder, otherwise whole.
        right: What the whole files give.

    Returns:
        How it ended: `refused` (an error names the file), `same` (it did not matter), or what is
        wrong.
    """
    path = folder / name
    path.write_bytes(content)
    before = contents(folder)
    try:
        found = KINDS[kind].read(folder)
    except ValueError as error:
        outcome = "refused" if name in str(error) else f"error without the file: {error}"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    else:
        outcome = "same" if same(found, right) else "another result in silence"
    return outcome if contents(folder) == before else "files changed"


def attack(kind: str, how: str, rng: random.Random, limit: int | None) -> Row:
    """Damage the files of a kind.

    Args:
        kind: One of `KINDS`.
        how: `flipped` (one bit) or `truncated`.
        rng: Chooses bits and, if limited, places.
        limit: Places at most, in each file; None is every byte.

    Returns:
        A row.
    """
    ends: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        KINDS[kind].write(folder, 0)
        right = KINDS[kind].read(folder)
        for name, whole in contents(folder).items():
            places = range(len(whole))
            chosen = places if limit is None else sorted({0, *rng.sample(places, limit)})
            for place in chosen:
                if how == "flipped":
                    flipped = whole[place] ^ (1 << rng.randrange(8))
                    content = whole[:place] + bytes([flipped]) + whole[place + 1 :]
                else:
                    content = whole[:place]
                end = damaged(kind, name, content, folder, right)
                ends[end] = ends.get(end, 0) + 1
            (folder / name).write_bytes(whole)
    tried, held = sum(ends.values()), ends.pop("refused", 0)
    harmless = ends.pop("same", 0)
    note = f"{harmless} of no effect (a space, or a file not read)" if harmless else ""
    if ends:
        note += f"; WRONG: {'; '.join(sorted(ends)[:3])}"
    return Row(f"{kind}: {how} at a byte", tried, held + harmless, note=note)


def disk(how: str, levels: int) -> Row:
    """Write on a disk that is full or read-only, in a mount namespace of its own.

    Args:
        how: `full` or `read-only`.
        levels: How many sizes of what is left on the disk.

    Returns:
        A row; nothing tried where the system lets us mount nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        mount = f'mount -t tmpfs -o size=2m tmpfs "{folder}" && exec "$@"'
        program = [sys.executable, "-m", "tests.torture.faults.disks", how, folder, str(levels)]
        root = [] if os.geteuid() == 0 else ["-r"]
        done = subprocess.run(
            ["unshare", *root, "-m", "sh", "-c", mount, "sh", *program],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        return Row(f"{how} disk", 0, 0, note=done.stderr.strip()[-200:])
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def can_mount() -> bool:
    """Whether a file system can be mounted here, without others seeing it."""
    if shutil.which("unshare") is None:
        return False
    root = [] if os.geteuid() == 0 else ["-r"]
    test = ["unshare", *root, "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(test, capture_output=True).returncode == 0


def run(long: bool) -> Iterable[Row]:
    """Damage files of each kind at every byte, or at a few; fill a disk; forbid writing.

    Args:
        long: Whether at length.

    Yields:
        A row a kind and way.
    """
    rng = random.Random(0)
    for kind in KINDS:
        for how in ("flipped", "truncated"):
            yield attack(kind, how, rng, None if long else 12)
    if long or can_mount():
        yield disk("full", 40 if long else 4)
        yield disk("read-only", 1)
