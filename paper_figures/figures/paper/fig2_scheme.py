"""Fig. 2: the scheme of LoRA Dropout, drawn from masks that the toolkit draws."""

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from lora_bounds import drop_probability
from lora_dropout import LoRADropoutConfig, adapt, sample_masks
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.style import BLUE, ORANGE

ROWS, RANK, COLUMNS, DRAWS, RATE = 10, 4, 14, 3, 0.5


def draw(context: Context) -> Drawing:
    """Draw B, A and B A under three masks of one layer.

    Args:
        context: Not used: nothing is trained.

    Returns:
        The drawing.
    """
    del context
    config = LoRADropoutConfig(rank=RANK, alpha=RANK, dropout=RATE)
    generator = torch.Generator().manual_seed(0)
    model = adapt(torch.nn.Sequential(torch.nn.Linear(COLUMNS, ROWS)), config, generator=generator)
    masks = sample_masks(model, n_instances=DRAWS, generator=torch.Generator().manual_seed(4))
    (layer,) = masks.layers.values()
    assert layer.rows is not None and layer.columns is not None
    figure, axes = plt.subplots(
        DRAWS, 3, figsize=(7.2, 5.6), width_ratios=(RANK, COLUMNS, COLUMNS), layout="constrained"
    )
    rows = []
    for k in range(DRAWS):
        kept_rows, kept_columns = layer.rows[k].numpy(), layer.columns[k].numpy()
        update = np.outer(kept_rows, kept_columns)
        _grid(axes[k, 0], np.repeat(kept_rows[:, None], RANK, axis=1), ORANGE)
        _grid(axes[k, 1], np.repeat(kept_columns[None], RANK, axis=0), BLUE)
        _grid(axes[k, 2], update, "#444444")
        axes[k, 0].set_ylabel(f"mask {k + 1}")
        axes[k, 2].set_xlabel(f"{int(update.sum())} of {update.size} entries kept", fontsize=8)
        rows += [
            {"mask": k + 1, "row": i, "column": j, "kept": int(update[i, j])}
            for i in range(ROWS)
            for j in range(COLUMNS)
        ]
    for axis, title in zip(
        axes[0], ("B: rows dropped", "A: columns dropped", "B A: what is left"), strict=True
    ):
        axis.set_title(title)
    share = 1 - np.mean([row["kept"] for row in rows])
    q = float(drop_probability(dropout=RATE))
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            f"The masks of LoRA Dropout at p = {RATE}: rows of B and columns of A are dropped "
            f"(white), and an entry of B A is left where both its row and its column are; that is "
            f"1 - p in each, so that q = 2p - p² = {q:g} of the entries are dropped on average "
            f"(here {share:.2f}). Training averages the loss over N such masks (Eq. 7); at test "
            "time the N masked networks vote (Eq. 8). Drawn from the toolkit's own masks."
        ),
        verdict="illustration",
    )


def _grid(axis: Axes, kept: np.ndarray, color: str) -> None:
    axis.grid(False)
    axis.pcolormesh(
        kept[::-1],
        cmap=ListedColormap(["white", color]),
        vmin=0,
        vmax=1,
        edgecolors="#bbbbbb",
        linewidth=0.4,
    )
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])


FIGURE = PaperFigure("fig2_scheme", "Fig. 2: the scheme", draw, ("quick", "lm", "paper"))
