"""SIGKILL of the driver and of the workers of a sweep on a Ray cluster of this machine."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.torture import ROOT
from tests.torture.faults.kills import Reference, attack, lines, refer, start, temporaries
from tests.torture.report import Row

DRIVERS, WORKERS = 50, 25


def _kill_worker(log: Path, already: set[int]) -> bool:
    pids = [int(pid) for pid in lines(log.with_name(log.name + ".pids"))]
    for pid in reversed(pids):
        command = Path(f"/proc/{pid}/cmdline")
        if pid not in already and command.exists() and b"ray::" in command.read_bytes():
            os.kill(pid, signal.SIGKILL)
            already.add(pid)
            return True
    return False


def sweep_without_workers(
    folder: Path, reference: Reference, rng: random.Random
) -> tuple[int, str]:
    """Run a sweep and kill up to three of its workers.

    Args:
        folder: Store and log.
        reference: The undisturbed sweep.
        rng: Chooses the moments.

    Returns:
        (Workers killed, what was wrong or nothing).
    """
    log, killed = folder / "log", set[int]()
    process = start("ray", folder / "work", log)
    while not log.exists() and process.poll() is None:
        time.sleep(0.002)
    for _ in range(3):
        time.sleep(rng.uniform(0, reference.working / 2))
        if process.poll() is None:
            _kill_worker(log, killed)
    output, errors = process.communicate()
    begun = lines(log)
    again = {unit: begun.count(unit) - 1 for unit in begun if begun.count(unit) > 1}
    if process.returncode:
        return len(killed), f"the driver failed: {errors.strip().splitlines()[-1:]}"
    if reference.output.strip() not in output.splitlines():  # Ray's warnings beside it
        return len(killed), "another result"
    if sum(again.values()) > len(killed) or set(begun) != set(reference.units):
        return len(killed), f"begun again {again} with {len(killed)} workers killed"
    return len(killed), "left a temporary file" if temporaries(folder) else ""


def attack_workers(wanted: int) -> Row:
    """Kill workers at least so many times.

    Args:
        wanted: Number of kills.

    Returns:
        A row: kills, and those whose sweep ended as an undisturbed one.
    """
    rng, kills, held, number, faults = random.Random(1), 0, 0, 0, set()
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "reference").mkdir()
        reference = refer("ray", Path(base) / "reference")
        while kills < wanted and number < 2 * wanted:
            folder = Path(base) / str(number)
            folder.mkdir()
            number += 1
            killed, wrong = sweep_without_workers(folder, reference, rng)
            kills += killed
            held += 0 if wrong else killed
            faults |= {wrong} if wrong else set()
    note = (
        f"{number} sweeps of {len(reference.units)} cells, up to three workers each; a kill costs "
    )
    note += "one cell at most, the worker's own"
    if faults:
        note += f"; WRONG: {'; '.join(sorted(faults)[:3])}"
    return Row("SIGKILL of workers of a Ray sweep", kills, held, note=note)


def run(long: bool) -> Iterable[Row]:
    """Kill drivers and workers, `DRIVERS` and `WORKERS` of them, or one each.

    Args:
        long: Whether at length.

    Yields:
        A row for drivers and one for workers.
    """
    import ray

    folder = tempfile.mkdtemp(prefix="ray")  # short: a socket's path has at most 107 bytes
    before = dict(os.environ)
    own = {"RAY_TMPDIR": folder, "HOME": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.update(own | {"PYTHONPATH": str(ROOT), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"})
    os.environ.pop("RAY_ADDRESS", None)
    try:
        context = ray.init(num_cpus=2, include_dashboard=False, logging_level="warning")
        os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
        yield attack("ray", DRIVERS if long else 1)
        yield attack_workers(WORKERS if long else 1)
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)
