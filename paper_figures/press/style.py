"""One look for all figures: colour-blind safe, legible in print."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from lora_dropout.safe_files import atomic_path

# Okabe and Ito's palette.
ORANGE, BLUE, GREEN, RED, GREY = "#E69F00", "#0072B2", "#009E73", "#D55E00", "#555555"
SKY, PINK = "#56B4E9", "#CC79A7"


SAVE_DPI = 150


def use_style() -> None:
    """Set matplotlib's defaults for the process; no window is ever opened."""
    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": SAVE_DPI,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "pdf.fonttype": 42,
        }
    )


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and PDF.

    Args:
        figure: The figure.
        stem: Path without ending.

    Returns:
        The files written.
    """
    written = []
    for ending in ("png", "pdf"):
        target = stem.with_suffix(f".{ending}")
        # Without a date two drawings of the same data are the same file.
        metadata = {"CreationDate": None} if ending == "pdf" else None
        with atomic_path(target) as path:
            figure.savefig(path, format=ending, metadata=metadata, bbox_inches="tight")
        written.append(target)
    return written
