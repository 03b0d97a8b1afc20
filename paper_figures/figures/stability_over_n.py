"""Leave-one-out stability against its bounds: exact in ridge, retrained on digits."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from lora_bounds import (
    measurements,
    paper_stability,
    self_consistent_stability,
    uniform_stability,
)
from paper_figures.experiments.exact_ridge import bounded_ridge
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import mean_interval
from paper_figures.press.style import BLUE, GREEN, GREY, ORANGE, RED

SIZES = tuple(int(n) for n in np.logspace(1, 3.5, 11))
DRAWS, RATE = 30, 0.5


def draw(context: Context) -> Drawing:
    """Draw stability over n.

    Args:
        context: Not used: exact, or from measurements on file.

    Returns:
        The drawing.
    """
    del context
    problem = bounded_ridge(regularization=1.0)
    exact = [float(problem.stability(n, RATE, DRAWS).mean()) for n in SIZES]
    common: dict[str, Any] = {
        "n": np.array(SIZES, float),
        "lipschitz": problem.lipschitz(RATE),
        "regularization": problem.regularization,
        "dropout": RATE,
    }
    bounds = {
        "Prop. 4.2 as printed": (paper_stability(curvature=0.0, **common), RED),
        "self-consistent slope": (
            self_consistent_stability(curvature=0.0, radius=problem.radius(RATE), **common),
            ORANGE,
        ),
        "uniform stability (repaired)": (uniform_stability(**common), GREEN),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    rows: list[dict[str, Any]] = [
        {"panel": "ridge", "n": n, "what": "exact", "value": value}
        for n, value in zip(SIZES, exact, strict=True)
    ]
    for name, (bound, color) in bounds.items():
        values = np.asarray(bound.value, float)
        axes[0].loglog(SIZES, values, color=color, label=name)
        rows += [
            {"panel": "ridge", "n": n, "what": name, "value": float(value)}
            for n, value in zip(SIZES, values, strict=True)
        ]
    axes[0].loglog(SIZES, exact, "k.-", label=f"exact, mean of {DRAWS} samples")
    axes[0].set_title("ridge, p = 0.5", fontsize=9)
    axes[0].set_ylabel("pointwise hypothesis stability")
    slope = float(np.polyfit(np.log(SIZES), np.log(exact), 1)[0])
    smallest = float(np.min(np.asarray(bounds["Prop. 4.2 as printed"][0].value) / exact))
    text = "Retrained digits: not measured yet (make measurements)."
    if "digits_stability" in measurements.ids():
        text, more = _digits(axes[1])
        rows += more
    else:
        axes[1].set_axis_off()
    for axis in axes:
        axis.set_xlabel("examples n")
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            "Mean change of the loss of an example when it is left out. Left: ridge of bounded "
            f"examples, lambda = 1, exact by the hat matrix; it falls like n^{slope:.2f}, and "
            f"Prop. 4.2 with the slope of the plain loss is at least {smallest:.0f} times as large."
            f" {text}"
        ),
        verdict="not in the paper",
    )


def _digits(axis: Any) -> tuple[str, list[dict[str, Any]]]:
    seen = measurements.load("digits_stability")
    sizes, rows, found = seen.settings["sizes"], [], []
    for rate, color, table, noise in zip(
        seen.settings["rates"],
        (BLUE, RED),
        seen.array("absolute"),
        seen.array("noise"),
        strict=True,
    ):
        bands = np.array([mean_interval(column) for column in table.T])
        axis.errorbar(sizes, bands[:, 0], yerr=bands[:, 1], color=color, marker="o", ms=3,
                      capsize=2, label=f"p = {rate:g}")  # fmt: skip
        floor = noise.mean(axis=0)
        axis.plot(sizes, floor, ":", color=GREY if rate == 0 else color)
        slope = float(np.polyfit(np.log(sizes), np.log(bands[:, 0]), 1)[0])
        found.append(f"n^{slope:.2f} at p = {rate:g}")
        rows += [
            {"panel": "digits", "n": n, "what": f"p = {rate:g}", "value": m, "pm": h, "noise": f}
            for n, (m, h), f in zip(sizes, bands.tolist(), floor.tolist(), strict=True)
        ]
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_title("digits, retrained", fontsize=9)
    text = (
        f"Right: digits adapters retrained without single examples ({seen.settings['samples']} "
        f"samples, {seen.settings['left_out']} examples each, 95 % t intervals): "
        f"{' and '.join(found)}. Dotted: change from another seed alone."
    )
    return text, rows


FIGURE = PaperFigure("stability", "Leave-one-out stability against its bounds", draw)
