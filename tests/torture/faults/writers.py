"""Several processes with one store at the same time: no cell lost, none torn, one result."""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from lora_dropout.runs.store import Store, run_cells
from lora_dropout.safe_files import atomic_path
from tests.torture import ROOT
from tests.torture.faults.kills import temporaries
from tests.torture.report import Row

N_CELLS = 60
COMPUTED: list[int] = []


def compute(cell: dict[str, int]) -> dict[str, object]:
    """A value long enough for a write to be interrupted."""
    COMPUTED.append(cell["seed"])
    rng = random.Random(cell["seed"])
    time.sleep(rng.uniform(0, 0.004))
    return {"seed": cell["seed"], "values": [rng.random() for _ in range(2000)]}


def cells(seed: int = 0) -> list[dict[str, int]]:
    """All cells, in an order of one's own."""
    found = [{"seed": k} for k in range(N_CELLS)]
    random.Random(seed).shuffle(found)
    return found


def sweep(folder: Path, seed: int) -> None:
    """One of the processes: compute all cells that are missing."""
    values = run_cells(compute, cells(seed), store=Store(folder))
    print(len(COMPUTED), file=sys.stderr)
    print(json.dumps(sorted(values, key=lambda value: value["seed"])))


def rewrite(folder: Path, seed: int) -> None:
    """One of the processes: write one file again and again, and read it."""
    target, letter = folder / "one.txt", chr(ord("a") + seed)
    for _ in range(150):
        with atomic_path(target) as path:
            path.write_text(letter * 40_000)
        read = target.read_text()
        if len(read) != 40_000 or len(set(read)) != 1:
            raise RuntimeError(f"torn: {len(read)} characters")
    print("whole")


PROGRAMS = {"sweep": sweep, "rewrite": rewrite}


def together(name: str, folder: Path, number: int) -> list[tuple[int, str, str]]:
    """Start programs and let them go at the same time.

    Args:
        name: One of `PROGRAMS`.
        folder: The store.
        number: How many processes.

    Returns:
        Of each, its exit status, output and errors.
    """
    command = [sys.executable, "-m", "tests.torture.faults.writers", name, str(folder)]
    processes = [
        subprocess.Popen(
            [*command, str(k)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(number)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = []
    for process in processes:
        output, errors = process.communicate()
        ended.append((process.returncode, output, errors))
    return ended


def attack(name: str, number: int, rounds: int) -> Row:
    """Let processes write into one store.

    Args:
        name: One of `PROGRAMS`.
        number: How many processes.
        rounds: How often.

    Returns:
        A row; a try is a process.
    """
    right = "whole\n"
    if name == "sweep":
        right = json.dumps([compute(cell) for cell in sorted(cells(), key=lambda c: c["seed"])])
        right += "\n"
    held, computed, wrong = 0, 0, set()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as base:
            folder = Path(base)
            ended = together(name, folder, number)
            files = len(list(folder.iterdir()))
            whole = files == (N_CELLS if name == "sweep" else 1) and not temporaries(folder)
            for status, output, errors in ended:
                if status == 0 and output == right and whole:
                    held += 1
                    computed += int(errors.splitlines()[-1]) if name == "sweep" else 0
                else:
                    wrong.add(f"status {status}, {files} files, {errors[-200:]!r}")
    what = {
        "sweep": f"{number} processes, one store of {N_CELLS} cells",
        "rewrite": f"{number} processes, one file 150 times each",
    }[name]
    note = f"{rounds} times, all processes with the same result; no file torn or left"
    if name == "sweep":
        note += (
            f"; {computed / rounds / N_CELLS:.2f} computations a cell, so all were at work at once"
        )
    return Row(what, number * rounds, held, note="; ".join(sorted(wrong)[:2]) or note)


def run(long: bool) -> Iterable[Row]:
    """Two and four processes on one store and on one file.

    Args:
        long: Whether at length.

    Yields:
        A row a number of processes and program.
    """
    for name in PROGRAMS:
        for number in (2, 4) if long else (2,):
            yield attack(name, number, 10 if long else 1)


if __name__ == "__main__":
    program, where, order = sys.argv[1:]
    # By its name, so that `compute` is that of the module.
    from tests.torture.faults import writers

    print("ready", flush=True)
    sys.stdin.readline()
    writers.PROGRAMS[program](Path(where), int(order))
