"""What a legend names is what the CSV file has under that name, in every picture."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from paper_figures.figures import bounds_and_gap
from paper_figures.press.figure import Context
from paper_figures.press.registry import figures
from paper_figures.press.style import use_style
from tests.paper_figures.test_figures import QUICK, draw_all

Row = Any
Rows = list[dict[str, Any]]
Style = tuple[Any, ...]


def values(rows: Iterable[Row], *columns: str) -> set[float]:
    """Numbers of the rows, and their means over `seed`, which pictures draw."""
    found: set[float] = set()
    groups: dict[Any, list[float]] = {}
    for row in rows:
        for column in columns:
            if row.get(column) is not None:
                found.add(float(row[column]))
                others = ("seed", "train_loss", "held_out_loss", "held_out_ece", "gap")
                keys = {k: v for k, v in row.items() if k not in others and k not in columns}
                key = column, tuple(keys.items())
                groups.setdefault(key, []).append(float(row[column]))
    return found | {float(np.mean(group)) for group in groups.values()}


def having(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def fig1(rows: Rows, label: str) -> set[float]:
    key = "train_loss" if label.endswith("training") else "held_out_loss"
    masked = label.startswith("with LoRA Dropout")
    return values([r for r in rows if r["method"].endswith("LoRA Dropout") == masked], key)


def fig4(rows: Rows, label: str) -> set[float]:
    found = having(rows, way=label)
    return set().union(*(values(having(found, adapter=a), m) for a in ("lora", "adalora")
                         for m in ("accuracy", "loss")), by_adapter(found))  # fmt: skip


def by_adapter(rows: Rows) -> set[float]:
    return {float(np.mean([r[m] for r in having(rows, adapter=a)]))
            for a in ("lora", "adalora") for m in ("accuracy", "loss")}  # fmt: skip


def fig5(rows: Rows, label: str) -> set[float]:
    name = {"ensemble, p = 0.5": "ensemble"}.get(label, label)
    return values([r for r in rows if r["what"] in (f"{name}, accuracy", f"{name}, loss")], "mean")


def bounds(rows: Rows, label: str) -> set[float]:
    name = {"exact gap, mean": "mean gap"}.get(label, label)
    return values([r for r in rows if r["what"].split(", width ")[0] == name], "value")


def stable(rows: Rows, label: str) -> set[float]:
    found = having(rows, what="exact" if label.startswith("exact, ") else label)
    return values(found, "value", "noise")  # dotted, in the same colour


def regimes(rows: Rows, label: str) -> set[float]:
    column = {
        "ridge, limit of large d": "ridge, limit",
        "LoRA Dropout's ensemble, limit": "LoRA Dropout, limit",
    }.get(label, label)
    return {max(0.0, value) for value in values(rows, column)}


def sizes(rows: Rows, label: str) -> set[float]:
    if label == "drawn masks":
        return values(having(rows, panel="squared"), "value")
    if label == "plain LoRA":
        return values(having(rows, p=0.0), "value")
    kind, rate = label.split(", p = ")
    panels = ("loss_probabilities", "ece") if kind == "ensemble" else ("mean_loss", "mean_ece")
    return values([r for r in rows if r["panel"] in panels and r["p"] == float(rate)], "value")


def laws(rows: Rows, label: str) -> set[float]:
    columns = [name for name in rows[0] if name.startswith("singular_value_")]
    spectra = np.array([[row[c] for c in columns] for row in having(rows, law=label)])
    shares = (spectra / spectra.sum(axis=1, keepdims=True)).mean(axis=0)
    train, test = (
        float(np.mean([row[f"{part}_loss"] for row in having(rows, law=label)]))
        for part in ("train", "test")
    )
    return {*shares.tolist(), test - train, test}


NAMED: dict[str, Callable[[Rows, str], set[float]]] = {
    "fig1_losses": fig1,
    "fig3_calibration": lambda rows, label: values(having(rows, method=label), "held_out_ece"),
    "fig4_dropping": fig4,
    "fig5_rate_and_size": fig5,
    "table2_budgets": lambda rows, label: values(having(rows, method=label), "value"),
    "bounds_and_gap": bounds,
    "stability": stable,
    "regime_map": regimes,
    "ensemble_size": sizes,
    "equivalence": lambda rows, label: values(
        having(rows, correlation=float(label.split()[1])),
        "distance",
        "risk_lora_dropout",
        "risk_dropout",  # dashed, in the same colour
    ),
    "mask_laws": laws,
    "matched_loss": lambda rows, label: values(having(rows, method=label), "held_out_loss"),
}
# Keys to line styles, and a curve whose formula `ensemble_size`'s caption checks; `verdicts` has
# boxes, with a test of their own.
NO_DATA = {"LoRA Dropout at p", "dropout at 2p - p²", "loss(mean) + V/N"}
WITHOUT_LEGEND = {"fig2_scheme", "table4_calibration", "calibration_baselines", "verdicts"}


def style(line: Line2D) -> Style:
    return (to_rgba(line.get_color()), line.get_linestyle(), line.get_marker())


def curves(axis: Axes) -> Iterator[tuple[Style, str, list[float]]]:
    """(style, label, heights) of each line and group of bars; caps of error bars are no lines."""
    caps, labels = set(), {}
    for container in axis.containers:
        if isinstance(container, ErrorbarContainer):
            caps |= {id(line) for line in container.lines[1]}
            if container.lines[0] is not None:
                labels[id(container.lines[0])] = str(container.get_label())
        elif isinstance(container, BarContainer):
            across = container.orientation == "horizontal"
            bars = list(container.patches)
            yield (
                (to_rgba(bars[0].get_facecolor()), "bar", ""),
                str(container.get_label()),
                [float(bar.get_width() if across else bar.get_height()) for bar in bars],
            )
    for line in axis.lines:
        if id(line) not in caps:
            heights = np.asarray(line.get_ydata(), float)
            label = labels.get(id(line), str(line.get_label()))
            yield style(line), label, heights[np.isfinite(heights)].tolist()


def entries(figure: Figure) -> Iterator[tuple[Legend, list[Axes]]]:
    for axis in figure.axes:
        if axis.get_legend() is not None:
            yield axis.get_legend(), [axis]
    for legend in figure.legends:
        yield legend, figure.axes


@pytest.fixture(scope="module")
def context(made_once: Callable[..., Path]) -> Context:
    from tests.paper_figures.test_figures import TINY

    return Context(made_once("figures", draw_all) / "out", training=TINY, jobs=1)


@pytest.mark.parametrize("name", [name for name in QUICK if name not in WITHOUT_LEGEND])
def test_a_legend_names_what_is_drawn(
    name: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds_and_gap, "DRAWS", 10)  # all of them in `test_gallery.py`
    use_style()
    drawing = figures()[name].draw(context)
    rows = [dict(row) for row in drawing.rows]
    colors: dict[Any, set[float]] = {}
    for legend, own in entries(drawing.figure):
        looks: dict[str, set[Style]] = {}
        for text in legend.get_texts():
            label = text.get_text()
            if label in NO_DATA:
                continue
            numbers = NAMED[name](rows, label)
            assert numbers, f"{label!r} has no numbers in the CSV file"
            drawn = [curve for axis in own for curve in curves(axis) if curve[1] == label]
            assert drawn, f"{label!r} stands in the legend alone"
            looks[label] = {look for look, _, _ in drawn}
            for look, _, heights in drawn:
                assert_among(heights, numbers, label)
                colors.setdefault(look[0], set()).update(numbers)
        for one, other in combinations(looks, 2):
            assert looks[one].isdisjoint(looks[other]), f"{one!r} and {other!r} look alike"
    # What has the colour of an entry counts as it, with a label or without, in any panel.
    for axis in drawing.figure.axes:
        for look, label, heights in curves(axis):
            if look[0] in colors and label not in NO_DATA:
                assert_among(heights, colors[look[0]], f"{label} ({look})")
    assert len(colors) >= 2


def assert_among(heights: list[float], numbers: set[float], label: str) -> None:
    expected = np.array(sorted(numbers))
    for y in heights:
        near = np.abs(expected - y) <= 1e-9 + 1e-6 * abs(y)
        assert near.any(), f"{label!r} is drawn at {y}, which is not its own"


def test_boxes_of_the_verdicts_have_the_colours_of_their_legend(context: Context) -> None:
    drawing = figures()["verdicts"].draw(context)
    (legend,) = drawing.figure.legends
    keys = {t.get_text().split("  ")[0]: to_rgba(h.get_facecolor()) for t, h in zip(
        legend.get_texts(), legend.legend_handles, strict=True)}  # type: ignore[union-attr]  # fmt: skip
    names = {t.get_text().split("  ")[0]: t.get_text().split("  ")[1] for t in legend.get_texts()}
    texts = drawing.figure.axes[0].texts
    found = {claim.get_text(): sign for sign, claim in zip(texts[::2], texts[1::2], strict=True)}
    for row in drawing.rows:
        sign = found[row["claim"]]
        assert names[sign.get_text()] == row["verdict"]
        assert to_rgba(sign.get_bbox_patch().get_facecolor()) == keys[sign.get_text()]


def test_every_figure_is_looked_at() -> None:
    assert NAMED.keys() | WITHOUT_LEGEND == set(QUICK)


@pytest.mark.parametrize("name", ["calibration_baselines", "table4_calibration"])
def test_bars_stand_for_the_means_of_their_rows(name: str, context: Context) -> None:
    drawing = figures()[name].draw(replace(context, jobs=1))
    metrics = ("ece", "loss", "accuracy") if name == "calibration_baselines" else ("ece",)
    methods = list(dict.fromkeys(row["method"] for row in drawing.rows))
    for axis, metric in zip(drawing.figure.axes, metrics, strict=True):
        bars = [p.get_width() for c in axis.containers if isinstance(c, BarContainer) for p in c]
        wanted = [np.mean([r[metric] for r in drawing.rows if r["method"] == m]) for m in methods]
        assert bars == pytest.approx(wanted, rel=1e-9)
