import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paper_figures.store import Store, run_cells

COMPUTED = []


def square(cell):
    COMPUTED.append(cell["x"])
    if cell.get("fails"):
        raise RuntimeError("planted failure")
    return {"square": cell["x"] ** 2}


def test_values_come_back_in_the_order_of_the_cells(tmp_path):
    cells = [{"x": x} for x in (3, 1, 2)]
    values = run_cells(square, cells, store=Store(tmp_path))
    assert values == [{"square": 9}, {"square": 1}, {"square": 4}]


def test_worker_processes_give_the_same_values(tmp_path):
    cells = [{"x": x} for x in range(5)]
    one = run_cells(square, cells, store=Store(tmp_path / "one"), jobs=1)
    two = run_cells(square, cells, store=Store(tmp_path / "two"), jobs=2)
    assert one == two


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


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"cell": {}}'])
def test_a_damaged_file_is_named_and_kept(tmp_path, damage):
    store = Store(tmp_path)
    store.put({"x": 1}, 5)
    path = store.path({"x": 1})
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


WRITER = """
import sys
from paper_figures.store import Store
store = Store(sys.argv[1])
for x in range(10**9):
    store.put({"x": x % 7}, list(range(20000)))
    print(x, flush=True)
"""


def test_kill_in_the_middle_of_a_write_leaves_whole_files(tmp_path):
    root = Path(__file__).parents[2]
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
