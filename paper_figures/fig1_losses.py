"""Fig. 1: losses while fine-tuning LoRA and AdaLoRA, with and without LoRA Dropout."""

import csv
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt

from lora_dropout.engines import Engine
from lora_dropout.files import atomic_path
from lora_dropout.provenance import provenance
from lora_dropout.sweeps import Store, run_cells
from paper_figures import digits_runs
from paper_figures.digits_runs import make_cell, pretrained, run_cell
from paper_figures.statistics import mean_interval
from paper_figures.style import BLUE, RED, save_figure, use_style

DROPOUT = 0.5  # the paper's rate


class Method(NamedTuple):
    """A line of the table: an adapter with or without LoRA Dropout."""

    adapter: str
    dropout: float

    @property
    def label(self) -> str:
        """Name in the figure."""
        name = {"lora": "LoRA", "adalora": "AdaLoRA"}[self.adapter]
        return f"{name} + LoRA Dropout" if self.dropout else name


METHODS = tuple(Method(a, p) for a in ("lora", "adalora") for p in (0.0, DROPOUT))


class Settings(NamedTuple):
    """How much to compute."""

    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    tuning_seeds: tuple[int, ...] = (100, 101, 102)
    seeds: tuple[int, ...] = tuple(range(10))
    epochs: int = 60
    pretraining_epochs: int = 40


def run(
    out: Path,
    *,
    settings: Settings | None = None,
    jobs: int | None = None,
    engine: Engine = "local",
) -> list[Path]:
    """Tune, train, draw and tabulate.

    Args:
        out: Folder of figures, tables and (in `cells/`) finished runs.
        settings: How much to compute; None is the default.
        jobs: Runs at a time; None takes all processors.
        engine: Where they run, see `run_cells`.

    Returns:
        The files written.
    """
    settings = settings or Settings()
    store = Store(out / "cells", code=[digits_runs.__file__])
    base = pretrained(store, epochs=settings.pretraining_epochs)
    rates = tune(store, base, settings, jobs, engine)
    keys = [(method, seed) for method in METHODS for seed in settings.seeds]
    cells = [
        make_cell(
            base=base,
            adapter=method.adapter,
            dropout=method.dropout,
            learning_rate=rates[method],
            seed=seed,
            epochs=settings.epochs,
            tuning=False,
        )
        for method, seed in keys
    ]
    compute = partial(run_cell, base=base)
    values = run_cells(
        compute, cells, store=store, jobs=jobs, engine=engine, title="fig1: training"
    )
    runs: dict[Method, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for (method, _), value in zip(keys, values, strict=True):
        runs[method].append(value)
    table = tabulate(runs, rates)
    stem = out / "fig1_losses"
    files = draw(runs, stem)
    files.append(_write_csv(stem.with_suffix(".csv"), _curve_rows(runs, settings.seeds)))
    files.append(_write_csv(out / "fig1_table.csv", table))
    caption = stem.with_suffix(".md")
    with atomic_path(caption) as path:
        path.write_text(caption_text(runs, rates, settings) + "\n")
    origin = stem.with_suffix(".provenance.json")
    with atomic_path(origin) as path:
        path.write_text(json.dumps({**provenance(), "settings": settings._asdict()}, indent=2))
    print(format_table(table))
    print(caption_text(runs, rates, settings))
    return [*files, caption, origin]


def tune(
    store: Store, base: bytes, settings: Settings, jobs: int | None, engine: Engine
) -> dict[Method, float]:
    """Choose a learning rate for each method on validation sets that share nothing with the test.

    Args:
        store: Where runs are kept.
        base: Weights of the pretrained model.
        settings: Rates and seeds to try.
        jobs: Runs at a time; None takes all processors.
        engine: Where they run, see `run_cells`.

    Returns:
        Method -> the rate of the lowest mean validation loss at the end of training.
    """
    keys = [(m, rate) for m in METHODS for rate in settings.learning_rates]
    cells = [
        make_cell(
            base=base,
            adapter=method.adapter,
            dropout=method.dropout,
            learning_rate=rate,
            seed=seed,
            epochs=settings.epochs,
            tuning=True,
        )
        for method, rate in keys
        for seed in settings.tuning_seeds
    ]
    compute = partial(run_cell, base=base)
    values = run_cells(
        compute, cells, store=store, jobs=jobs, engine=engine, title="fig1: learning rates"
    )
    losses = np.array([value["history"][-1]["held_out_loss"] for value in values])
    losses = losses.reshape(len(METHODS), len(settings.learning_rates), -1).mean(axis=-1)
    best = losses.argmin(axis=1)
    return {method: settings.learning_rates[best[index]] for index, method in enumerate(METHODS)}


def draw(runs: dict[Method, list[dict[str, Any]]], stem: Path) -> list[Path]:
    """Draw the losses over steps, one panel an adapter.

    Args:
        runs: Method -> one run a seed.
        stem: Path of the picture without ending.

    Returns:
        The files written.
    """
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.1), sharey=True, layout="constrained")
    for axis, adapter in zip(axes, ("lora", "adalora"), strict=True):
        for method in METHODS:
            if method.adapter != adapter:
                continue
            color = RED if method.dropout else BLUE
            for split, line in (("train", "--"), ("held_out", "-")):
                steps, curves = _curves(runs[method], f"{split}_loss")
                bands = np.array([mean_interval(column) for column in curves.T])
                name = "test" if split == "held_out" else "training"
                label = f"{'with' if method.dropout else 'without'} LoRA Dropout, {name}"
                axis.plot(steps, bands[:, 0], line, color=color, label=label)
                low, high = bands[:, 0] - bands[:, 1], bands[:, 0] + bands[:, 1]
                axis.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        # The untrained model's loss, far above, would flatten what matters: the gap at the end.
        axis.set_ylim(0.0, 2.5)
        axis.set_xlabel("training step")
        axis.set_title({"lora": "LoRA", "adalora": "AdaLoRA"}[adapter])
    axes[0].set_ylabel("cross-entropy (nats)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    files = save_figure(figure, stem)
    plt.close(figure)
    return files


def tabulate(
    runs: dict[Method, list[dict[str, Any]]], rates: dict[Method, float]
) -> list[dict[str, Any]]:
    """Summarise the final models.

    Args:
        runs: Method -> one run a seed.
        rates: Method -> learning rate.

    Returns:
        One row for each method and way to predict; means with half-widths (`_pm`) of 95 % t
        intervals over seeds. The gap compares test and training loss under one way to predict, so
        it is given for the method's own alone.
    """
    rows = []
    for method, results in runs.items():
        own = "ensemble" if method.dropout else "mean"
        for mode in results[0]["final"]:
            row: dict[str, Any] = {
                "method": method.label,
                "inference": "plain" if not method.dropout else mode,
                "learning_rate": rates[method],
                "seeds": len(results),
            }
            for metric in ("accuracy", "loss", "ece"):
                values = [result["final"][mode][metric] for result in results]
                row[f"test_{metric}"], row[f"test_{metric}_pm"] = mean_interval(values)
            if mode == own:
                gaps = [result["history"][-1]["gap"] for result in results]
                row["gap"], row["gap_pm"] = mean_interval(gaps)
            rows.append(row)
    return rows


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the table out for a terminal.

    Args:
        rows: From `tabulate`.

    Returns:
        Several lines.
    """

    def cell(row: dict[str, Any], key: str, width: int) -> str:
        if key not in row:
            return "-".rjust(width)
        return f"{row[key]:.3f} ±{row[key + '_pm']:.3f}".rjust(width)

    lines = [
        f"{'method':24}{'inference':>10}{'rate':>8}"
        + "".join(f"{name:>16}" for name in ("accuracy", "test loss", "gap", "ECE"))
    ]
    for row in rows:
        metrics = ("test_accuracy", "test_loss", "gap", "test_ece")
        lines.append(
            f"{row['method']:24}{row['inference']:>10}{row['learning_rate']:>8g}"
            + "".join(cell(row, key, 16) for key in metrics)
        )
    return "\n".join(lines)


def caption_text(
    runs: dict[Method, list[dict[str, Any]]], rates: dict[Method, float], settings: Settings
) -> str:
    """Say what is shown, and whether the paper's claim is seen in it.

    Args:
        runs: Method -> one run a seed.
        rates: Method -> learning rate.
        settings: What was computed.

    Returns:
        A paragraph. Differences are paired by seed (same data, initial factors and order).
    """
    parts = [
        "Training (dashed) and test (solid) loss on the digits task: a transformer pretrained on "
        "700 upright scans, fine-tuned on 64 scans turned by a quarter, tested on 500. "
        f"Mean over {len(settings.seeds)} seeds, bands are 95 % t intervals; learning rate tuned "
        f"per method on validation sets; p = {DROPOUT}, N = 4, rank 8."
    ]
    for adapter in ("lora", "adalora"):
        plain, dropped = Method(adapter, 0.0), Method(adapter, DROPOUT)
        findings = []
        for name, sign in (("gap", -1), ("loss", -1), ("accuracy", 1), ("ece", -1)):
            differences = [
                _measure(b, dropped, name) - _measure(a, plain, name)
                for a, b in zip(runs[plain], runs[dropped], strict=True)
            ]
            mean, half = mean_interval(differences)
            verdict = "not resolved"
            if abs(mean) > half:
                verdict = "better" if sign * mean > 0 else "WORSE"
            title = "gap" if name == "gap" else f"test {name}"
            findings.append(f"{title} {mean:+.3f} ± {half:.3f} ({verdict})")
        parts.append(f"{dropped.label} minus {plain.label}: {', '.join(findings)}.")
    edges = {min(settings.learning_rates), max(settings.learning_rates)}
    for method in METHODS:
        if rates[method] in edges:
            parts.append(f"The rate of {method.label}, {rates[method]:g}, is at the grid's edge.")
    return " ".join(parts)


def _measure(run: dict[str, Any], method: Method, name: str) -> float:
    if name == "gap":
        return run["history"][-1]["gap"]
    return run["final"]["ensemble" if method.dropout else "mean"][name]


def _curves(runs: Sequence[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    steps = np.array([record["step"] for record in runs[0]["history"]])
    return steps, np.array([[record[key] for record in run["history"]] for run in runs])


def _curve_rows(
    runs: dict[Method, list[dict[str, Any]]], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    return [
        {"method": method.label, "seed": seed, **record}
        for method, results in runs.items()
        for seed, result in zip(seeds, results, strict=True)
        for record in result["history"]
    ]


def _write_csv(target: Path, rows: Sequence[dict[str, Any]]) -> Path:
    fields = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(target) as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    return target
