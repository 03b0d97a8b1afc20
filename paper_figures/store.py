"""Finished cells on disk: one JSON file a cell, written whole or not at all."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
from tqdm import tqdm

import lora_dropout
from lora_dropout.files import atomic_path

Cell = Mapping[str, Any]


class Store:
    """Results by the settings that made them.

    A cell's key covers its settings and the source of `lora_dropout` and of the figure, so that a
    result never outlives the code that made it.

    Args:
        folder: Where the files are.
        code: Source files of the figure.
    """

    def __init__(self, folder: str | Path, *, code: Sequence[str | Path] = ()) -> None:
        self.folder = Path(folder)
        package = Path(lora_dropout.__file__).parent
        self._code = _digest(sorted(package.rglob("*.py")) + [Path(file) for file in code])

    def path(self, cell: Cell) -> Path:
        """Where a cell's result is.

        Args:
            cell: Settings, representable in JSON.

        Returns:
            The path, whether or not it exists.
        """
        text = json.dumps([cell, self._code], sort_keys=True)
        return self.folder / f"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.json"

    def get(self, cell: Cell) -> Any | None:
        """Read a result.

        Args:
            cell: Settings.

        Returns:
            The value, or None if the cell is not finished.

        Raises:
            ValueError: If the file is damaged.
        """
        path = self.path(cell)
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text())["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged, remove it to compute it again: {error}"
            ) from error

    def put(self, cell: Cell, value: Any) -> None:
        """Keep a result.

        Args:
            cell: Settings.
            value: What was computed, representable in JSON.
        """
        with atomic_path(self.path(cell)) as path:
            path.write_text(json.dumps({"cell": cell, "value": value}))


def run_cells(
    compute: Callable[[Cell], Any],
    cells: Sequence[Cell],
    *,
    store: Store,
    jobs: int = 1,
    title: str = "",
) -> list[Any]:
    """Compute the cells that are not finished yet, each in a worker process.

    A worker keeps its result before it takes the next cell: a killed run loses at most the cells
    it was computing.

    Args:
        compute: Importable function, cell -> value representable in JSON.
        cells: What to compute.
        store: Where results are kept.
        jobs: Number of worker processes.
        title: Label of the progress bar.

    Returns:
        The values, in the order of `cells`.
    """
    missing = [cell for cell in cells if store.get(cell) is None]
    with tqdm(total=len(cells), initial=len(cells) - len(missing), desc=title, unit="run") as bar:
        tasks = (joblib.delayed(_compute_and_keep)(compute, cell, store) for cell in missing)
        for _ in joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks):
            bar.update()
    return [store.get(cell) for cell in cells]


def _compute_and_keep(compute: Callable[[Cell], Any], cell: Cell, store: Store) -> None:
    store.put(cell, compute(cell))


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
