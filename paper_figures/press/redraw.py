"""Draw a recorded figure again, from new runs, and compare every number."""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lora_dropout.door import short
from lora_dropout.runs.differences import read_result, recorded_threads, report
from lora_dropout.runs.engines import Engine
from paper_figures.press.figure import Context, Missing, Training, render
from paper_figures.press.registry import figures


def replay(path: Path, *, out: Path | None, jobs: int | None, engine: Engine) -> int:
    """Compute and draw a figure again; print what differs.

    Args:
        path: The figure's JSON file, its CSV files beside it.
        out: Folder of the repetition, in which a stopped one goes on; None is a temporary one.
        jobs: Runs at a time; None takes all processors.
        engine: Where they run, see `run_cells`.

    Returns:
        Exit status: 0 if all numbers and the verdict are the same, else 1.

    Raises:
        ValueError: If a file is missing or damaged, or describes no figure that there is.
    """
    recorded = _read(path)
    figure = figures().get(path.stem)
    if figure is None:
        raise ValueError(f"--replay: {path} is named after no figure; there are {[*figures()]}")
    if recorded.get("profile") not in figure.profiles:
        raise ValueError(
            f"--replay: {path} is damaged: profile must be one of {figure.profiles}, got "
            f"{short(recorded.get('profile'))}"
        )
    training = _training(path, recorded["training"])
    if out is not None and out.resolve() == path.parent.resolve():
        raise ValueError(f"--out must be another folder than the record's, got {out}")
    with TemporaryDirectory() as temporary, recorded_threads(recorded):
        folder = Path(temporary) if out is None else out
        context = Context(folder, recorded["profile"], training, jobs, engine)
        try:
            render(figure, context)
        except Missing as reason:
            raise ValueError(f"--replay: {path} cannot be drawn again: {reason}") from reason
        return report(path, recorded, _read(folder / path.name))


def _read(path: Path) -> dict[str, Any]:
    content = read_result(path, "training")
    tables = {"rows": path.with_suffix(".csv"), "table": path.with_name(f"{path.stem}_table.csv")}
    for name, file in tables.items():
        if name == "rows" or file.is_file():
            try:
                with open(file, newline="", encoding="utf-8") as lines:
                    content[name] = [_numbers(row) for row in csv.DictReader(lines)]
            except (OSError, ValueError, csv.Error) as error:
                raise ValueError(f"--replay: cannot read {file}: {error}") from error
    return content


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    def number(text: Any) -> Any:
        try:
            return float(text)
        except (ValueError, TypeError):  # a name, or what an odd line has too much or too little
            return text

    return {str(key): number(value) for key, value in row.items()}


def _training(path: Path, recorded: dict[str, Any]) -> Training:
    kinds = Training.__annotations__
    for name, value in recorded.items():
        many = name in kinds and "tuple" in str(kinds[name])
        values = value if many and isinstance(value, list) else [value]
        kind = (int, float) if name == "learning_rates" else int
        if (
            name not in kinds
            or (many and not (isinstance(value, list) and value))
            or not all(isinstance(v, kind) and not isinstance(v, bool) and v >= 0 for v in values)
        ):
            raise ValueError(
                f"--replay: {path} is damaged: training has {short(str(name))}: {short(value)}"
            )
    tuples: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in recorded.items()
    }
    return Training()._replace(**tuples)
