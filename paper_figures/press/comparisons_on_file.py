"""Results of `lora-dropout compare` on file: what the profiles `lm` and `paper` draw from."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paper_figures.press.figure import Context, Missing

FOLDER = Path(__file__).parents[1] / "results"
COMMANDS = {
    "lm": "lora-dropout compare --model sentence-transformers/all-MiniLM-L6-v2 --task {task} "
    "--n-train 400 --max-length 64 --mode grouped --no-rescale --output OUT",
    "paper": "lora-dropout compare --model microsoft/deberta-v3-base --task {task} --output OUT",
}
Runs = list[dict[str, Any]]


def compared_runs(context: Context, tasks: Sequence[str]) -> dict[str, Runs]:
    """Read the runs of each task that was compared.

    Args:
        context: The profile.
        tasks: Names of tasks.

    Returns:
        Task -> one row a run, way to predict and split.

    Raises:
        Missing: If there is none.
    """
    found = {}
    for task in tasks:
        file = FOLDER / context.profile / task / "compare.csv"
        if file.is_file():
            with open(file, newline="") as lines:
                found[task] = [_numbers(row) for row in csv.DictReader(lines)]
    if not found:
        command = COMMANDS[context.profile].format(task=tasks[0])
        raise Missing(
            f"no results of {', '.join(tasks)} on file; make them by `{command}` and put OUT's "
            f"compare.csv into paper_figures/results/{context.profile}/TASK/"
        )
    return found


def describe(context: Context, task: str) -> str:
    """Model and size of a comparison, in words.

    Args:
        context: The profile.
        task: Name of a task.

    Returns:
        A phrase; empty if the comparison's JSON is not on file.
    """
    file = FOLDER / context.profile / task / "compare.json"
    if not file.is_file():
        return ""
    settings = json.loads(file.read_text())["settings"]
    size = settings["n_train"]
    rate = ", ".join(f"{p:g}" for p in settings["dropout"])
    examples = "all training examples" if size is None else f"{size} training examples"
    return f"{Path(settings['model']).name}, {examples}, p = {rate}, N = {settings['instances']}"


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    return {key: value(text) for key, text in row.items() if text}
