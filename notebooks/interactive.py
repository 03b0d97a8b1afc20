"""What the notebooks share: a look, and pictures with sliders that also stand still.

`LORA_DROPOUT_FAST=1` makes long cells short (tests); `LORA_DROPOUT_STATIC=1` leaves sliders out
(what is committed shows the picture at its defaults).
"""

import os
from collections.abc import Callable, Mapping
from io import BytesIO
from threading import Event, Lock
from typing import Any

import matplotlib
from IPython.display import Image, display
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FAST = os.environ.get("LORA_DROPOUT_FAST") == "1"
ORANGE, BLUE, GREEN, RED, GREY = "#E69F00", "#0072B2", "#009E73", "#D55E00", "#555555"


def use_style() -> None:
    """White pictures of moderate size, legible on dark pages too."""
    matplotlib.rcParams.update(
        {
            "figure.dpi": 80,
            "savefig.dpi": 80,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
        }
    )


def show(figure: Figure) -> None:
    """Show a figure once."""
    display(figure)
    plt.close(figure)


def picture_of(figure: Figure) -> bytes:
    """A figure as PNG, without pyplot, whose state no second thread may touch."""
    buffer = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def explore(draw: Callable[..., Figure], sliders: Mapping[str, Any]) -> Any:
    """A picture that moves: sliders where a kernel runs, the picture at the defaults where not.

    A kernel may call back on another thread while a cell or another callback draws: one picture is
    drawn at a time, and of the values that came meanwhile the latest is drawn.

    Args:
        draw: Keyword arguments -> figure, made without pyplot (`new_figure`).
        sliders: Name -> ipywidgets slider; its value is the default.

    Returns:
        The box of widgets, or None where they are left out.
    """

    def drawn() -> bytes:
        return picture_of(draw(**{name: slider.value for name, slider in sliders.items()}))

    if os.environ.get("LORA_DROPOUT_STATIC") == "1":
        display(Image(drawn()))
        return None
    from ipywidgets import HBox, VBox
    from ipywidgets import Image as Frame

    frame, drawing, asked = Frame(format="png"), Lock(), Event()

    def redraw(_: Any = None) -> None:
        asked.set()
        # Who finds the lock taken leaves: its holder sees `asked` and draws the latest values.
        while asked.is_set() and drawing.acquire(blocking=False):
            try:
                asked.clear()
                frame.value = drawn()
            finally:
                drawing.release()

    for name, slider in sliders.items():
        slider.description = name
        slider.continuous_update = False
        slider.observe(redraw, names="value")
    redraw()
    box = HBox([VBox(list(sliders.values())), frame])
    display(box)
    return box


def new_figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float], **options: Any
) -> tuple[Figure, Any]:
    """A figure with axes that pyplot does not know of, for `explore`."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)
