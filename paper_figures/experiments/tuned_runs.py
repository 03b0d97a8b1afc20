"""LoRA and AdaLoRA with and without LoRA Dropout on digits: the runs that several figures share."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from paper_figures.experiments.digits_runs import make_cell, pretrained, run_cell
from paper_figures.press.figure import Context
from paper_figures.press.statistics import Verdict, compared, judge

DROPOUT = 0.5  # the paper's rate
NUDGE = 1e-7  # about one unit in the last place of float32
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
        Method -> its runs in the order of the seeds; method -> the rate whose mean validation loss
        is below that of both its neighbours. Validation and test sets have no image in common.
    """
    base = pretrained(context.store, epochs=context.training.pretraining_epochs)
    rates = _tuned(context, base)
    return _trained(context, base, rates), rates


def steady(
    context: Context, decide: Callable[[dict[Method, list[Run]]], Verdict]
) -> tuple[Verdict, str]:
    """A verdict that hangs neither on the pretrained weights' last bits nor on the grid's end.

    The pretrained weights are changed by `NUDGE` at random, and rates (between the best and its
    better neighbour) and runs are tuned and trained anew.

    Args:
        context: How much to train.
        decide: Runs of `tuned_runs` -> verdict; of their histories it sees the last record only.

    Returns:
        (verdict, `not resolved` where it does not survive; a sentence for the caption).
    """
    base = pretrained(context.store, epochs=context.training.pretraining_epochs)
    rates = _tuned(context, base)
    first = decide(_trained(context, base, rates))
    grid = context.training.learning_rates
    edges = [m.label for m in METHODS if rates[m] in (min(grid), max(grid))]
    if edges:
        return "not resolved", f"The rate of {', '.join(edges)} is at the grid's edge."
    again = _tuned(context, base, nudge=NUDGE)
    second = decide(_trained(context, base, again, nudge=NUDGE))
    verdict, why = survives(first, second)
    moved = [m.label for m in METHODS if again[m] != rates[m]]
    return verdict, why + (f" Then the rate of {', '.join(moved)} is another." if moved else "")


def survives(first: Verdict, second: Verdict) -> tuple[Verdict, str]:
    """Keep a verdict that a change of the last bits leaves alone.

    Args:
        first: The verdict.
        second: That with the pretrained weights changed by `NUDGE`.

    Returns:
        (verdict, `not resolved` if they differ; a sentence for the caption).
    """
    how = f"With the pretrained weights changed by {NUDGE:g} and all trained anew"
    if second != first:
        return "not resolved", f"{how} the verdict would be {second!r} in place of {first!r}."
    return first, f"{how} the verdict is the same."


def _tuned(context: Context, base: bytes, *, nudge: float = 0.0) -> dict[Method, float]:
    """Returns for each method the rate at which the mean validation loss is least.

    From the middle three of the grid (nudged: from the unchanged weights' two best) outwards, until
    the best has been tried with both neighbours.
    """
    grid, seeds = sorted(context.training.learning_rates), context.training.tuning_seeds
    compute = partial(run_cell, base=base)

    def measure(wanted: list[tuple[Method, int]], change: float) -> list[float]:
        cells = [
            make_cell(
                **m._asdict(), base=base, epochs=context.training.epochs, learning_rate=grid[i],
                seed=seed, tuning=True, nudge=change,
            )
            for m, i in wanted
            for seed in seeds
        ]  # fmt: skip
        values = context.compute(compute, cells, title="learning rates")
        found = [value["history"][-1]["held_out_loss"] for value in values]
        losses = [np.inf if loss is None else loss for loss in found]  # None: it diverged
        return np.reshape(losses, (len(wanted), len(seeds))).mean(axis=1).tolist()

    middle = len(grid) // 2
    start = [i for i in (middle - 1, middle, middle + 1) if 0 <= i < len(grid)]
    losses: dict[Method, dict[int, float]] = {m: {} for m in METHODS}
    wanted = [(m, i) for m in METHODS for i in start]
    while wanted:
        for (m, i), loss in zip(wanted, measure(wanted, 0.0), strict=True):
            losses[m][i] = loss
        wanted = [
            (m, i)
            for m, found in losses.items()
            for best in [min(found, key=found.__getitem__)]
            for i in (best - 1, best + 1)
            if 0 <= i < len(grid) and i not in found
        ]
    if nudge:
        pairs = {}
        for m, found in losses.items():
            best = min(found, key=found.__getitem__)
            beside = [i for i in (best - 1, best + 1) if i in found]
            pairs[m] = [best, min(beside, key=found.__getitem__)] if beside else [best]
        wanted = [(m, i) for m, pair in pairs.items() for i in pair]
        losses = {m: {} for m in METHODS}
        for (m, i), loss in zip(wanted, measure(wanted, nudge), strict=True):
            losses[m][i] = loss
    return {m: grid[min(found, key=found.__getitem__)] for m, found in losses.items()}


def _trained(
    context: Context, base: bytes, rates: dict[Method, float], *, nudge: float = 0.0
) -> dict[Method, list[Run]]:
    seeds = context.training.seeds
    cells = [
        make_cell(
            **m._asdict(), base=base, epochs=context.training.epochs, learning_rate=rates[m],
            seed=seed, tuning=False, nudge=nudge,
        )
        for m in METHODS
        for seed in seeds
    ]  # fmt: skip
    values = context.compute(partial(run_cell, base=base), cells, title="training")
    return {m: values[i * len(seeds) : (i + 1) * len(seeds)] for i, m in enumerate(METHODS)}


def calibration(runs: dict[Method, list[Run]]) -> tuple[dict[str, str], Verdict]:
    """Whether LoRA Dropout's ensemble is better calibrated than the plain method.

    Args:
        runs: From `tuned_runs`.

    Returns:
        (adapter -> text, verdict over both adapters).
    """
    found = {
        a: compared(differences(runs, a, "ece"), better=-1, tests=2) for a in ("lora", "adalora")
    }
    return {a: text for a, (text, _) in found.items()}, judge([word for _, word in found.values()])


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
