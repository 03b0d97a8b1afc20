"""What a figure is, what it may use, and how it becomes files."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lora_dropout.runs.engines import Engine
from lora_dropout.runs.store import Cell, Store, run_cells
from lora_dropout.runs.torch_provenance import provenance
from lora_dropout.safe_files import atomic_path
from paper_figures.experiments import digits_runs, replica_runs
from paper_figures.press.statistics import Verdict
from paper_figures.press.style import save_figure, use_style

Profile = Literal["quick", "lm", "paper"]
Row = Mapping[str, Any]


class Missing(Exception):
    """Results that a figure needs are not there: it is skipped, and says how to make them."""


class Training(NamedTuple):
    """How much the digits figures train.

    Tuning starts from the middle of the rates and trains with those further out as needed.
    """

    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    tuning_seeds: tuple[int, ...] = (100, 101, 102, 103)
    seeds: tuple[int, ...] = tuple(range(6))
    epochs: int = 60
    pretraining_epochs: int = 40


@dataclass(frozen=True)
class Context:
    """What a figure may use.

    Attributes:
        out: Folder of figures and (in `cells/`) of finished runs.
        profile: Which experiment.
        training: How much to train.
        jobs: Runs at a time; None takes all processors.
        engine: Where they run, see `run_cells`.
    """

    out: Path
    profile: Profile = "quick"
    training: Training = field(default_factory=Training)
    jobs: int | None = None
    engine: Engine = "local"

    @property
    def store(self) -> Store:
        """Where finished cells are."""
        return Store(self.out / "cells", code=[digits_runs.__file__, replica_runs.__file__])

    def compute(
        self, function: Callable[[Cell], Any], cells: Sequence[Cell], *, title: str
    ) -> list[Any]:
        """Compute the cells that are not finished yet.

        Args:
            function: Cell -> value, see `run_cells`.
            cells: What to compute.
            title: Label of the progress bar.

        Returns:
            The values, in the order of `cells`.
        """
        return run_cells(
            function, cells, store=self.store, jobs=self.jobs, engine=self.engine, title=title
        )


@dataclass(frozen=True)
class Drawing:
    """A figure with the data behind it.

    Attributes:
        figure: What to save.
        rows: Every number drawn.
        caption: What is shown, settings, sample sizes, and what it says of the paper's claim.
        verdict: That, in a word; computed from the numbers.
        table: A short table for the report, if any.
    """

    figure: Figure
    rows: Sequence[Row]
    caption: str
    verdict: Verdict
    table: Sequence[Row] = ()


@dataclass(frozen=True)
class PaperFigure:
    """One figure or table.

    Attributes:
        name: Name of its files.
        title: Headline of the report.
        draw: Computes and draws.
        profiles: Experiments in which it exists.
    """

    name: str
    title: str
    draw: Callable[[Context], Drawing]
    profiles: tuple[Profile, ...] = ("quick",)


def render(figure: PaperFigure, context: Context) -> list[Path]:
    """Compute, draw and write one figure.

    Args:
        figure: The figure.
        context: What it may use.

    Returns:
        The files written: PNG, PDF, CSV (all numbers drawn), table if any, and a JSON file with
        caption, verdict and provenance.

    Raises:
        ValueError: If it does not exist in this profile.
        Missing: If results that it needs are not there.
    """
    if context.profile not in figure.profiles:
        raise ValueError(f"{figure.name} has no profile {context.profile!r}: {figure.profiles}")
    use_style()
    drawing = figure.draw(context)
    stem = context.out / figure.name
    files = save_figure(drawing.figure, stem)
    plt.close(drawing.figure)
    files.append(write_csv(stem.with_suffix(".csv"), drawing.rows))
    if drawing.table:
        files.append(write_csv(stem.with_name(f"{stem.name}_table.csv"), drawing.table))
    content = {
        "title": figure.title,
        "verdict": drawing.verdict,
        "caption": drawing.caption,
        "profile": context.profile,
        "training": context.training._asdict(),
        "provenance": provenance(),
    }
    description = stem.with_suffix(".json")
    with atomic_path(description) as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    return [*files, description]


def write_csv(target: Path, rows: Sequence[Row]) -> Path:
    """Write rows as a CSV file.

    Args:
        target: The file.
        rows: Rows; a key that one of them lacks is left empty.

    Returns:
        The file.
    """
    fields = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(target) as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    return target
