"""SIGKILL at random moments: the next run ends as an uninterrupted one and repeats nothing."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.torture import ROOT
from tests.torture.faults.victims import VICTIMS
from tests.torture.report import Row

MOMENTS = ("in a write", "at work", "any time")
WHAT = {
    "fit": "SIGKILL in `fit` with checkpoints",
    "replicas": "SIGKILL in the replica engine (leave-one-out)",
    "figures": "SIGKILL in `python -m paper_figures`",
    "verify": "SIGKILL in `lora-bounds verify --json`",
    "ray": "SIGKILL of the driver of a Ray sweep",
}


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
        [sys.executable, "-m", "tests.torture.faults.victims", name, str(folder), str(log)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a victim with all its children."""
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


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
    log, seen, began = folder / "log", set(), 0.0
    start_time = time.monotonic()
    process = start(name, folder / "work", log)
    while process.poll() is None:
        seen |= temporaries(folder / "work")
        if not began and log.exists():
            began = time.monotonic()
        time.sleep(0.001)
    end = time.monotonic()
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{name} fails without a kill: {errors}")
    return Reference(output, lines(log), end - start_time, end - began, max(1, len(seen)))


def strike(
    name: str, folder: Path, log: Path, moment: str, reference: Reference, rng: random.Random
) -> bool:
    """Start a victim and kill it.

    Returns:
        Whether it was killed, and had not ended by itself before.
    """
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
    kill(process)
    return process.returncode == -signal.SIGKILL


def trial(
    name: str, folder: Path, reference: Reference, moments: list[str], rng: random.Random
) -> tuple[int, int, str]:
    """Kill a victim at these moments, in a row, then let it end.

    Returns:
        (Kills, kills that left a temporary file, what was wrong or nothing).
    """
    kept = VICTIMS[name][1]
    work, wrong, kills, torn = folder / "work", "", 0, 0
    for number, moment in enumerate(moments):
        before, log = kept(work), folder / f"log{number}"
        if not strike(name, work, log, moment, reference, rng):
            continue
        kills += 1
        torn += bool(temporaries(work))
        if before & set(lines(log)):
            wrong = f"computed again: {sorted(before & set(lines(log)))}"
    before, log = kept(work), folder / "log"
    process = start(name, work, log)
    output, errors = process.communicate()
    if process.returncode:
        return kills, torn, f"does not go on: {errors.strip().splitlines()[-1:]}"
    if output != reference.output:
        return kills, torn, "another result"
    # Sorted: workers of a cluster begin cells in any order.
    if sorted(lines(log)) != sorted(unit for unit in reference.units if unit not in before):
        return kills, torn, f"computed {lines(log)} with {sorted(before)} kept"
    if left := temporaries(folder):
        return kills, torn, f"left {sorted(path.name for path in left)}"
    return kills, torn, wrong


def attack(name: str, wanted: int, *, seed: int = 0) -> Row:
    """Kill a victim at least so many times.

    Args:
        name: One of `VICTIMS`.
        wanted: Number of kills.
        seed: Of the moments.

    Returns:
        A row: kills, and those after which the run ended as an uninterrupted one.
    """
    rng, number, kills, held, torn = random.Random(seed), 0, 0, 0, 0
    faults: set[str] = set()
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "reference").mkdir()
        reference = refer(name, Path(base) / "reference")
        while kills < wanted and number < 4 * wanted:
            folder = Path(base) / str(number)
            folder.mkdir()
            # In turn, so that a few kills see all kinds of moments; often three in a row.
            moments = [MOMENTS[number % 3]] + [rng.choice(MOMENTS) for _ in range(number % 2 * 2)]
            number += 1
            killed, left, wrong = trial(name, folder, reference, moments, rng)
            kills += killed
            torn += left
            held += 0 if wrong else killed
            faults |= {wrong} if wrong else set()
    note = (
        f"{number} runs of {reference.seconds:.1f} s and {len(reference.units)} units of work, "
        f"each killed once or three times; {torn} kills left a temporary file for the next run"
    )
    if faults:
        note += f"; WRONG: {'; '.join(sorted(faults)[:3])}"
    return Row(WHAT[name], kills, held, note=note)


def run(long: bool) -> Iterable[Row]:
    """Kill each victim: at least 50 times, or twice.

    Args:
        long: Whether at length.

    Yields:
        A row a victim.
    """
    for name in VICTIMS:
        if name != "ray":  # `ray_kills` has the cluster that it needs
            yield attack(name, 50 if long else 2)
