"""Table 4: calibration error of the tuned models."""

from matplotlib import pyplot as plt

from paper_figures.experiments.tuned_runs import METHODS, SETTING, calibration, steady, tuned_runs
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import mean_interval, together
from paper_figures.press.style import BLUE, RED


def draw(context: Context) -> Drawing:
    """Draw and tabulate the expected calibration error.

    Args:
        context: How much to train.

    Returns:
        The drawing.
    """
    runs, _ = tuned_runs(context)
    rows, table = [], []
    figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for place, method in enumerate(METHODS):
        modes = ("ensemble", "mean") if method.dropout else ("mean",)
        for mode in modes:
            values = [run["final"][mode]["ece"] for run in runs[method]]
            mean, half = mean_interval(values)
            label = f"{method.label}, {mode}" if method.dropout else method.label
            table.append({"method": label, "ece": mean, "pm": half, "seeds": len(values)})
            rows += [
                {"method": label, "seed": seed, "ece": value}
                for seed, value in zip(context.training.seeds, values, strict=True)
            ]
            height = place + (0.2 if mode == "mean" and method.dropout else 0)
            color = RED if method.dropout else BLUE
            axis.barh(height, mean, 0.35, xerr=half, color=color, capsize=2,
                      alpha=0.5 if mode == "mean" and method.dropout else 1.0)  # fmt: skip
            axis.annotate(f" {mode if method.dropout else 'plain'}", (mean + half, height),
                          va="center", fontsize=8)  # fmt: skip
    axis.set_yticks(range(len(METHODS)), [method.label for method in METHODS])
    axis.invert_yaxis()
    axis.set_xlabel("expected calibration error, test")
    found, _ = calibration(runs)
    verdict, why = steady(context, lambda runs: calibration(runs)[1])
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            f"{SETTING}. Mean over {len(context.training.seeds)} seeds with 95 % t intervals. "
            f"Ensemble minus plain: LoRA {found['lora']}, AdaLoRA {found['adalora']}. "
            f"{together(2)}. {why}"
        ),
        verdict=verdict,
        table=table,
    )


FIGURE = PaperFigure("table4_calibration", "Table 4: calibration error", draw)
