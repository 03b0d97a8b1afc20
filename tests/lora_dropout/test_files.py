"""Atomic writing."""

from pathlib import Path

import pytest

from lora_dropout.files import atomic_path


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
