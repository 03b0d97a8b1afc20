"""LoRA Dropout at p against ordinary dropout at 2p - p^2: equal for isotropic inputs only."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from lora_bounds import drop_probability, minimizer
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.style import BLUE, ORANGE, RED

INPUTS, OUTPUTS = 6, 3
RATES = np.linspace(0.0, 0.9, 19)
CORRELATIONS = ((0.0, BLUE), (0.4, ORANGE), (0.8, RED))


def draw(context: Context) -> Drawing:
    """Draw the distance of the two minimisers, and their risks, over p.

    Args:
        context: Not used: the minimisers have closed forms.

    Returns:
        The drawing.
    """
    del context
    truth = np.random.default_rng(0).standard_normal((OUTPUTS, INPUTS))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.7), layout="constrained")
    rows: list[dict[str, Any]] = []
    for correlation, color in CORRELATIONS:
        moment = np.full((INPUTS, INPUTS), correlation)
        np.fill_diagonal(moment, 1.0)
        cross = truth @ moment
        here = []
        for p in RATES:
            q = float(drop_probability(dropout=p))
            ours, usual = (
                minimizer(law=law, second_moment=moment, cross_moment=cross, dropout=rate)  # type: ignore[arg-type]
                for law, rate in (("row_column", float(p)), ("activation", q))
            )
            risks = [float(np.sum(((e - truth) @ moment) * (e - truth))) / 2 for e in (ours, usual)]
            distance = float(np.linalg.norm(ours - usual) / np.linalg.norm(truth))
            here.append(
                {
                    "correlation": correlation,
                    "p": float(p),
                    "q": q,
                    "distance": distance,
                    "risk_lora_dropout": risks[0],
                    "risk_dropout": risks[1],
                }
            )
        label = f"correlation {correlation:g}"
        axes[0].plot(RATES, [r["distance"] for r in here], color=color, label=label)
        axes[1].plot(RATES, [r["risk_lora_dropout"] for r in here], color=color, label=label)
        axes[1].plot(RATES, [r["risk_dropout"] for r in here], "--", color=color)
        rows += here
    axes[0].set_ylabel("distance of the minimisers, relative")
    axes[1].set_ylabel("excess risk of the mean network")
    for axis in axes:
        axis.set_xlabel("p of LoRA Dropout (dropout at 2p - p²)")
    axes[0].legend()
    axes[1].plot([], [], color="black", label="LoRA Dropout at p")
    axes[1].plot([], [], "--", color="black", label="dropout at 2p - p²")
    axes[1].legend(*(part[-2:] for part in axes[1].get_legend_handles_labels()))
    worst = max(r["distance"] for r in rows if r["correlation"] == 0.0)
    apart = max(r["distance"] for r in rows)
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            "A linear layer of full rank under squared loss: where LoRA Dropout at rate p and "
            "ordinary dropout of its inputs at rate q = 2p - p² bring it, by closed forms "
            f"({OUTPUTS} outputs, {INPUTS} inputs of unit variance, equal correlations). With "
            "uncorrelated inputs they end at the same network (largest distance "
            f"{worst:.1g}); with "
            f"correlated ones they do not (up to {apart:.2f} of the solution's size): the masks "
            "rescale the correlations too."
        ),
        verdict="not in the paper",
    )


FIGURE = PaperFigure("equivalence", "LoRA Dropout against ordinary dropout", draw)
