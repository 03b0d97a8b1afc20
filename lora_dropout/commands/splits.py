"""The data of a run: read, without overlap, drawn by a seed."""

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from lora_dropout.commands.measuring import splits_to_measure
from lora_dropout.tasks.text import TextTask, check_rows, without_overlap


@dataclass(frozen=True)
class RunData:
    """Rows to train and to measure on.

    Attributes:
        train: Training rows, in the order of the files.
        dev: Splits to measure on.
        overlap: Training examples left out because a split to measure on has them.
    """

    train: Dataset
    dev: dict[str, Dataset]
    overlap: int


def load_run(task: TextTask, folder: Path | None, *, keep_overlap: bool) -> RunData:
    """Read the data of a run, and see that all of it is labelled.

    Args:
        task: The task.
        folder: Local data; None asks the hub.
        keep_overlap: Keep training examples that are also in a split to measure on.

    Returns:
        The data.

    Raises:
        ValueError: If there is no training data or none to measure on, or labels are missing.
    """
    splits = task.load(folder)
    if "train" not in splits:
        raise ValueError(f"--data: {task.name!r} has no train split, only {', '.join(splits)}")
    dev = {name: splits[name] for name in splits_to_measure(task, list(splits))}
    for name in ("train", *dev):
        task.check_labels(splits[name], task.source(folder, name))
    train = splits["train"]
    if not keep_overlap:
        train = without_overlap(train, dev, name=task.name)
    check_rows(f"{task.name} train", train)
    return RunData(train, dev, len(splits["train"]) - len(train))


def draw(rows: Dataset, size: int | None, *, seed: int) -> Dataset:
    """Draw examples.

    Args:
        rows: To draw from.
        size: How many; None takes all.
        seed: Of the draw.

    Returns:
        The examples.

    Raises:
        ValueError: If there are fewer.
    """
    if size is None:
        return rows
    if size > len(rows):
        raise ValueError(f"--n-train must be at most {len(rows)}, got {size}")
    return rows.shuffle(seed=seed).select(range(size))
