"""Calibration: LoRA Dropout beside temperature scaling and a plain deep ensemble."""

from functools import partial

import numpy as np
from matplotlib import pyplot as plt

from paper_figures.experiments.digits_runs import pretrained
from paper_figures.experiments.replica_runs import N_VALIDATION, SETTING, fingerprint, run_baselines
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import compared, mean_interval, together
from paper_figures.press.style import BLUE, RED

MEMBERS = 5
OURS = "LoRA Dropout, ensemble"
RIVALS = ("LoRA, temperature", "LoRA, deep ensemble", "LoRA Dropout, mean, temperature")
METRICS = {
    "ece": ("calibration error", -1),
    "loss": ("loss (nats)", -1),
    "accuracy": ("accuracy", 1),
}


def draw(context: Context) -> Drawing:
    """Draw calibration error, loss and accuracy of each way.

    Args:
        context: How much to train.

    Returns:
        The drawing.
    """
    training = context.training
    base = pretrained(context.store, epochs=training.pretraining_epochs)
    cells = [
        {
            "base": fingerprint(base),
            "seed": seed,
            "members": MEMBERS,
            "steps": 2 * training.epochs,
        }
        for seed in training.seeds
    ]
    values = context.compute(partial(run_baselines, base=base), cells, title="baselines")
    ways = [way for way in values[0] if way != "temperatures"]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
    table = [{"method": way} for way in ways]
    for axis, metric in zip(axes, METRICS, strict=True):
        for place, way in enumerate(ways):
            mean, half = mean_interval([value[way][metric] for value in values])
            color = RED if way.startswith("LoRA Dropout") else BLUE
            axis.barh(place, mean, xerr=half, color=color, capsize=2)
            table[place] |= {metric: f"{mean:.4f} ± {half:.4f}"}
        axis.set_xlabel(f"test {metric}")
    axes[0].set_yticks(range(len(ways)), ways)
    axes[0].invert_yaxis()
    tests = len(METRICS) * len(RIVALS)
    found = []
    for metric, (name, better) in METRICS.items():
        texts = []
        for way in RIVALS:
            differences = [v[way][metric] - v[OURS][metric] for v in values]
            texts.append(f"{way} {compared(differences, better=better, tests=tests)[0]}")
        means = {way: float(np.mean([v[way][metric] for v in values])) for way in ways}
        best = max(means, key=lambda way: better * means[way])
        found.append(f"{name}: {'; '.join(texts)}; best on average {best}, {means[best]:.3f}")
    temperature = np.mean([value["temperatures"]["LoRA"] for value in values])
    return Drawing(
        figure=figure,
        rows=[
            {"seed": seed, "method": way, **value[way]}
            for seed, value in zip(training.seeds, values, strict=True)
            for way in ways
        ],
        caption=(
            f"{SETTING}, p = 0.5, {len(training.seeds)} training sets, 95 % t intervals. "
            f"Temperature: one number fitted on {N_VALIDATION} other examples (mean "
            f"{temperature:.2f} "
            f"for LoRA), which costs no pass and changes no prediction. Deep ensemble: {MEMBERS} "
            f"plain LoRA runs, {MEMBERS} times the training. Ensemble of LoRA Dropout: {MEMBERS} "
            f"masks of one run. Minus LoRA Dropout's ensemble, {'. '.join(found)}. "
            f"{together(tests)}."
        ),
        verdict="not in the paper",
        table=table,
    )


FIGURE = PaperFigure("calibration_baselines", "Calibration against honest baselines", draw)
