"""SIGKILL at random moments: the next run ends as an uninterrupted one and repeats nothing.

`make test` kills each kind once: `training/test_fit.py`, `runs/test_store.py`, `test_engines.py`.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hardening import ROOT
from tests.hardening.faults.victims import VICTIMS

MOMENTS = ("in a write", "at work", "any time")
KILLS = 50


@dataclass
class Reference:
    """An uninterrupted run: what it prints, which units it begins, how long it takes (seconds)."""

    output: str
    units: list[str]
    seconds: float
    working: float
    writes: int


def start(name: str, folder: Path, log: Path) -> "subprocess.Popen[str]":
    """Start a victim as the leader of a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hardening.faults.victims", name, str(folder), str(log)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def temporaries(folder: Path) -> set[Path]:
    """Files that are being written, or were."""
    found = set()
    for place, _, names in os.walk(folder):
        found |= {Path(place, name) for name in names if name.endswith(".tmp")}
    return found


def lines(log: Path) -> list[str]:
    """Units that a run began."""
    return log.read_text().splitlines() if log.exists() else []


def refer(name: str, folder: Path) -> Reference:
    """Run a victim without a kill."""
    log, seen, began = folder / "log", set[Path](), 0.0
    start_time = time.monotonic()
    process = start(name, folder / "work", log)
    while process.poll() is None:
        seen |= temporaries(folder / "work")
        if not began and log.exists():
            began = time.monotonic()
        time.sleep(0.001)
    end = time.monotonic()
    output, errors = process.communicate()
    assert process.returncode == 0, f"{name} fails without a kill: {errors}"
    return Reference(output, lines(log), end - start_time, end - began, max(1, len(seen)))


def strike(
    name: str, folder: Path, log: Path, moment: str, reference: Reference, rng: random.Random
) -> bool:
    """Start a victim and kill it; whether it had not ended by itself before."""
    old = temporaries(folder)
    process = start(name, folder, log)
    if moment == "any time":
        time.sleep(rng.uniform(0, reference.seconds))
    elif moment == "at work":
        while not log.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, reference.working))
    else:
        seen: set[Path] = set()
        nth = rng.randint(1, reference.writes)
        while len(seen) < nth and process.poll() is None:
            seen |= temporaries(folder) - old
            time.sleep(0.0002)
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def judge(output: str, begun: list[str], kept: set[str], reference: Reference) -> str:
    """What is wrong with a run that went on from what was kept, or nothing."""
    if reference.output.strip() not in output:  # Ray's warnings beside it
        return "another result"
    # Sorted: workers of a cluster begin cells in any order.
    if sorted(begun) != sorted(unit for unit in reference.units if unit not in kept):
        return f"computed {begun} with {sorted(kept)} kept"
    return ""


def trial(
    name: str, folder: Path, reference: Reference, moments: list[str], rng: random.Random
) -> int:
    """Kill a victim at these moments, in a row, then let it end as if nothing had been.

    Returns:
        How often it was killed.
    """
    kept = VICTIMS[name][1]
    work, kills = folder / "work", 0
    for number, moment in enumerate(moments):
        before, log = kept(work), folder / f"log{number}"
        kills += strike(name, work, log, moment, reference, rng)
        assert not before & set(lines(log)), "computed again"
    before, log = kept(work), folder / "log"
    process = start(name, work, log)
    output, errors = process.communicate()
    assert process.returncode == 0, f"does not go on: {errors.strip().splitlines()[-1:]}"
    assert not judge(output, lines(log), before, reference)
    assert not temporaries(folder)
    return kills


def attack(name: str, base: Path) -> None:
    """Kill a victim at least `KILLS` times."""
    rng, number, kills = random.Random(0), 0, 0
    (base / "reference").mkdir()
    reference = refer(name, base / "reference")
    while kills < KILLS:
        assert number < 4 * KILLS, f"only {kills} kills"
        folder = base / str(number)
        folder.mkdir()
        moments = [MOMENTS[number % 3]] + [rng.choice(MOMENTS) for _ in range(number % 2 * 2)]
        kills += trial(name, folder, reference, moments, rng)
        number += 1


@pytest.mark.hardening
@pytest.mark.parametrize("name", [name for name in VICTIMS if name != "ray"])
def test_a_killed_run_goes_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    attack(name, tmp_path)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray cluster of this machine, which `RAY_ADDRESS` names."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray")  # short: a socket's path has at most 107 bytes
    own = {"RAY_TMPDIR": folder, "HOME": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    own |= {"PYTHONPATH": str(ROOT), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    for key, value in own.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        context = ray.init(num_cpus=2, include_dashboard=False, logging_level="warning")
        monkeypatch.setenv("RAY_ADDRESS", context.address_info["gcs_address"])
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.hardening
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_drivers_of_a_cluster_are_killed(cluster: None, tmp_path: Path) -> None:
    attack("ray", tmp_path)


def _kill_worker(log: Path, already: set[int]) -> None:
    for pid in reversed([int(pid) for pid in lines(log.with_name(log.name + ".pids"))]):
        command = Path(f"/proc/{pid}/cmdline")
        if pid not in already and command.exists() and b"ray::" in command.read_bytes():
            os.kill(pid, signal.SIGKILL)
            already.add(pid)
            return


@pytest.mark.hardening
@pytest.mark.filterwarnings("ignore")
def test_workers_of_a_cluster_are_killed(cluster: None, tmp_path: Path) -> None:
    """A kill costs one cell at most, the worker's own."""
    rng, kills = random.Random(1), 0
    (tmp_path / "reference").mkdir()
    reference = refer("ray", tmp_path / "reference")
    for number in range(KILLS):
        folder, killed = tmp_path / str(number), set[int]()
        folder.mkdir()
        log = folder / "log"
        process = start("ray", folder / "work", log)
        while not log.exists() and process.poll() is None:
            time.sleep(0.002)
        for _ in range(3):
            time.sleep(rng.uniform(0, reference.working / 2))
            if process.poll() is None:
                _kill_worker(log, killed)
        output, errors = process.communicate()
        begun = lines(log)
        assert process.returncode == 0, errors[-500:]
        assert not judge(output, [*{*begun}], set(), reference)
        assert len(begun) - len({*begun}) <= len(killed)
        assert not temporaries(folder)
        kills += len(killed)
    assert kills >= KILLS / 2


def test_a_wrong_result_and_repeated_work_are_seen() -> None:
    reference = Reference("digest\n", ["1", "2", "3"], 1.0, 1.0, 1)
    assert judge("digest\n", ["2", "3"], {"1"}, reference) == ""
    assert judge("another\n", ["2", "3"], {"1"}, reference) == "another result"
    assert "with ['1'] kept" in judge("digest\n", ["1", "2", "3"], {"1"}, reference)
    assert "with ['1'] kept" in judge("digest\n", ["3"], {"1"}, reference)
