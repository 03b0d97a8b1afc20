"""Fig. 5: the dropout rate p and the ensemble size N."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from lora_bounds.measurements import Measurement
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.measurements_on_file import measured
from paper_figures.press.statistics import Verdict, compared, judge, mean_interval, together
from paper_figures.press.style import BLUE, GREEN, RED


def draw(context: Context) -> Drawing:
    """Draw accuracy and loss over p and over N, from measurements on file.

    Args:
        context: Not used: nothing is trained.

    Returns:
        The drawing.
    """
    del context
    over_p, over_n = measured("digits_rates"), measured("digits_ensemble")
    rates, sizes = over_p.settings["rates"], over_n.settings["sizes"]
    at = over_n.settings["rates"].index(0.5)
    rows: list[dict[str, Any]] = []
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.2), layout="constrained")
    for axis, metric in zip(axes[:, 0], ("accuracy", "loss"), strict=True):
        for mode, color in (("ensemble", RED), ("mean", GREEN)):
            table = over_p.array(f"test_{metric}_{mode}")[0]
            label = "ensemble of 4" if mode == "ensemble" else "mean network"
            rows += _line(axis, rates, table, "p", f"{label}, {metric}", color, label)
        axis.set_ylabel(f"test {metric}")
        axis.set_xlabel("dropout rate p")
    for axis, metric, single in zip(
        axes[:, 1], ("accuracy", "loss_probabilities"), ("accuracy", "loss"), strict=True
    ):
        table = over_n.array(metric)[at]
        rows += _line(axis, sizes, table, "N", f"ensemble, {single}", RED, "ensemble, p = 0.5")
        for rate, color, name in ((at, GREEN, "mean network"), (0, BLUE, "plain LoRA")):
            level, half = mean_interval(over_n.array(f"mean_{single}")[rate])
            axis.axhline(level, color=color, linestyle="--", label=name)
            axis.axhspan(level - half, level + half, color=color, alpha=0.12, linewidth=0)
            rows.append({"over": "-", "what": f"{name}, {single}", "mean": level, "pm": half})
        axis.set_xscale("log", base=2)
        axis.set_xlabel("ensemble size N")
    axes[0, 0].legend()
    axes[0, 1].legend()
    text, verdict = conclude(over_p, over_n)
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            f"Left: over p (N = {over_p.settings['n_instances']} in training); right: over the "
            f"ensemble's size at p = 0.5. Digits, {over_p.settings['n']} training examples, "
            f"learning rate 0.01 throughout, {over_p.settings['seeds']} seeds, 95 % t intervals. "
            f"{text} {together(3)}. The paper "
            "trains with p = 0.5 and N = 4; its figure is of MRPC."
        ),
        verdict=verdict,
    )


def conclude(over_p: Measurement, over_n: Measurement) -> tuple[str, Verdict]:
    """Whether a rate above 0 and a larger ensemble are more accurate, and the panels agree.

    Args:
        over_p: `digits_rates`.
        over_n: `digits_ensemble`.

    Returns:
        (text, verdict on the first two).
    """
    rates, sizes = over_p.settings["rates"], over_n.settings["sizes"]
    accuracy = over_p.array("test_accuracy_ensemble")[0]
    best = 1 + int(accuracy[::2, 1:].mean(axis=0).argmax())  # of the rates above 0
    gain, gained = compared(list(accuracy[1::2, best] - accuracy[1::2, 0]), better=1, tests=3)
    of_size = over_n.array("accuracy")[over_n.settings["rates"].index(0.5)]
    growth, grown = compared(list(of_size[:, -1] - of_size[:, 0]), better=1, tests=3)
    text = (
        f"The p above 0 that is most accurate on the even seeds is {rates[best]:g}; on the odd "
        f"ones its accuracy minus that at p = 0 is {gain}. From one member to {sizes[-1]} accuracy "
        f"changes by {growth}."
    )
    left, right = accuracy[:, rates.index(0.5)], of_size[:, sizes.index(4)]
    apart, word = compared(list(left - right), better=1, tests=3)
    agree = "agree within the noise of masks" if word == "not resolved" else "DISAGREE"
    text += (
        f" At p = 0.5 and N = 4 the panels {agree}: {left.mean():.3f} and {right.mean():.3f}, "
        f"apart by {apart.split(' (')[0]}, each run with masks of its own in each."
    )
    return text, judge([gained, grown])


def _line(
    axis: Any, x: list[float], table: np.ndarray, over: str, what: str, color: str, label: str
) -> list[dict[str, Any]]:
    bands = np.array([mean_interval(column) for column in table.T])
    axis.errorbar(x, bands[:, 0], yerr=bands[:, 1], color=color, marker="o", ms=3, label=label)
    return [
        {"over": over, "value": v, "what": what, "mean": m, "pm": h}
        for v, (m, h) in zip(x, bands.tolist(), strict=True)
    ]


FIGURE = PaperFigure("fig5_rate_and_size", "Fig. 5: dropout rate and ensemble size", draw)
