"""What the notebooks share: a look, and pictures with sliders that also stand still.

`LORA_DROPOUT_FAST=1` makes long cells short (tests); `LORA_DROPOUT_STATIC=1` leaves sliders out
(what is committed shows the picture at its defaults).
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from IPython.display import display
from matplotlib import pyplot as plt
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


def explore(draw: Callable[..., Figure], sliders: Mapping[str, Any]) -> Any:
    """A picture that moves: sliders where a kernel runs, the picture at the defaults where not.

    Args:
        draw: Keyword arguments -> figure.
        sliders: Name -> ipywidgets slider; its value is the default.

    Returns:
        The box of widgets, or None where they are left out.
    """
    if os.environ.get("LORA_DROPOUT_STATIC") == "1":
        show(draw(**{name: slider.value for name, slider in sliders.items()}))
        return None
    from ipywidgets import HBox, Output, VBox

    output = Output()

    def redraw(_: Any = None) -> None:
        figure = draw(**{name: slider.value for name, slider in sliders.items()})
        output.clear_output(wait=True)
        with output:
            display(figure)
        plt.close(figure)

    for name, slider in sliders.items():
        slider.description = name
        slider.continuous_update = False
        slider.observe(redraw, names="value")
    redraw()
    box = HBox([VBox(list(sliders.values())), output])
    display(box)
    return box
