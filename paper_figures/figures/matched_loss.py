"""Test loss at equal training loss: is it regularisation, or only slower fitting?"""

import numpy as np
from matplotlib import pyplot as plt

from lora_bounds.trial.familywise import each_level
from paper_figures.experiments.tuned_runs import (
    DROPOUT,
    SETTING,
    Method,
    Run,
    curves,
    history_rows,
    tuned_runs,
)
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import FAMILY, mean_interval, together
from paper_figures.press.style import BLUE, RED


def draw(context: Context) -> Drawing:
    """Draw test loss over training loss along each run.

    Args:
        context: How much to train.

    Returns:
        The drawing.
    """
    runs, _ = tuned_runs(context)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.9), sharey=True, layout="constrained")
    found = []
    for axis, adapter in zip(axes, ("lora", "adalora"), strict=True):
        pair = Method(adapter, 0.0), Method(adapter, DROPOUT)
        for method, color in zip(pair, (BLUE, RED), strict=True):
            train, test = (curves(runs[method], f"{s}_loss")[1] for s in ("train", "held_out"))
            for x, y in zip(train, test, strict=True):
                axis.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
            axis.plot(train.mean(0), test.mean(0), "o-", ms=3, color=color, label=method.label)
        axis.set_xscale("log")
        axis.set_ylim(0.5, 2.5)
        axis.set_xlabel("training loss (nats)")
        axis.legend()
        name = {"lora": "LoRA", "adalora": "AdaLoRA"}[adapter]
        level, values = _at_equal_training_loss(*(runs[m] for m in pair))
        mean, half = mean_interval(values, confidence=1 - each_level(FAMILY, 2))
        word = "not resolved"
        if abs(mean) > half:
            word = "a gain beyond slower fitting" if mean < 0 else "WORSE at equal training loss"
        found.append(
            f"{name}: {mean:+.3f} ± {half:.3f} nats at training losses around {level:.2f} ({word})"
        )
    axes[0].set_ylabel("test loss (nats)")
    return Drawing(
        figure=figure,
        rows=history_rows(runs, context.training.seeds, ("train_loss", "held_out_loss")),
        caption=(
            f"Each run as a path: test loss over training loss, under the method's own way to "
            f"predict. {SETTING}. Thin lines: {len(context.training.seeds)} seeds; thick: their "
            "mean. With minus without LoRA Dropout, at the training loss that LoRA Dropout ends "
            "with (the plain run read off where it passes there; paired by seed): "
            f"{'; '.join(found)}. {together(2)}."
        ),
        verdict="not in the paper",
    )


def _at_equal_training_loss(plain: list[Run], masked: list[Run]) -> tuple[float, list[float]]:
    levels, values = [], []
    for a, b in zip(plain, masked, strict=True):
        level = b["history"][-1]["train_loss"]
        train = np.array([record["train_loss"] for record in a["history"]])
        test = np.array([record["held_out_loss"] for record in a["history"]])
        first = int(np.argmax(train <= level)) if (train <= level).any() else len(train) - 1
        if first == 0 or train[first] > level:
            reached = test[first]
        else:
            share = (train[first - 1] - level) / (train[first - 1] - train[first])
            reached = test[first - 1] + share * (test[first] - test[first - 1])
        levels.append(level)
        values.append(b["history"][-1]["held_out_loss"] - float(reached))
    return float(np.mean(levels)), values


FIGURE = PaperFigure("matched_loss", "Test loss at equal training loss", draw)
