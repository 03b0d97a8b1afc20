"""Fig. 3: calibration error while fine-tuning, with and without LoRA Dropout."""

import numpy as np
from matplotlib import pyplot as plt

from paper_figures.experiments.tuned_runs import (
    METHODS,
    SETTING,
    calibration,
    curves,
    history_rows,
    steady,
    tuned_runs,
)
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import mean_interval, together
from paper_figures.press.style import BLUE, RED


def draw(context: Context) -> Drawing:
    """Draw the expected calibration error on test images over steps.

    Args:
        context: How much to train.

    Returns:
        The drawing.
    """
    runs, _ = tuned_runs(context)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for axis, adapter in zip(axes, ("lora", "adalora"), strict=True):
        for method in (m for m in METHODS if m.adapter == adapter):
            color = RED if method.dropout else BLUE
            steps, values = curves(runs[method], "held_out_ece")
            bands = np.array([mean_interval(column) for column in values.T])
            axis.plot(steps, bands[:, 0], color=color, label=method.label)
            low, high = bands[:, 0] - bands[:, 1], bands[:, 0] + bands[:, 1]
            axis.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        axis.set_xlabel("training step")
        axis.legend()
    axes[0].set_ylabel("expected calibration error, test")
    found, _ = calibration(runs)
    verdict, why = steady(context, lambda runs: calibration(runs)[1])
    return Drawing(
        figure=figure,
        rows=history_rows(runs, context.training.seeds, ("held_out_ece",)),
        caption=(
            f"Expected calibration error (15 bins of equal width) on the test images. {SETTING}. "
            f"Mean over {len(context.training.seeds)} seeds, bands are 95 % t intervals; LoRA "
            "Dropout predicts as an ensemble of 4. At the end, with minus without LoRA Dropout: "
            f"LoRA {found['lora']}, AdaLoRA {found['adalora']}. {together(2)}. {why}"
        ),
        verdict=verdict,
    )


FIGURE = PaperFigure("fig3_calibration", "Fig. 3: calibration while training", draw)
