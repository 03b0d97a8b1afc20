"""The short version of the faults: kills, damaged files, full disks, several writers."""

from pathlib import Path
from random import Random

import pytest

from tests.torture.faults import damage, files, kills, writers


def test_a_killed_run_goes_on_as_if_nothing_had_been() -> None:
    row = kills.attack("fit", 1)
    assert row.passed, row.note


def test_a_wrong_result_and_repeated_work_after_a_kill_are_seen(tmp_path: Path) -> None:
    """The attack itself must see what it looks for."""
    reference = kills.Reference("another", ["verify"], 1.0, 1.0, 1)
    _, _, wrong = kills.trial("verify", tmp_path, reference, [], Random(0))
    assert wrong == "another result"
    (tmp_path / "log").unlink()
    output, _ = kills.start("verify", tmp_path / "work", tmp_path / "log0").communicate()
    reference = kills.Reference(output, ["verify", "more"], 1.0, 1.0, 1)
    _, _, wrong = kills.trial("verify", tmp_path, reference, [], Random(0))
    assert wrong == "computed ['verify'] with [] kept"


@pytest.mark.parametrize("kind", damage.KINDS)
@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_damage_is_refused_by_the_name_of_the_file(kind: str, how: str) -> None:
    row = files.attack(kind, how, Random(0), 12)
    assert row.passed, row.note


def test_damage_used_in_silence_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, version: int) -> object:
        return (folder / "plain.txt").write_bytes(bytes(100))

    kind = damage.Kind(write, lambda folder: (folder / "plain.txt").read_bytes())
    monkeypatch.setitem(damage.KINDS, "plain", kind)
    row = files.attack("plain", "flipped", Random(0), 12)
    assert (row.passed, row.held) == (False, 0)
    assert "another result in silence" in row.note


@pytest.mark.skipif(not files.can_mount(), reason="no file system can be mounted here")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_takes_nothing_costs_nothing(how: str) -> None:
    row = files.disk(how, 1)
    assert row.passed, row.note


@pytest.mark.parametrize("name", writers.PROGRAMS)
def test_several_processes_write_into_one_store(name: str) -> None:
    row = writers.attack(name, 2, 1)
    assert row.passed, row.note
