"""Fig. 4: masks in training, at test, in both, in neither; and the mean network."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from paper_figures.experiments.tuned_runs import DROPOUT, SETTING, Method, Run, steady, tuned_runs
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import Verdict, compared, judge, mean_interval, together
from paper_figures.press.style import BLUE, GREEN, GREY, ORANGE, RED

# Name of the paper, or ours -> (trained with masks, way to predict, colour)
WAYS = {
    "Drop": (True, "ensemble", RED),
    "mean network": (True, "mean", GREEN),
    "Drop_train": (True, "raw", ORANGE),
    "Drop_test": (False, "masks at test", GREY),
    "NoDrop": (False, "mean", BLUE),
}
_PAPER = ("Drop", "Drop_train", "Drop_test", "NoDrop")


def draw(context: Context) -> Drawing:
    """Draw accuracy and loss of each way, by adapter.

    Args:
        context: How much to train.

    Returns:
        The drawing.
    """
    runs, _ = tuned_runs(context)
    rows = way_rows(runs, context)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axis, metric in zip(axes, ("accuracy", "loss"), strict=True):
        for i, adapter in enumerate(("lora", "adalora")):
            for j, (name, (_, _, color)) in enumerate(WAYS.items()):
                mean, half = mean_interval(_values(rows, adapter, name, metric))
                place = i + (j - 2) * 0.16
                label = name if i == 0 else None
                axis.bar(place, mean, 0.15, yerr=half, color=color, label=label, capsize=2)
        axis.set_xticks([0, 1], ["LoRA", "AdaLoRA"])
        axis.set_ylabel(f"test {metric}" + (" (nats)" if metric == "loss" else ""))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    orders = {a: _order(rows, a) for a in ("lora", "adalora")}
    gains, _ = conclude(rows)
    verdict, why = steady(context, lambda found: conclude(way_rows(found, context))[1])
    shown = "; ".join(
        f"{name}: {' > '.join(orders[a])}" for a, name in (("lora", "LoRA"), ("adalora", "AdaLoRA"))
    )
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            "Drop: masks in training and at test (ensemble of 4). Drop_train: masks in training "
            "only, update unscaled. Drop_test: trained without masks, masked at test. NoDrop: "
            "neither. Beside them the mean network: trained with masks, mask-free at test with the "
            "update scaled to the mask's mean, (1-p)². It shows what the order of the other four "
            "is about: Drop_train and Drop_test predict at four times and a quarter of the scale "
            f"they trained for. {SETTING}. Mean over {len(context.training.seeds)} seeds with 95 % "
            f"t intervals. Order by accuracy: {shown}. Drop minus NoDrop: {gains} (LoRA, AdaLoRA). "
            f"{together(2)}. {why}"
        ),
        verdict=verdict,
    )


def conclude(rows: list[dict[str, Any]]) -> tuple[str, Verdict]:
    """Whether masks in training and at test are best.

    Args:
        rows: One an adapter, way and seed.

    Returns:
        (text, verdict on: Drop comes first of the paper's four ways and beats NoDrop).
    """
    found = [
        compared(
            np.subtract(
                _values(rows, a, "Drop", "accuracy"), _values(rows, a, "NoDrop", "accuracy")
            ).tolist(),
            better=1,
            tests=2,
        )
        for a in ("lora", "adalora")
    ]
    verdict = judge([word for _, word in found])
    if verdict == "reproduced" and any(_order(rows, a)[0] != "Drop" for a in ("lora", "adalora")):
        verdict = "weakened"
    return " and ".join(text for text, _ in found), verdict


def way_rows(runs: dict[Method, list[Run]], context: Context) -> list[dict[str, Any]]:
    """Metrics of each way to use masks.

    Args:
        runs: From `tuned_runs`.
        context: Whose seeds they are.

    Returns:
        One row an adapter, way and seed.
    """
    rows = []
    for adapter in ("lora", "adalora"):
        for name, (masked, mode, _) in WAYS.items():
            results = runs[Method(adapter, DROPOUT if masked else 0.0)]
            for seed, result in zip(context.training.seeds, results, strict=True):
                metrics = {m: result["final"][mode][m] for m in ("accuracy", "loss")}
                rows.append({"adapter": adapter, "way": name, "seed": seed, **metrics})
    return rows


def _values(rows: list[dict[str, Any]], adapter: str, way: str, metric: str) -> list[float]:
    return [row[metric] for row in rows if (row["adapter"], row["way"]) == (adapter, way)]


def _order(rows: list[dict[str, Any]], adapter: str) -> list[str]:
    means = {w: float(np.mean(_values(rows, adapter, w, "accuracy"))) for w in _PAPER}
    return sorted(means, key=lambda w: -means[w])


FIGURE = PaperFigure("fig4_dropping", "Fig. 4: where the masks are", draw)
