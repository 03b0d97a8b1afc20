"""What `compare` concludes: settings chosen, the table, the differences."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lora_dropout.commands.card import describe_process, write_json
from lora_dropout.commands.settings import CompareSettings
from lora_dropout.probes.intervals import student_slack
from lora_dropout.safe_files import atomic_path
from lora_dropout.tasks.catalogue import find_task

Candidate = dict[str, Any]

_NAMES = {
    ("lora", "plain"): "LoRA",
    ("dropout", "plain"): "LoRA + ordinary dropout",
    ("lora_dropout", "ensemble"): "LoRA Dropout, ensemble",
    ("lora_dropout", "mean"): "LoRA Dropout, mean",
    ("lora_dropout", "raw"): "LoRA Dropout, raw",
}
_CONFIDENCE = 0.95


def choose(
    settings: CompareSettings, tuning: Sequence[tuple[Candidate, Any]]
) -> dict[str, Candidate]:
    """The best candidate of each method on the validation set.

    Args:
        settings: Of the comparison.
        tuning: (candidate, what its run found), all seeds of a candidate together.

    Returns:
        Method -> candidate with the best mean score; the lower loss decides between equals.
    """
    score = find_task(settings.task).score
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = defaultdict(list)
    for candidate, value in tuning:
        metrics = next(iter(value["results"].values()))["validation"]
        loss = _or_worst(metrics["loss"], -1.0)
        main = loss if score == "loss" else -_or_worst(metrics[score], 1.0)
        found[tuple(candidate.values())].append((main, loss))
    best: dict[str, tuple[tuple[float, float], Candidate]] = {}
    for candidate, _ in tuning:
        pairs = found[tuple(candidate.values())]
        mean = (float(np.mean([m for m, _ in pairs])), float(np.mean([x for _, x in pairs])))
        method = candidate["method"]
        if method not in best or mean < best[method][0]:
            best[method] = (mean, candidate)
    return {method: candidate for method, (_, candidate) in best.items()}


def _or_worst(value: float | None, sign: float) -> float:
    # An undefined score or loss (a run that diverged) must never be the best.
    return -sign * math.inf if value is None else value


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of Student's t interval over seeds.

    Args:
        values: One a seed, at least two.

    Returns:
        (mean, half-width at 95 %), of normal independent values.
    """
    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean())
    if np.ptp(sample) == 0.0:
        return mean, 0.0
    return mean, student_slack(sample, _CONFIDENCE)


def rows_of(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One flat row for each run, way to predict, and split.

    Args:
        runs: What the cells found, with `method` and `seed`.

    Returns:
        Rows for the CSV file; `gap` is the loss of the split less that of the training data.
    """
    rows = []
    for run in runs:
        for way, splits in run["results"].items():
            for split, metrics in splits.items():
                if split == "train":
                    continue
                losses = metrics["loss"], splits["train"]["loss"]
                gap = None if None in losses else losses[0] - losses[1]
                rows.append(
                    {
                        "method": _NAMES[run["method"], way],
                        "seed": run["seed"],
                        "split": split,
                        **{k: v for k, v in metrics.items() if k not in ("seconds", "examples")},
                        "gap": gap,
                        "train_seconds": run["seconds"],
                        "predict_seconds_1000": 1000 * metrics["seconds"] / metrics["examples"],
                        "peak_mb": None if run["peak_bytes"] is None else run["peak_bytes"] / 1e6,
                    }
                )
    return rows


def write(
    settings: CompareSettings,
    tuning: Sequence[tuple[Candidate, Any]],
    chosen: Mapping[str, Candidate],
    runs: Sequence[Mapping[str, Any]],
) -> str:
    """Write compare.json, compare.csv and compare.md.

    Args:
        settings: Of the comparison.
        tuning: Candidates with what their runs found.
        chosen: Method -> candidate.
        runs: The reported runs.

    Returns:
        The Markdown, for the terminal.
    """
    rows = rows_of(runs)
    process = describe_process()
    text = markdown(settings, tuning, chosen, runs, rows)
    source = f"\n{process['command']}\n\ncommit {process['commit']}, {process['versions']}\n"
    with atomic_path(settings.output / "compare.md") as path:
        path.write_text(text + source, encoding="utf-8")
    with atomic_path(settings.output / "compare.csv") as path:
        buffer = io.StringIO()
        table = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        path.write_text(buffer.getvalue(), encoding="utf-8")
    write_json(
        settings.output / "compare.json",
        {
            "settings": asdict(settings),
            "local_model": Path(settings.model).is_dir(),
            "chosen": chosen,
            "tuning": [{**candidate, "found": value} for candidate, value in tuning],
            "rows": rows,
            "runs": runs,
            "provenance": process,
        },
    )
    return text


def markdown(
    settings: CompareSettings,
    tuning: Sequence[tuple[Candidate, Any]],
    chosen: Mapping[str, Candidate],
    runs: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """The table, the paired differences, and what went into them.

    Args:
        settings: Of the comparison.
        tuning: Candidates with what their runs found.
        chosen: Method -> candidate.
        runs: The reported runs.
        rows: From `rows_of`.

    Returns:
        Markdown.
    """
    task = find_task(settings.task)
    costs = ("train_seconds", "predict_seconds_1000", "peak_mb")
    skipped = ("method", "seed", "split", *costs)
    metrics = [key for key in rows[0] if key not in skipped]
    shown = [task.score, *(key for key in metrics if key != task.score)]
    first = runs[0]
    parts = [
        f"# {settings.task}: LoRA Dropout against LoRA",
        f"Mean ± half-width of the 95 % t interval over {settings.seeds} seeds; "
        f"{first['n_train']} training examples, {first['steps']} steps. Losses in nats.",
    ]
    for split in dict.fromkeys(row["split"] for row in rows):
        here = [row for row in rows if row["split"] == split]
        methods = list(dict.fromkeys(row["method"] for row in here))
        columns = {m: [row for row in here if row["method"] == m] for m in methods}
        parts.append(f"## {split}")
        parts.append(
            _table(
                ["method", *shown, "train s", "predict s / 1000", "peak MB"],
                [[m, *(_cell(columns[m], key) for key in (*shown, *costs))] for m in methods],
            )
        )
        plain = {row["seed"]: row for row in columns["LoRA"]}
        differences = [
            [m, *(_difference(columns[m], plain, key) for key in shown)] for m in methods[1:]
        ]
        parts.append(
            "Difference to LoRA, seed by seed; * where the interval leaves out 0 (of "
            f"{len(differences) * len(shown)} intervals about one in twenty does by chance)."
        )
        parts.append(_table(["method", *shown], differences))
    parts.append("## Settings")
    parts += _settings_lines(settings, tuning, chosen, first)
    return "\n\n".join(parts) + "\n"


def _settings_lines(
    settings: CompareSettings,
    tuning: Sequence[tuple[Candidate, Any]],
    chosen: Mapping[str, Candidate],
    first: Mapping[str, Any],
) -> list[str]:
    lines = []
    for method, best in chosen.items():
        name = {"lora": "LoRA", "dropout": "ordinary dropout", "lora_dropout": "LoRA Dropout"}[
            method
        ]
        tried = [c["learning_rate"] for c, _ in tuning if c["method"] == method]
        rate = "" if method == "lora" else f", rate {best['rate']:g}"
        edge = ""
        if len(set(tried)) > 1 and best["learning_rate"] in (min(tried), max(tried)):
            edge = " (at the edge of the grid: a wider one may do better)"
        lines.append(f"- {name}: learning rate {best['learning_rate']:g}{rate}{edge}")
    grid = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    lines.append(
        f"- chosen by {find_task(settings.task).score} (then loss) on {settings.n_validation} "
        f"training examples set aside, {settings.tune_seeds} seed(s), learning rates {grid}; LoRA "
        "Dropout by its ensemble. The table's split played no part."
    )
    lines.append(
        f"- {settings.adapter}, rank {settings.rank}, alpha {settings.alpha:g}; masks "
        f"{settings.mask}, N = {settings.instances} ({settings.mode}), ensemble of "
        f"{settings.eval_instances}, rescaling {'on' if settings.rescale else 'off (Eq. 3)'}"
    )
    lines.append(
        f"- gap: loss less that on up to 1000 training examples; {settings.jobs} run(s) at a time, "
        "which the seconds feel; peak memory of training: allocated on a GPU, else of the process"
    )
    cut = {k: v for k, v in first["share_truncated"].items() if v}
    if cut:
        lines.append("- truncated: " + ", ".join(f"{v:.1%} of {k}" for k, v in cut.items()))
    if first["overlap_left_out"]:
        lines.append(f"- left out: {first['overlap_left_out']} training examples that dev has too")
    return ["\n".join(lines)]


def _cell(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [row[key] for row in rows]
    if None in values:
        return f"undefined ({values.count(None)} of {len(values)})"
    mean, half = interval(values)
    return f"{mean:.4g} ± {half:.2g}"


def _difference(
    rows: Sequence[Mapping[str, Any]], plain: Mapping[int, Mapping[str, Any]], key: str
) -> str:
    pairs = [(row[key], plain[row["seed"]][key]) for row in rows]
    if any(None in pair for pair in pairs):
        return "undefined"
    mean, half = interval([a - b for a, b in pairs])
    return f"{mean:+.4f} ± {half:.4f}" + ("*" if abs(mean) > half else "")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)])
