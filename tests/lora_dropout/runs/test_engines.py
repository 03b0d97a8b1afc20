"""Engines: equal values, dead workers, dead drivers. Cells are in `cells.py`."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from lora_dropout.runs import engines
from lora_dropout.runs.store import Store, run_cells
from tests.lora_dropout.runs.cells import act, train_a_little, visible_gpus

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def ray():
    """Ray, writing to a folder of its own; no cluster runs yet."""
    ray = pytest.importorskip("ray", reason="extra `cluster` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        # Short: a socket's path has at most 107 bytes.
        folder = tempfile.mkdtemp(prefix="ray")
        for name, value in {
            "RAY_TMPDIR": folder,
            "HOME": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns that this will be so
            "PYTHONPATH": str(ROOT),
        }.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield ray
        # Else a process that takes more than a second to die is left to the garbage collector.
        ray.shutdown(wait_for_processes=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def address(ray):
    """Address of a cluster of two workers; its GPU is a number only."""
    context = ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="warning")
    return context.address_info["gcs_address"]


def make(tmp_path, *does):
    log = str(tmp_path / "log")
    return [{"seed": seed, "log": log, "does": name} for seed, name in enumerate(does)]


def computed(tmp_path):
    return sorted(int(line) for line in (tmp_path / "log").read_text().splitlines())


def check_a_bad_day(engine, tmp_path):
    """A worker killed in mid-cell is replaced; what fails is named and costs no other cell."""
    cells = make(tmp_path, "", "die once", "fail", "return a set", "raise what does not travel", "")
    store = Store(tmp_path / "store")
    with pytest.raises(RuntimeError) as caught:
        run_cells(act, cells, store=store, jobs=2, engine=engine)
    assert "3 of 6 cells failed" in str(caught.value)
    assert '"seed": 2}: RuntimeError: planted failure' in str(caught.value)
    assert "in act\n" in caught.value.__notes__[0]  # the worker's traceback
    values = [store.get(cell) for cell in cells]
    expected = [train_a_little(cell) for cell in cells]
    assert values == [*expected[:2], None, None, None, expected[5]]
    times = [computed(tmp_path).count(seed) for seed in range(6)]
    if engine == "ray":
        assert times == [1, 2, 1, 1, 1, 1]
    assert times[1] == 2


def test_a_bad_day_of_worker_processes(tmp_path):
    check_a_bad_day("local", tmp_path)


BAD_DAY = """
import sys
from pathlib import Path
import ray
from tests.lora_dropout.runs.test_engines import check_a_bad_day
assert not ray.is_initialized()
check_a_bad_day("ray", Path(sys.argv[1]))
assert not ray.is_initialized()
"""


def test_a_bad_day_of_a_ray_cluster(ray, tmp_path):
    """The cluster is one that `run_cells` starts for itself; that of other tests is no business."""
    subprocess.run(
        [sys.executable, "-c", BAD_DAY, str(tmp_path)], cwd=ROOT, check=True, timeout=250
    )


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_cell_that_kills_each_worker_is_reported(engine, request, tmp_path, monkeypatch):
    if engine == "ray":
        request.getfixturevalue("address")
    monkeypatch.setattr(engines, "RETRIES", 0)
    cells, store = make(tmp_path, "", "", "die"), Store(tmp_path / "store")
    with pytest.raises(RuntimeError, match=r"of 3 cells failed.*(terminated|died|crash)"):
        run_cells(act, cells, store=store, jobs=1 if engine == "ray" else 2, engine=engine)
    if engine == "ray":  # local workers die together, and may take others' cells with them
        assert [store.get(cell) for cell in cells] == [*map(train_a_little, cells[:2]), None]


def test_ray_reserves_gpus_for_a_cell(address, tmp_path):
    store = Store(tmp_path)
    options = {"store": store, "jobs": None, "engine": "ray", "gpus_per_cell": 1}
    assert run_cells(visible_gpus, [{"x": 1}], **options) == ["0"]


DRIVER = """
import json, sys
from lora_dropout.runs.store import Store, run_cells
from tests.lora_dropout.runs.cells import act
cells, folder, engine, jobs = json.loads(sys.argv[1])
run_cells(act, cells, store=Store(folder), jobs=jobs, engine=engine)
"""


def start_driver(*arguments, **options):
    command = [sys.executable, "-c", DRIVER, json.dumps(arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    ("engine", "jobs", "does", "twice"),
    [("local", 1, ["", "", "wait"], [2]), ("ray", 2, ["", "wait", "", "", "wait"], [1, 4])],
)
def test_a_killed_driver_goes_on_and_computes_no_finished_cell_again(
    engine, jobs, does, twice, request, tmp_path, monkeypatch
):
    if engine == "ray":
        monkeypatch.setenv("RAY_ADDRESS", request.getfixturevalue("address"))
    cells, store = make(tmp_path, *does), Store(tmp_path / "store")
    log = tmp_path / "log"
    driver = start_driver(cells, str(store.folder), engine, jobs)
    try:
        finished, deadline = len(does) - len(twice), time.monotonic() + 120
        while (
            not log.exists()
            or len(computed(tmp_path)) < len(does)
            or sum(store.path(cell).exists() for cell in cells) < finished
        ):
            assert driver.poll() is None, driver.stderr.read()
            assert time.monotonic() < deadline, "finished cells are not kept at once"
            time.sleep(0.05)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        driver.stderr.close()
        log.with_name("gate").touch()
    values = run_cells(act, cells, store=store, jobs=jobs, engine=engine)
    assert values == [train_a_little(cell) for cell in cells]
    assert computed(tmp_path) == sorted([*range(len(does)), *twice])


def test_workers_leave_when_their_driver_is_killed(tmp_path):
    """They would compute, for nobody, all that their queue holds."""
    cells = make(tmp_path, "tell", "wait", "wait", "wait")
    driver = start_driver(cells, str(tmp_path / "store"), "local", 2)
    told = tmp_path / "told"
    try:
        while not told.exists() or len(computed(tmp_path)) < 3:  # both workers have begun
            assert driver.poll() is None, driver.stderr.read()
            time.sleep(0.02)
        workers = set(children(driver.pid))
        assert int(told.read_text()) in workers
    finally:
        driver.kill()
        driver.wait()
        driver.stderr.close()
    deadline = time.monotonic() + 20
    while (left := [pid for pid in workers if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    (tmp_path / "gate").touch()
    assert not left
    assert sorted(computed(tmp_path)) == [0, 1, 2]


def children(pid):
    """Processes with this parent (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(path.parent.name))
    return found


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_two_drivers_on_one_store_lose_nothing(tmp_path):
    cells, store = make(tmp_path, "wait", *["doze"] * 29), Store(tmp_path / "store")
    log = tmp_path / "log"

    def open_the_gate():  # once both are at work; without that the count below is short
        deadline = time.monotonic() + 120
        while computed(tmp_path).count(0) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        (tmp_path / "gate").touch()

    with start_driver(cells, str(store.folder), "local", 1) as driver:
        while not log.exists():
            assert driver.poll() is None, driver.stderr.read()
            time.sleep(0.01)
        opener = threading.Thread(target=open_the_gate)
        opener.start()
        values = run_cells(act, cells, store=store, jobs=2)
        opener.join()
        assert driver.wait() == 0, driver.stderr.read()
    assert values == [train_a_little(cell) for cell in cells]
    assert len(computed(tmp_path)) > 30
    assert len(list(store.folder.iterdir())) == 30


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'lora-dropout\[cluster\]'"):
        run_cells(act, [{"seed": 1}], store=Store(tmp_path), engine="ray")
