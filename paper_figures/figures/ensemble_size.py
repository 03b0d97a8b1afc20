"""Loss and calibration of the ensemble against its size, with the exact V/N line."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from lora_bounds import ensemble_loss
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.measurements_on_file import measured
from paper_figures.press.statistics import mean_interval
from paper_figures.press.style import BLUE, GREEN, ORANGE, RED

OUTPUTS, INPUTS, EXAMPLES, RATE, ENSEMBLES = 3, 6, 40, 0.5, 400
SIZES = (1, 2, 4, 8, 16, 32)


def draw(context: Context) -> Drawing:
    """Draw loss and calibration error over N.

    Args:
        context: Not used: drawn from masks, or from measurements on file.

    Returns:
        The drawing.
    """
    del context
    seen = measured("digits_ensemble")
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
    rows, worst = _squared(axes[0])
    sizes = seen.settings["sizes"]
    for rate, color in ((0.2, ORANGE), (0.5, RED)):
        at = seen.settings["rates"].index(rate)
        for axis, metric, single in (
            (axes[1], "loss_probabilities", "mean_loss"),
            (axes[2], "ece", "mean_ece"),
        ):
            bands = np.array([mean_interval(column) for column in seen.array(metric)[at].T])
            axis.errorbar(sizes, bands[:, 0], yerr=bands[:, 1], color=color, marker="o", ms=3,
                          capsize=2, label=f"ensemble, p = {rate:g}")  # fmt: skip
            level, half = mean_interval(seen.array(single)[at])
            axis.axhline(level, color=color, linestyle="--", linewidth=1,
                         label=f"mean network, p = {rate:g}")  # fmt: skip
            rows += [
                {"panel": metric, "p": rate, "N": n, "value": m, "pm": h}
                for n, (m, h) in zip(sizes, bands.tolist(), strict=True)
            ]
            rows.append({"panel": single, "p": rate, "value": level, "pm": half})
    for axis, single in ((axes[1], "mean_loss"), (axes[2], "mean_ece")):
        level, half = mean_interval(seen.array(single)[seen.settings["rates"].index(0.0)])
        axis.axhline(level, color=BLUE, linestyle=":", label="plain LoRA")
        rows.append({"panel": single, "p": 0.0, "value": level, "pm": half})
        axis.set_xscale("log", base=2)
        axis.set_xlabel("ensemble size N")
    axes[1].set_ylabel("test loss (nats)")
    axes[2].set_ylabel("expected calibration error, test")
    axes[1].legend(fontsize=7)
    at = seen.settings["rates"].index(0.5)
    against_mean = seen.array("mean_loss")[at] - seen.array("loss_probabilities")[at][:, -1]
    mean, half = mean_interval(against_mean)
    best = sizes[int(seen.array("ece")[at].mean(axis=0).argmin())]
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            f"Left: squared loss of a masked linear layer; points are means over {ENSEMBLES} "
            "ensembles with 95 % intervals, the line is loss of the mean output plus V/N, exact "
            f"(largest deviation {worst:.1f} standard errors). Middle and right: digits, "
            f"{seen.settings['seeds']} runs, 95 % t intervals. The loss falls with N; at p = 0.5 "
            f"the mean network's loss minus that of the ensemble of {sizes[-1]} is {mean:+.3f} ± "
            f"{half:.3f}. The calibration error is least at N = {best} and need not "
            "fall with N: an "
            "average of more members is less confident, which helps only as far as they were "
            "overconfident."
        ),
        verdict="not in the paper",
    )


def _squared(axis: Any) -> tuple[list[dict[str, Any]], float]:
    rng = np.random.default_rng(0)
    update = rng.standard_normal((OUTPUTS, INPUTS))
    x = rng.standard_normal((EXAMPLES, INPUTS))
    y = x @ update.T * (1 - RATE) ** 2 + 0.5 * rng.standard_normal((EXAMPLES, OUTPUTS))
    keep = 1.0 - RATE
    mean = keep**2 * x @ update.T
    infinite = float(np.mean(np.sum((mean - y) ** 2, axis=1)))
    # E norm(member - mean)^2 with rows and columns kept independently.
    products = x[:, None, :] * update[None]
    second = keep * (keep**2 * products.sum(axis=2) ** 2 + keep * RATE * (products**2).sum(axis=2))
    variance = float(np.mean(np.sum(second - mean**2, axis=1)))
    rows, points, deviations = [], [], []
    for size in SIZES:
        found = []
        for _ in range(ENSEMBLES):
            row = rng.random((size, OUTPUTS)) < keep
            column = rng.random((size, INPUTS)) < keep
            masked = np.einsum("ni,oi,no->noi", column, update, row).mean(axis=0)
            found.append(float(np.mean(np.sum((x @ masked.T - y) ** 2, axis=1))))
        level, half = mean_interval(found)
        exact = float(ensemble_loss(infinite_loss=infinite, variance=variance, n_instances=size))
        points.append((level, half))
        deviations.append(abs(level - exact) / (np.std(found) / len(found) ** 0.5))
        rows.append({"panel": "squared", "N": size, "value": level, "pm": half, "exact": exact})
    bands = np.array(points)
    smooth = np.logspace(0, np.log10(SIZES[-1]), 60)
    axis.plot(smooth, infinite + variance / smooth, color=GREEN, label="loss(mean) + V/N")
    axis.errorbar(SIZES, bands[:, 0], yerr=bands[:, 1], fmt="k.", capsize=2, label="drawn masks")
    axis.axhline(infinite, color=GREEN, linestyle=":")
    axis.set_xscale("log", base=2)
    axis.set_xlabel("ensemble size N")
    axis.set_ylabel("squared loss")
    axis.legend()
    return rows, float(max(deviations))


FIGURE = PaperFigure("ensemble_size", "Loss and calibration against the ensemble's size", draw)
