"""Several processes with one store at the same time: no cell lost, none torn, one result.

Also the program of these processes: `python -m tests.hardening.faults.test_writers NAME FOLDER K`.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_bounds.files import atomic_path
from tests.hardening import ROOT
from tests.hardening.lengths import lengths

N_CELLS = 60


def compute(cell: dict[str, int]) -> dict[str, object]:
    """A value long enough for a write to be interrupted."""
    rng = random.Random(cell["seed"])
    time.sleep(rng.uniform(0, 0.004))
    return {"seed": cell["seed"], "values": [rng.random() for _ in range(2000)]}


def sweep(folder: Path, seed: int) -> None:
    """Compute all cells that are missing, in an order of one's own."""
    from lora_dropout.runs.store import Store, run_cells

    cells = [{"seed": k} for k in range(N_CELLS)]
    random.Random(seed).shuffle(cells)
    values = run_cells(compute, cells, store=Store(folder))
    print(json.dumps(sorted(values, key=lambda value: value["seed"])))


def rewrite(folder: Path, seed: int) -> None:
    """Write one file again and again, and read it."""
    target, letter = folder / "one.txt", chr(ord("a") + seed)
    for _ in range(150):
        with atomic_path(target) as path:
            path.write_text(letter * 40_000)
        read = target.read_text()
        if len(read) != 40_000 or len(set(read)) != 1:
            raise RuntimeError(f"torn: {len(read)} characters")
    print("whole")


PROGRAMS = {"sweep": sweep, "rewrite": rewrite}


def together(name: str, folder: Path, number: int) -> set[tuple[int, str]]:
    """Start programs, let them go at the same time; their exit statuses and outputs."""
    command = [sys.executable, "-m", "tests.hardening.faults.test_writers", name, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([*command, str(k)], cwd=ROOT, **pipes)  # type: ignore[call-overload]
        for k in range(number)
    ]
    for process in processes:
        process.stdout.readline()  # it is ready
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]
    return {(process.returncode, out) for process, out in zip(processes, outputs, strict=True)}


def attack(name: str, folder: Path, number: int) -> None:
    right, files = "whole\n", 1
    if name == "sweep":
        right = json.dumps([compute({"seed": k}) for k in range(N_CELLS)]) + "\n"
        files = N_CELLS
    assert together(name, folder, number) == {(0, right)}
    assert len([path for path in folder.iterdir() if path.suffix in (".txt", ".json")]) == files
    assert not [*folder.rglob("*.tmp")]


@pytest.mark.parametrize("rounds", lengths(1, 10))
def test_several_processes_write_one_file(rounds: int, tmp_path: Path) -> None:
    for k in range(rounds):
        (tmp_path / str(k)).mkdir()
        attack("rewrite", tmp_path / str(k), 2 if rounds == 1 else 4)


@pytest.mark.hardening  # once, in `make test`: test_engines.py, two drivers on one store
@pytest.mark.parametrize("number", [2, 4])
def test_several_processes_fill_one_store(number: int, tmp_path: Path) -> None:
    for k in range(10):
        (tmp_path / str(k)).mkdir()
        attack("sweep", tmp_path / str(k), number)


if __name__ == "__main__":
    program, where, order = sys.argv[1:]
    # By its name, so that `compute` is that of the module.
    from tests.hardening.faults import test_writers

    print("ready", flush=True)
    sys.stdin.readline()
    test_writers.PROGRAMS[program](Path(where), int(order))
