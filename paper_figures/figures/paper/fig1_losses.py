"""Fig. 1: losses while fine-tuning LoRA and AdaLoRA, with and without LoRA Dropout."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from paper_figures.experiments.tuned_runs import (
    METHODS,
    SETTING,
    Method,
    Run,
    curves,
    differences,
    history_rows,
    steady,
    tuned_runs,
)
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import Verdict, compared, judge, mean_interval, together
from paper_figures.press.style import BLUE, RED

_BETTER = {"gap": -1, "loss": -1, "accuracy": 1, "ece": -1}


def draw(context: Context) -> Drawing:
    """Draw the losses over steps, one panel an adapter.

    Args:
        context: How much to train.

    Returns:
        The drawing.
    """
    runs, rates = tuned_runs(context)
    keys = ("train_loss", "held_out_loss", "gap")
    caption, _ = conclude(runs, context)
    verdict, why = steady(context, lambda found: conclude(found, context)[1])
    return Drawing(
        figure=picture(runs),
        rows=history_rows(runs, context.training.seeds, keys),
        caption=f"{caption} {why}",
        verdict=verdict,
        table=tabulate(runs, rates),
    )


def picture(runs: dict[Method, list[Run]]) -> Figure:
    """The losses over steps.

    Args:
        runs: Method -> one run a seed.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.1), sharey=True, layout="constrained")
    for axis, adapter in zip(axes, ("lora", "adalora"), strict=True):
        for method in (m for m in METHODS if m.adapter == adapter):
            color = RED if method.dropout else BLUE
            for split, line in (("train", "--"), ("held_out", "-")):
                steps, values = curves(runs[method], f"{split}_loss")
                bands = np.array([mean_interval(column) for column in values.T])
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
    return figure


def tabulate(runs: dict[Method, list[Run]], rates: dict[Method, float]) -> list[dict[str, Any]]:
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
                "inference": "plain" if mode == "mean" and not method.dropout else mode,
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


def conclude(runs: dict[Method, list[Run]], context: Context) -> tuple[str, Verdict]:
    """Say what is shown, and whether the paper's claim is seen in it.

    Args:
        runs: Method -> one run a seed.
        context: What was computed.

    Returns:
        (caption, verdict on: with LoRA Dropout the gap is smaller and the test loss lower).
    """
    tests = 2 * len(_BETTER)
    parts = [
        "Training (dashed) and test (solid) loss. "
        f"{SETTING}. Mean over {len(context.training.seeds)} seeds, bands are 95 % t intervals; "
        f"differences are paired by seed. {together(tests)}."
    ]
    words = []
    for adapter in ("lora", "adalora"):
        found = []
        for metric, better in _BETTER.items():
            text, word = compared(differences(runs, adapter, metric), better=better, tests=tests)
            found.append(f"{'gap' if metric == 'gap' else f'test {metric}'} {text}")
            words += [word] if metric in ("gap", "loss") else []
        name = {"lora": "LoRA", "adalora": "AdaLoRA"}[adapter]
        parts.append(f"{name} with minus without LoRA Dropout: {', '.join(found)}.")
    return " ".join(parts), judge(words)


FIGURE = PaperFigure("fig1_losses", "Fig. 1: losses while training", draw)
