"""Sweeps: cells of settings computed on one machine or on a Ray cluster, each result kept on disk.

One JSON file a cell, with its settings, written whole or not at all. The driver (the process that
calls `run_cells`) keeps every result as it arrives, so that workers need no common disk.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import lora_dropout
from lora_dropout.door import (
    check_callable,
    check_choice,
    check_count,
    check_path,
    check_real,
    check_sequence,
    check_type,
)
from lora_dropout.identity import files_digest, package_digest
from lora_dropout.runs.engines import ENGINES, Engine, Failure
from lora_dropout.safe_files import atomic_path, json_digest, remove_orphans

Cell = Mapping[str, Any]

_MISSING = object()


class DamagedError(ValueError):
    """A result on disk is not what was written."""


class Store:
    """Results by the settings that made them.

    A cell's key covers its settings, the source of `lora_dropout`, torch's version and the files of
    `code`, so that a result never outlives the code that made it. What else decides it, such as
    data that a function holds, must be among the settings.

    Args:
        folder: Where the files are.
        code: Source files outside `lora_dropout` that results depend on.
    """

    def __init__(self, folder: str | Path, *, code: Sequence[str | Path] = ()) -> None:
        self.folder = check_path("folder", folder)
        code = check_sequence("code", code, (str, Path))
        own = files_digest([Path(file) for file in code])
        self._code = [package_digest(), own, str(torch.__version__)]

    def path(self, cell: Cell) -> Path:
        """Where a cell's result is.

        Args:
            cell: Settings, representable in JSON.

        Returns:
            The path, whether or not it exists.
        """
        text = json.dumps([cell, *self._code], sort_keys=True)
        return self.folder / f"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.json"

    def get(self, cell: Cell, default: Any = None) -> Any:
        """Read a result.

        Args:
            cell: Settings.
            default: What to return if the cell is not finished.

        Returns:
            The value as JSON gives it back, or `default`.

        Raises:
            DamagedError: If the file is damaged.
            ValueError: The same: it is one.
        """
        path = self.path(cell)
        if not path.is_file():
            return default
        try:
            content = json.loads(path.read_text())
            if content["digest"] != json_digest(content["value"]):
                raise ValueError("the value is not that of its digest")
            if json_digest(content["cell"]) != json_digest(cell):
                raise ValueError("the cell in it is another one")
            return content["value"]
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            raise DamagedError(
                f"{path} is damaged, remove it to compute it again: {error}"
            ) from error

    def put(self, cell: Cell, value: Any) -> None:
        """Keep a result.

        Args:
            cell: Settings.
            value: What was computed, representable in JSON.
        """
        with atomic_path(self.path(cell)) as path:
            content = {"cell": cell, "value": value, "digest": json_digest(value)}
            path.write_text(json.dumps(content))

    def remove_stale(self) -> None:
        """Remove what killed writers left half written, also under keys of other code."""
        remove_orphans(self.folder, r".+\.json")


def run_cells(
    compute: Callable[[Cell], Any],
    cells: Sequence[Cell],
    *,
    store: Store,
    jobs: int | None = 1,
    engine: Engine = "local",
    gpus_per_cell: float = 0.0,
    title: str = "",
) -> list[Any]:
    """Compute the cells that are not finished yet.

    A worker hands its result to the driver, which keeps it before all else: a killed driver loses
    at most the cells being computed, and the same call goes on with those. A worker process that
    dies is replaced and its cell tried again, three times. A cell that raises does not stop the
    others. Engines give the same values if `compute` is a function of its cell alone; it should
    set its number of threads itself (`torch.set_num_threads`), which can decide a sum's last bits.

    Args:
        compute: Cell -> value representable in JSON; a function workers can import, or a
            `functools.partial` of one. Files on the driver's disk may be out of a worker's reach:
            pass their content.
        cells: What to compute; equal cells are computed once.
        store: Where results are kept.
        jobs: Cells computed at a time; None takes all processors, of the machine or the cluster.
        engine: `local`: this process (one job) or worker processes of this machine. `ray`: a Ray
            cluster, which needs the extra `cluster`: the one connected to, else the one that
            `RAY_ADDRESS` or `ray start` on this machine names, else a new one on this machine.
        gpus_per_cell: GPUs that Ray reserves for each cell, and alone shows to it.
        title: Label of the progress bar.

    Returns:
        The values, in the order of `cells`.

    Raises:
        ValueError: If an argument is out of range, or a result on disk is damaged.
        RuntimeError: If cells failed; it names the first and tells what went wrong in it. All
            other cells are computed and kept by then.
    """
    check_choice("engine", engine, tuple(ENGINES))
    if jobs is not None:
        check_count("jobs", jobs, minimum=1)
    check_callable("compute", compute)
    cells = check_sequence("cells", cells, Mapping)
    check_type("store", store, Store, "a Store")
    check_type("title", title, str, "a text")
    gpus_per_cell = check_real("gpus_per_cell", gpus_per_cell)
    if not gpus_per_cell >= 0 or (gpus_per_cell and engine != "ray"):
        raise ValueError(
            f"gpus_per_cell must be at least 0, and 0 unless engine='ray', got {gpus_per_cell:g} "
            f"with engine={engine!r}"
        )
    store.remove_stale()
    # Kept here, too: a folder that is removed meanwhile takes nothing away.
    values = {store.path(cell): store.get(cell, _MISSING) for cell in cells}
    unfinished = {store.path(c): c for c in cells if values[store.path(c)] is _MISSING}
    missing, failures = list(unfinished.values()), []
    done = len(cells) - len(missing)
    with tqdm(total=len(cells), initial=done, desc=title, unit="run") as bar:
        task = _Task(compute, package_digest())
        outcomes = ENGINES[engine](task, missing, jobs, gpus_per_cell) if missing else ()
        for index, value in outcomes:
            if not isinstance(value, Failure):
                try:
                    store.put(missing[index], value)
                    values[store.path(missing[index])] = json.loads(json.dumps(value))
                except (TypeError, ValueError) as error:
                    value = Failure.of(error)
            if isinstance(value, Failure):
                failures.append((index, value))
                bar.set_postfix(failed=len(failures))
            bar.update()
    if failures:
        _raise(missing, failures)
    return [values[store.path(cell)] for cell in cells]


class _Task:
    """A cell's computation, refused by a worker whose `lora_dropout` is not the driver's."""

    def __init__(self, compute: Callable[[Cell], Any], digest: str) -> None:
        self.compute = compute
        self.digest = digest

    def __call__(self, cell: Cell) -> Any:
        if package_digest() != self.digest:
            raise RuntimeError(
                f"this worker has another lora_dropout than the driver, in {_package()}: install "
                "the same on every machine, and start again if it was changed meanwhile"
            )
        return self.compute(cell)


def _raise(cells: Sequence[Cell], failures: Sequence[tuple[int, Failure]]) -> None:
    index, first = min(failures, key=lambda failure: failure[0])
    error = RuntimeError(
        f"{len(failures)} of {len(cells)} cells failed, the others are kept; "
        f"first {json.dumps(cells[index], sort_keys=True)}: {first.summary}"
    )
    error.add_note(first.details)
    raise error


def _package() -> Path:
    return Path(lora_dropout.__file__).parent
