"""Damaged files, full disks, read-only folders: an error that names the file, and nothing lost.

Also the program that a disk of its own runs: `python -m tests.hardening.faults.test_damage`.
"""

import errno
import io
import os
import random
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from lora_bounds import __main__ as cli
from tests.hardening import ROOT
from tests.hardening.faults.damage import KINDS, Kind, contents, same
from tests.hardening.lengths import lengths

PAGE = 4096


def damaged(kind: Kind, name: str, content: bytes, folder: Path, right: object) -> str:
    """Put a damaged file into a folder, otherwise whole, and read it.

    Returns:
        What is wrong, or nothing: an error names the file, or it did not matter.
    """
    (folder / name).write_bytes(content)
    before = contents(folder)
    try:
        found = kind.read(folder)
    except ValueError as error:
        wrong = "" if name in str(error) else f"error without the file: {error}"
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    else:
        wrong = "" if same(found, right) else "another result in silence"
    return wrong if contents(folder) == before else "files changed"


def attack(kind: Kind, how: str, folder: Path, limit: int | None) -> set[str]:
    """Flip a bit of, or cut off, each file at so many bytes (None is all); what went wrong."""
    rng, wrong = random.Random(0), set()
    kind.write(folder, 0)
    right = kind.read(folder)
    for name, whole in contents(folder).items():
        places = range(len(whole))
        for place in places if limit is None else {0, *rng.sample(places, limit)}:
            flipped = bytes([whole[place] ^ (1 << rng.randrange(8))])
            rest = flipped + whole[place + 1 :] if how == "flipped" else b""
            wrong.add(damaged(kind, name, whole[:place] + rest, folder, right))
        (folder / name).write_bytes(whole)
    return wrong - {""}


@pytest.mark.parametrize("limit", lengths(6, None))
@pytest.mark.parametrize("how", ["flipped", "truncated"])
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_refused_by_the_name_of_the_file(
    name: str, how: str, limit: int | None, tmp_path: Path
) -> None:
    assert attack(KINDS[name], how, tmp_path, limit) == set()


def test_damage_used_in_silence_is_seen(tmp_path: Path) -> None:
    plain = Kind(
        lambda folder, version: (folder / "plain.txt").write_bytes(bytes(100)),
        lambda folder: (folder / "plain.txt").read_bytes(),
    )
    assert attack(plain, "flipped", tmp_path, 12) == {"another result in silence"}


def _verify(folder: Path, version: int) -> None:
    claim = ("Thm 4.5", "Lemma A.1")[version]
    folder.mkdir(parents=True, exist_ok=True)
    errors = io.StringIO()
    with redirect_stderr(errors), redirect_stdout(io.StringIO()):
        status = cli.main(["verify", "--only", claim, "--json", str(folder / "verdicts.json")])
    if status == 2:
        raise OSError(errno.ENOSPC, errors.getvalue())


# The base model is not written over: another one has another name.
WRITERS = {name: kind for name, kind in KINDS.items() if name != "base model"} | {
    "verdicts": Kind(_verify, lambda folder: (folder / "verdicts.json").read_bytes())
}


def attempt(kind: Kind, folder: Path, version: int) -> str:
    """Write where it may not work: `written`, or `refused` by name with all as before."""
    before, reading = contents(folder), kind.read(folder)
    try:
        kind.write(folder, version)
    except OSError as error:
        names = [Path(name).name for name in before]
        assert any(name in str(error) for name in names), f"error without the file: {error}"
    else:
        assert not same(kind.read(folder), reading), "another result in silence"
        return "written"
    assert contents(folder) == before and same(kind.read(folder), reading), "earlier results lost"
    return "refused"


def fill(disk: Path, levels: int) -> None:
    """Leave ever more of the disk and write, until it succeeds."""
    for name, kind in WRITERS.items():
        for level in range(levels):
            folder, filler = disk / "work", disk / "filler"
            kind.write(folder, 0)
            there = os.statvfs(disk)
            free = there.f_bavail * there.f_frsize
            filler.write_bytes(bytes(max(0, free - level % 12 * PAGE)))
            end = attempt(kind, folder, 1)
            assert level or end == "refused", f"{name}: not full"
            filler.unlink()
            kind.write(folder, 1)  # there is room again: it goes on
            for path in folder.iterdir():
                path.unlink()


def forbid(disk: Path, levels: int) -> None:
    """Write into folders of a disk that is read-only by now."""
    for name, kind in WRITERS.items():
        kind.write(disk / name, 0)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for name, kind in WRITERS.items():
        assert attempt(kind, disk / name, 1) == "refused", name


def _alone(*command: str) -> list[str]:
    """A command in a mount namespace of its own."""
    return ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", *command]


def _can_mount() -> bool:
    test = _alone("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    return (
        bool(shutil.which("unshare")) and not subprocess.run(test, capture_output=True).returncode
    )


@pytest.mark.skipif(not _can_mount(), reason="no file system can be mounted here")
@pytest.mark.hardening  # once, in `make test`: `lora_dropout/test_files.py`
@pytest.mark.parametrize(("how", "levels"), [("fill", 40), ("forbid", 1)])
def test_a_disk_that_takes_nothing_costs_nothing(how: str, levels: int, tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=2m tmpfs "{tmp_path}" && exec "$@"'
    module = ["-m", "tests.hardening.faults.test_damage", how, str(tmp_path), str(levels)]
    command = _alone("sh", "-c", mount, "sh", sys.executable, *module)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-1000:]


if __name__ == "__main__":
    how, where, number = sys.argv[1:]
    {"fill": fill, "forbid": forbid}[how](Path(where), int(number))
    print("done")
