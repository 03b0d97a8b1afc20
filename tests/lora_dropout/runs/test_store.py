import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_dropout.runs.store import Store, run_cells
from lora_dropout.safe_files import atomic_path

COMPUTED = []


def square(cell):
    COMPUTED.append(cell["x"])
    if cell.get("fails"):
        raise RuntimeError("planted failure")
    return {"square": cell["x"] ** 2}


def nothing(cell):
    COMPUTED.append(cell["x"])


def test_values_come_back_in_the_order_of_the_cells(tmp_path):
    cells = [{"x": x} for x in (3, 1, 2)]
    values = run_cells(square, cells, store=Store(tmp_path))
    assert values == [{"square": 9}, {"square": 1}, {"square": 4}]


def test_finished_cells_are_not_computed_again(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="planted failure"):
        run_cells(square, [{"x": 1}, {"x": 2}, {"x": 3, "fails": True}], store=store)
    COMPUTED.clear()
    run_cells(square, [{"x": 1}, {"x": 2}, {"x": 4}], store=store)
    assert COMPUTED == [4]


def test_a_change_of_the_code_makes_a_new_key(tmp_path):
    code = tmp_path / "figure.py"
    code.write_text("one")
    before = Store(tmp_path, code=[code]).path({"x": 1})
    code.write_text("two")
    assert Store(tmp_path, code=[code]).path({"x": 1}) != before


def test_key_does_not_depend_on_the_order_of_settings(tmp_path):
    store = Store(tmp_path)
    assert store.path({"a": 1, "b": 2}) == store.path({"b": 2, "a": 1})
    assert store.path({"a": 1, "b": 2}) != store.path({"a": 2, "b": 1})


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"cell": {}}', '{"value": 5}', '{"value": 4, "digest": "DIGEST"}']
)
def test_a_damaged_file_is_named_and_kept(tmp_path, damage):
    store = Store(tmp_path)
    store.put({"x": 1}, 5)
    path = store.path({"x": 1})
    damage = damage.replace("DIGEST", json.loads(path.read_text())["digest"])
    path.write_text(damage)
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        store.get({"x": 1})
    assert path.read_text() == damage


def test_a_value_that_cannot_be_written_leaves_the_old_one(tmp_path):
    store = Store(tmp_path)
    store.put({"x": 1}, 5)
    with pytest.raises(TypeError):
        store.put({"x": 1}, object())
    assert store.get({"x": 1}) == 5
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_named_before_anything_is_computed(tmp_path):
    store = Store(tmp_path)
    store.put({"x": 2}, 5)
    store.path({"x": 2}).write_text('{"cell": {"x": 2}, "va')
    COMPUTED.clear()
    with pytest.raises(ValueError, match=f"{store.path({'x': 2}).name} is damaged, remove it"):
        run_cells(square, [{"x": 1}, {"x": 2}], store=store)
    assert COMPUTED == []


def test_none_is_a_value_and_equal_cells_are_one(tmp_path):
    store = Store(tmp_path)
    assert run_cells(nothing, [{"x": 1}, {"x": 2}, {"x": 1}], store=store) == [None] * 3
    assert COMPUTED[-2:] == [1, 2]
    COMPUTED.clear()
    run_cells(nothing, [{"x": 1}], store=store)
    assert COMPUTED == []


def test_remains_of_killed_writers_are_removed_but_no_others(tmp_path):
    store = Store(tmp_path)
    store.put({"x": 1}, 5)
    name = store.path({"x": 1}).name
    left, other_code, others = (
        tmp_path / n for n in (f".{name}.abcd1234.tmp", ".0a1b.json.abcd1234.tmp", ".other.tmp")
    )
    for path in (left, other_code, others):
        path.touch()
    with atomic_path(store.path({"x": 2})) as living:
        run_cells(square, [{"x": 1}], store=store)
        assert {path.name for path in tmp_path.iterdir()} == {name, living.name, others.name}
        living.write_text("{}")
    assert store.path({"x": 2}).read_text() == "{}"


def test_a_worker_with_other_code_is_refused(tmp_path, monkeypatch):
    store = Store(tmp_path)
    # The driver's digest, then the worker's.
    digests = iter(["one", "two"])
    monkeypatch.setattr("lora_dropout.runs.store.package_digest", lambda: next(digests))
    with pytest.raises(RuntimeError, match="this worker has another lora_dropout"):
        run_cells(square, [{"x": 1}], store=store)
    assert store.get({"x": 1}) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "jobs must be at least 1, got jobs=0"),
        ({"engine": "dask"}, "engine must be one of 'local', 'ray', got engine='dask'"),
        ({"gpus_per_cell": 1}, "gpus_per_cell must be .*, got 1 with engine='local'"),
        ({"gpus_per_cell": -1, "engine": "ray"}, "gpus_per_cell must be .*, got -1"),
    ],
)
def test_bad_settings_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_cells(square, [{"x": 1}], store=Store(tmp_path), **options)


WRITER = """
import sys
import time
from lora_dropout.runs.store import Store
store = Store(sys.argv[1])
for x in range(10**9):
    store.put({"x": x % 7}, list(range(20000)))
    print(x, flush=True)
"""


def test_kill_in_the_middle_of_a_write_leaves_whole_files(tmp_path):
    root = Path(__file__).parents[3]
    for delay in (0.0, 0.003, 0.011):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=root
        )
        assert writer.stdout is not None
        for _ in range(10):
            writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        files = list(tmp_path.glob("*.json"))
        assert files
        for file in files:
            assert json.loads(file.read_text())["value"] == list(range(20000))


def removing(cell):
    if cell["x"] == 2:
        shutil.rmtree(cell["folder"])
    return {"square": cell["x"] ** 2}


def test_a_folder_removed_meanwhile_takes_no_result_away(tmp_path):
    folder = tmp_path / "cells"
    cells = [{"x": x, "folder": str(folder)} for x in (1, 2, 3)]
    values = run_cells(removing, cells, store=Store(folder))
    assert values == [{"square": 1}, {"square": 4}, {"square": 9}]


def test_a_cell_under_the_name_of_another_is_damage(tmp_path):
    store = Store(tmp_path)
    store.put({"x": 1}, 5)
    shutil.copy(store.path({"x": 1}), store.path({"x": 2}))
    with pytest.raises(ValueError, match=r"is damaged, remove it .*the cell in it is another"):
        store.get({"x": 2})
