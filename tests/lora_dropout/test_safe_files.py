"""Atomic writing."""

import errno
import fcntl
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lora_bounds import files
from lora_dropout.safe_files import atomic_path


def test_new_file_in_a_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(target) as path:
        assert path.parent == target.parent
        path.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_interrupted_write(tmp_path: Path, error: type[BaseException], old: str | None) -> None:
    target = tmp_path / "file.txt"
    if old is not None:
        target.write_text(old)

    def write() -> None:
        with atomic_path(target) as path:
            path.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ([] if old is None else ["file.txt"])
    assert old is None or target.read_text() == old


def test_temporary_removed_by_the_block_is_an_error_not_a_loss(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(target) as path:
        path.unlink()
    assert target.read_text() == "old"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"\[Errno 28\] .*: '.*file.txt'$"),
        atomic_path(tmp_path / "file.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_the_digest_of_json_is_that_of_what_json_gives_back() -> None:
    content = {2: [1 / 3, "é"], 10: (None, -0.0), "a": {"c": 1, "b": 2}}
    back = json.loads(json.dumps(content))
    assert files.json_digest(content) == files.json_digest(back)
    for other in ({**back, "2": [1 / 3 + 1e-16, "é"]}, {**back, "10": [None, 0.0]}, {}):
        assert files.json_digest(other) != files.json_digest(back)


HOLD = """
import sys
from lora_dropout.safe_files import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_text("from another process")
    print(path, flush=True)
    sys.stdin.readline()
"""


def held_open(target: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process in the middle of a write, and its temporary file."""
    writer = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdout is not None
    return writer, Path(writer.stdout.readline().strip())


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_of_a_living_one(
    tmp_path: Path,
) -> None:
    target = tmp_path / "file.txt"
    dead, left = held_open(target)
    dead.kill()
    dead.communicate()
    assert left.read_text() == "from another process"
    living, held = held_open(target)
    assert not left.exists()
    strangers = [tmp_path / name for name in (".file.txt.tmp", ".file.txt.short.tmp", "b.txt")]
    other = tmp_path / ".file_txt.abcdefgh.tmp"  # a dot in a name is a dot
    for path in [*strangers, other]:
        path.touch()
    with atomic_path(target) as path:
        path.write_text("mine")
    assert target.read_text() == "mine"
    assert {*tmp_path.iterdir()} == {target, held, other, *strangers}
    living.communicate("\n")
    assert living.returncode == 0
    assert target.read_text() == "from another process"
    assert {*tmp_path.iterdir()} == {target, other, *strangers}


def test_a_temporary_taken_for_an_orphan_before_its_lock_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def taken(**options: Any) -> tuple[int, str]:
        handle, name = mkstemp(**options)
        made.append(name)
        if len(made) == 1:  # another process sweeps between making and locking
            files.remove_orphans(tmp_path)
            assert not Path(name).exists()
        return handle, name

    mkstemp = tempfile.mkstemp
    monkeypatch.setattr(tempfile, "mkstemp", taken)
    with atomic_path(tmp_path / "file.txt") as path:
        path.write_text("new")
    assert len(made) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_without_locks_nothing_of_others_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    left = tmp_path / ".file.txt.abcdefgh.tmp"
    left.touch()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with atomic_path(tmp_path / "file.txt") as path:
            path.write_text("new")
    assert {p.name for p in tmp_path.iterdir()} == {"file.txt", left.name}
    monkeypatch.setattr(files, "fcntl", None)  # as on Windows
    with atomic_path(tmp_path / "file.txt") as path:
        path.write_text("newer")
    assert (tmp_path / "file.txt").read_text() == "newer" and left.exists()
