"""LoRA and AdaLoRA with and without LoRA Dropout on digits: the runs that several figures share."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from paper_figures.digits_runs import make_cell, pretrained, run_cell
from paper_figures.figure import Context
from paper_figures.statistics import mean_interval

DROPOUT = 0.5  # the paper's rate
Run = dict[str, Any]
SETTING = (
    "Digits: a transformer pretrained on 700 upright scans, fine-tuned on 64 scans turned by a "
    "quarter, tested on 500; learning rate tuned per method on validation sets; p = 0.5, N = 4, "
    "rank 8"
)


class Method(NamedTuple):
    """A line of the table: an adapter with or without LoRA Dropout."""

    adapter: str
    dropout: float

    @property
    def label(self) -> str:
        """Name in figures."""
        name = {"lora": "LoRA", "adalora": "AdaLoRA"}[self.adapter]
        return f"{name} + LoRA Dropout" if self.dropout else name


METHODS = tuple(Method(a, p) for a in ("lora", "adalora") for p in (0.0, DROPOUT))


def tuned_runs(context: Context) -> tuple[dict[Method, list[Run]], dict[Method, float]]:
    """Tune, then train one run a seed.

    Args:
        context: How much to train.

    Returns:
        Method -> its runs in the order of the seeds; method -> the rate of the lowest mean
        validation loss. Validation and test sets have no image in common.
    """
    training = context.training
    base = pretrained(context.store, epochs=training.pretraining_epochs)
    compute = partial(run_cell, base=base)
    common: dict[str, Any] = {"base": base, "epochs": training.epochs}
    keys = [(method, rate) for method in METHODS for rate in training.learning_rates]
    cells = [
        make_cell(**m._asdict(), learning_rate=rate, seed=seed, tuning=True, **common)
        for m, rate in keys
        for seed in training.tuning_seeds
    ]
    values = context.compute(compute, cells, title="learning rates")
    losses = np.array([value["history"][-1]["held_out_loss"] for value in values])
    losses = losses.reshape(len(METHODS), len(training.learning_rates), -1).mean(axis=-1)
    best = losses.argmin(axis=1)
    rates = {m: training.learning_rates[best[i]] for i, m in enumerate(METHODS)}
    cells = [
        make_cell(**m._asdict(), learning_rate=rates[m], seed=seed, tuning=False, **common)
        for m in METHODS
        for seed in training.seeds
    ]
    values = context.compute(compute, cells, title="training")
    n = len(training.seeds)
    return {m: values[i * n : (i + 1) * n] for i, m in enumerate(METHODS)}, rates


def differences(runs: dict[Method, list[Run]], adapter: str, metric: str) -> list[float]:
    """LoRA Dropout (its ensemble) minus the plain method, seed by seed.

    Args:
        runs: From `tuned_runs`.
        adapter: `lora` or `adalora`.
        metric: `gap`, `loss`, `accuracy` or `ece`.

    Returns:
        One difference a seed.
    """
    pairs = zip(runs[Method(adapter, 0.0)], runs[Method(adapter, DROPOUT)], strict=True)
    return [_measure(b, "ensemble", metric) - _measure(a, "mean", metric) for a, b in pairs]


def _measure(run: Run, inference: str, metric: str) -> float:
    return run["history"][-1]["gap"] if metric == "gap" else run["final"][inference][metric]


def compared(values: Sequence[float], *, better: int) -> tuple[str, str]:
    """Words for a mean difference.

    Args:
        values: One a seed.
        better: Sign of an improvement.

    Returns:
        (text with the 95 % interval, `better`, `WORSE` or `not resolved`).
    """
    mean, half = mean_interval(values)
    word = "not resolved"
    if abs(mean) > half:
        word = "better" if better * mean > 0 else "WORSE"
    return f"{mean:+.3f} ± {half:.3f} ({word})", word


def curves(runs: Sequence[Run], key: str) -> tuple[np.ndarray, np.ndarray]:
    """A recorded quantity over training.

    Args:
        runs: Runs of one method.
        key: Name in the history.

    Returns:
        (steps, values of shape (runs, steps)).
    """
    steps = np.array([record["step"] for record in runs[0]["history"]])
    return steps, np.array([[record[key] for record in run["history"]] for run in runs])


def history_rows(
    runs: dict[Method, list[Run]], seeds: Sequence[int], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """The recorded quantities as rows for a CSV file.

    Args:
        runs: From `tuned_runs`.
        seeds: Their seeds.
        keys: Names in the history.

    Returns:
        One row a run and record.
    """
    return [
        {"method": method.label, "seed": seed, **{key: record[key] for key in ("step", *keys)}}
        for method, results in runs.items()
        for seed, result in zip(seeds, results, strict=True)
        for record in result["history"]
    ]
