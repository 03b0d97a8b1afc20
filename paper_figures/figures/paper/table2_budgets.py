"""Table 2: budgets of trained parameters; on digits, ranks."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from paper_figures.experiments.digits_runs import pretrained
from paper_figures.experiments.replica_runs import SETTING, fingerprint, run_law
from paper_figures.experiments.tuned_runs import NUDGE, survives
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import Verdict, compared, judge, mean_interval, together
from paper_figures.press.style import BLUE, GREEN, RED

Found = dict[tuple[int, float], dict[str, list[Any]]]
RANKS = (2, 4, 8)
LINES = (
    ("LoRA", 0.0, "", BLUE),
    ("LoRA Dropout, ensemble", 0.5, "_ensemble", RED),
    ("LoRA Dropout, mean", 0.5, "", GREEN),
)


def draw(context: Context) -> Drawing:
    """Draw accuracy and loss over the rank.

    Args:
        context: How much to train.

    Returns:
        The drawing.
    """
    training = context.training
    found = _compute(context)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    rows = []
    for axis, metric in zip(axes, ("accuracy", "test_loss"), strict=True):
        for label, rate, suffix, color in LINES:
            points = [found[rank, rate][metric + suffix] for rank in RANKS]
            bands = np.array([mean_interval(p) for p in points])
            axis.errorbar(RANKS, bands[:, 0], yerr=bands[:, 1], marker="o", color=color,
                          label=label, capsize=2)  # fmt: skip
            rows += [
                {"rank": rank, "method": label, "metric": metric, "seed": seed, "value": value}
                for rank, column in zip(RANKS, points, strict=True)
                for seed, value in enumerate(column)
            ]
        axis.set_xscale("log", base=2)
        axis.set_xticks(RANKS, [str(rank) for rank in RANKS])
        axis.set_xlabel("rank")
        axis.set_ylabel(metric.replace("_", " "))
    axes[0].legend()
    shown, verdict = conclude(found)
    verdict, why = survives(verdict, conclude(_compute(context, nudge=NUDGE))[1])
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            f"{SETTING}, p = 0.5, {len(training.seeds)} seeds, 95 % t intervals. In place of the "
            "paper's SQuAD, which needs its models: the same question, whether LoRA Dropout helps "
            f"at each budget of parameters. Accuracy of its ensemble minus LoRA's: {shown}. "
            f"{together(len(RANKS))}. {why}"
            " The paper reports an exact match of 88.2 against 86.6 on SQuAD v1.1 (DeBERTaV3-base)."
        ),
        verdict=verdict,
    )


def conclude(found: Found) -> tuple[str, Verdict]:
    """Whether the ensemble is more accurate than LoRA at each budget.

    Args:
        found: (rank, rate) -> what `run_law` found.

    Returns:
        (text, verdict).
    """
    words = {
        rank: compared(
            list(np.subtract(found[rank, 0.5]["accuracy_ensemble"], found[rank, 0.0]["accuracy"])),
            better=1,
            tests=len(RANKS),
        )
        for rank in RANKS
    }
    shown = ", ".join(f"rank {rank} {text}" for rank, (text, _) in words.items())
    return shown, judge([word for _, word in words.values()])


def _compute(context: Context, *, nudge: float = 0.0) -> Found:
    training = context.training
    base = pretrained(context.store, epochs=training.pretraining_epochs)
    keys = [(rank, rate) for rank in RANKS for rate in (0.0, 0.5)]
    cells = [
        {
            "base": fingerprint(base),
            "rank": rank,
            "dropout": rate,
            "mask": "row_column",
            "seeds": len(training.seeds),
            "steps": 2 * training.epochs,
            "nudge": nudge,
        }
        for rank, rate in keys
    ]
    values = context.compute(partial(run_law, base=base), cells, title="budgets")
    return dict(zip(keys, values, strict=True))


FIGURE = PaperFigure("table2_budgets", "Table 2: budgets of parameters", draw)
