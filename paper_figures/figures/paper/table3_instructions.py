"""Table 3: instruction tuning, scored on MMLU; from comparisons on file."""

from matplotlib import pyplot as plt

from paper_figures.press.comparisons_on_file import compared_runs
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import mean_interval
from paper_figures.press.style import BLUE


def draw(context: Context) -> Drawing:
    """Draw the loss of each method.

    Args:
        context: The profile.

    Returns:
        The drawing.
    """
    runs = compared_runs(context, ("instructions",))["instructions"]
    methods = list(dict.fromkeys(row["method"] for row in runs))
    figure, axis = plt.subplots(figsize=(6.4, 3), layout="constrained")
    table = []
    for place, method in enumerate(methods):
        mean, half = mean_interval([row["loss"] for row in runs if row["method"] == method])
        axis.barh(place, mean, xerr=half, color=BLUE, capsize=2)
        table.append({"method": method, "loss": mean, "pm": half})
    axis.set_yticks(range(len(methods)), methods)
    axis.set_xlabel("loss on held-out responses (nats a token)")
    return Drawing(
        figure=figure,
        rows=runs,
        caption=f"Instruction tuning; 95 % t intervals over {len(runs) // len(methods)} seeds.",
        verdict="not resolved",
        table=table,
    )


FIGURE = PaperFigure("table3_instructions", "Table 3: instruction tuning", draw, ("lm", "paper"))
