"""A small disk: `python -m tests.torture.faults.disks full|read-only FOLDER LEVELS`.

The folder is the root of a file system that this process may fill and mount anew.
"""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from lora_bounds import __main__ as cli
from tests.torture.faults.damage import KINDS, Kind, contents, same
from tests.torture.report import Row

PAGE = 4096


def _verify(folder: Path, version: int) -> None:
    claim = ("Thm 4.5", "Lemma A.1")[version]
    folder.mkdir(parents=True, exist_ok=True)
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = cli.main(["verify", "--only", claim, "--json", str(folder / "verdicts.json")])
    if status == 2:
        raise OSError(errno.ENOSPC, errors.getvalue())


# The base model is not written over: another one has another name.
WRITERS = {name: kind for name, kind in KINDS.items() if name != "base model"} | {
    "verdicts": Kind(_verify, lambda folder: (folder / "verdicts.json").read_bytes())
}


def attempt(kind: Kind, folder: Path, version: int) -> str:
    """Write where it may not work.

    Returns:
        `written`, `refused` (an error names a file; all are as before), or what is wrong.
    """
    before, reading = contents(folder), kind.read(folder)
    try:
        kind.write(folder, version)
    except OSError as error:
        names = [Path(name).name for name in before]
        if not any(name in str(error) for name in names):
            return f"error without the file: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        return "another result in silence" if same(kind.read(folder), reading) else "written"
    if contents(folder) != before or not same(kind.read(folder), reading):
        return "earlier results lost"
    return "refused"


def full(disk: Path, levels: int) -> Row:
    """Leave ever more of the disk and write, until it succeeds."""
    ends: list[str] = []
    for name, kind in WRITERS.items():
        for level in range(levels):
            folder, filler = disk / "work", disk / "filler"
            kind.write(folder, 0)
            there = os.statvfs(disk)
            free = there.f_bavail * there.f_frsize
            filler.write_bytes(bytes(max(0, free - level % 12 * PAGE)))
            ends.append(attempt(kind, folder, 1))
            if level == 0 and ends[-1] == "written":
                ends.append(f"{name}: not full")
            filler.unlink()
            kind.write(folder, 1)  # there is room again: it goes on
            for path in folder.iterdir():
                path.unlink()
    return _row("full disk", ends, {"refused", "written"})


def read_only(disk: Path, levels: int) -> Row:
    """Write into a folder of a read-only file system."""
    folders: dict[str, Callable[[], str]] = {}
    for name, kind in WRITERS.items():
        folder = disk / name
        kind.write(folder, 0)
        folders[name] = lambda kind=kind, folder=folder: attempt(kind, folder, 1)  # type: ignore[misc]
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    return _row("read-only folder", [run() for run in folders.values()], {"refused"})


def _row(what: str, ends: list[str], right: set[str]) -> Row:
    wrong = sorted({end for end in ends if end not in right})
    note = f"{', '.join(WRITERS)}; {ends.count('refused')} refused by name, nothing lost"
    if "written" in right:
        note += f"; {ends.count('written')} found room"
    if wrong:
        note += f"; WRONG: {'; '.join(wrong[:3])}"
    return Row(what, len(ends), sum(end in right for end in ends), note=note)


if __name__ == "__main__":
    how, where, number = sys.argv[1:]
    found = {"full": full, "read-only": read_only}[how](Path(where), int(number))
    print(json.dumps(asdict(found)))
