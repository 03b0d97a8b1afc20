"""What the law of the masks does: sparsity, spectrum of the update, gap."""

from functools import partial

import numpy as np
from matplotlib import pyplot as plt

from lora_bounds import drop_probability, mask_law
from lora_bounds.bounds.laws import LawName
from paper_figures.experiments.digits_runs import pretrained
from paper_figures.experiments.replica_runs import SETTING, fingerprint, run_law
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.statistics import mean_interval
from paper_figures.press.style import BLUE, GREEN, GREY, ORANGE, RED

RANK = 8
LAWS: dict[str, tuple[LawName, float, str]] = {
    "none": ("none", 0.0, BLUE),
    "rows and columns, p = 0.5": ("row_column", 0.5, RED),
    # As many entries as rows and columns at 0.5 drop.
    "entries, p = 0.75": ("entrywise", float(drop_probability(dropout=0.5)), ORANGE),
    "rank components, p = 0.5": ("rank", 0.5, GREEN),
    "activations, p = 0.5": ("activation", 0.5, GREY),
}


def entries_dropped(law: LawName, rate: float) -> float:
    """Share of the entries of B A that masks set to zero for all inputs together.

    Args:
        law: The mask law.
        rate: Its rate.

    Returns:
        The share; 0 under a law that masks each input afresh.
    """
    found = mask_law(law)
    return 0.0 if found.as_dropout else float(found.drop_probability(dropout=rate, rank=RANK))


def draw(context: Context) -> Drawing:
    """Draw singular values and gap under each law.

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
            "rank": RANK,
            "dropout": rate,
            "mask": law,
            "seeds": len(training.seeds),
            "steps": 2 * training.epochs,
        }
        for law, rate, _ in LAWS.values()
    ]
    values = context.compute(partial(run_law, base=base), cells, title="mask laws")
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    rows, table = [], []
    for place, ((name, (law, rate, color)), value) in enumerate(
        zip(LAWS.items(), values, strict=True)
    ):
        spectra = np.array(value["singular_values"])
        shares = spectra / spectra.sum(axis=1, keepdims=True)
        places = np.arange(1, spectra.shape[1] + 1)
        axes[0].plot(places, shares.mean(axis=0), "o-", ms=3, color=color, label=name)
        entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
        gap, gap_half = mean_interval(list(np.subtract(value["test_loss"], value["train_loss"])))
        loss, loss_half = mean_interval(value["test_loss"])
        axes[1].barh(place, gap, xerr=gap_half, color=color, capsize=2)
        axes[2].barh(place, loss, xerr=loss_half, color=color, capsize=2)
        rank, rank_half = mean_interval(list(np.exp(entropy)))
        table.append(
            {
                "law": name,
                "entries dropped": round(entries_dropped(law, rate), 4),
                "effective rank": f"{rank:.2f} ± {rank_half:.2f}",
                "gap": f"{gap:.3f} ± {gap_half:.3f}",
                "test loss": f"{loss:.3f} ± {loss_half:.3f}",
            }
        )
        rows += [
            {
                "law": name,
                "seed": seed,
                "train_loss": value["train_loss"][seed],
                "test_loss": value["test_loss"][seed],
                **{f"singular_value_{k + 1}": s for k, s in enumerate(spectra[seed])},
            }
            for seed in range(len(spectra))
        ]
    axes[0].set_xlabel("singular value of B A")
    axes[0].set_ylabel("share of their sum")
    axes[0].legend(fontsize=7)
    for axis, label in zip(axes[1:], ("gap of the mean network", "its test loss"), strict=True):
        axis.set_xlabel(f"{label} (nats)")
        axis.set_yticks(range(len(LAWS)), [""] * len(LAWS))
        axis.invert_yaxis()
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            f"{SETTING}, {len(training.seeds)} seeds, 95 % t intervals; the entries' rate is that "
            "which drops as many entries of B A as rows and columns at p = 0.5 (three in four). "
            "Singular values are those of the unmasked update of one layer; effective rank: "
            "exponential of their entropy. Masking rank components zeroes an entry only if all 8 "
            "are dropped; masking activations zeroes none."
        ),
        verdict="not in the paper",
        table=table,
    )


FIGURE = PaperFigure("mask_laws", "What the law of the masks does", draw)
