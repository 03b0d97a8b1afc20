"""Every bound against the gap: exact in ridge over n and p, measured on digits."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from lora_bounds import compare_bounds, measurements, self_consistent_lipschitz
from paper_figures.experiments.exact_ridge import BoundedRidge, bounded_ridge
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.style import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY

DELTA, DRAWS = 0.05, 100
SIZES = tuple(int(n) for n in np.logspace(1, 5, 13))
RATES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
SHOWN = {
    "Thm 4.4 as printed": RED,
    "Lemma 4.3, self-consistent stability": ORANGE,
    "Lemma 4.3, uniform stability": GREEN,
    "Bousquet-Elisseeff 2002": BLUE,
    "held-out, Hoeffding": GREY,
}
# Of bounds that the left panels do not show.
_OTHERS = (SKY, PINK, "#F0E442", "#8B4513", "#000080", "#7F7F00")


def draw(context: Context) -> Drawing:
    """Draw bounds and gaps.

    Args:
        context: Not used: exact, or from measurements on file.

    Returns:
        The drawing.
    """
    del context
    problem = bounded_ridge(regularization=1.0)
    measured = "digits_bounds" in measurements.ids()
    figure, axes = plt.subplots(
        1, 3 if measured else 2, figsize=(14 if measured else 9, 4.4), layout="constrained"
    )
    rows = _sweep(axes[0], problem, [(n, 0.5) for n in SIZES], 0)
    rows += _sweep(axes[1], problem, [(1000, p) for p in RATES], 1)
    axes[0].set_xscale("log")
    axes[0].set_xlabel("examples n (p = 0.5)")
    axes[1].set_xlabel("dropout rate p (n = 1000)")
    axes[0].set_ylabel("gap, and bounds on it")
    if measured:
        rows += _digits(axes[2])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    if measured:
        axes[2].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    printed = {
        row["n"]: row["value"] / gap["value"]
        for row in rows
        if row["panel"] == "n" and row["what"] == "Thm 4.4 as printed"
        for gap in rows
        if gap["panel"] == "n" and gap["what"] == "mean gap" and gap["n"] == row["n"]
    }
    first = next((n for n in SIZES if not _row(rows, n, "Thm 4.4 as printed")["vacuous"]), None)
    return Drawing(
        figure=figure,
        rows=rows,
        caption=(
            "Bounds on the gap at delta = 0.05 against the exact gap (mean of "
            f"{DRAWS} samples; band: 5 to 95 %), ridge on 5 bounded inputs, lambda = 1. In the "
            "grey zone a bound says less than that losses are at most C. Thm 4.4 as printed is "
            f"{'vacuous everywhere here' if first is None else f'of use from n = {first}'}, and "
            f"{min(printed.values()):.0f} to {max(printed.values()):.0f} times the mean gap. As "
            "the paper says, bounds by stability fall with p; the exact gap need not. "
            + (
                f"Right: digits adapters, constants measured, delta = {_digits_delta():g}; bounds "
                "above the frame are vacuous, "
                "and those that cannot be computed there are left out."
                if measured
                else ""
            )
        ),
        verdict="not in the paper",
    )


def _row(rows: list[dict[str, Any]], n: int, what: str) -> dict[str, Any]:
    return next(r for r in rows if r["panel"] == "n" and r["n"] == n and r["what"] == what)


def _sweep(
    axis: Axes, problem: BoundedRidge, points: list[tuple[int, float]], vary: int
) -> list[dict[str, Any]]:
    lines: dict[str, list[float]] = {name: [] for name in SHOWN}
    gaps, ranges, rows = [], [], []
    for n, p in points:
        train, gap, middle = problem.gaps(n, p, DRAWS)
        where = {"panel": "np"[vary], "n": n, "p": p}
        gaps.append((float(np.quantile(gap, 0.05)), middle, float(np.quantile(gap, 0.95))))
        ranges.append(problem.loss_range(p))
        rows.append({**where, "what": "mean gap", "value": middle, "vacuous": False})
        for row in compare_bounds(
            n=n,
            delta=DELTA,
            dropout=p,
            lipschitz=problem.lipschitz(p),
            regularized_lipschitz=float(
                self_consistent_lipschitz(
                    lipschitz=problem.lipschitz(p),
                    regularization=problem.regularization,
                    dropout=p,
                    radius=problem.radius(p),
                )
            ),
            curvature=0.0,
            regularization=problem.regularization,
            loss_range=ranges[-1],
            empirical_risk=float(train.mean()),
            held_out_n=n,
            held_out_risk=float(train.mean()) + middle,
        ):
            if row.name in SHOWN:
                value = float(row.result.value) - float(train.mean())
                lines[row.name].append(value)
                vacuous = bool(row.result.vacuous)
                rows.append({**where, "what": row.name, "value": value, "vacuous": vacuous})
    x = [point[vary] for point in points]
    for name, values in lines.items():
        if values:
            axis.plot(x, values, color=SHOWN[name], label=name)
    bands = np.array(gaps)
    axis.plot(x, np.maximum(bands[:, 1], 1e-9), "k.-", label="exact gap, mean")
    axis.fill_between(x, np.maximum(bands[:, 0], 1e-9), bands[:, 2], color="black", alpha=0.15)
    axis.fill_between(x, ranges, 1e4, color="grey", alpha=0.15, linewidth=0)
    axis.set_yscale("log")
    axis.set_ylim(1e-6, 1e2)
    return rows


def _digits_delta() -> float:
    return float(measurements.load("digits_bounds").settings["delta"])


def _digits(axis: Axes) -> list[dict[str, Any]]:
    seen = measurements.load("digits_bounds")
    sizes, weights = seen.settings["sizes"], seen.settings["regularizations"]
    rows: list[dict[str, Any]] = []
    points: dict[str, list[tuple[float, float]]] = {}
    place = 0
    ticks = []
    for i, n in enumerate(sizes):
        for j, weight in enumerate(weights):
            cell = {key: seen.values[key][i][j] for key in ("gap", "gap_low", "gap_high")}
            axis.errorbar(
                place,
                cell["gap"],
                yerr=[[cell["gap"] - cell["gap_low"]], [cell["gap_high"] - cell["gap"]]],
                fmt="ks",
                capsize=3,
                label="gap" if place == 0 else None,
            )
            where = {"panel": "digits", "n": n, "lambda": weight}
            rows.append({**where, "what": "gap", "value": cell["gap"]})
            names, bounds = seen.values["names"][i][j], seen.values["bounds"][i][j]
            for name, bound in zip(names, bounds, strict=True):
                rows.append({**where, "what": name, "value": bound})
                if bound is not None:
                    points.setdefault(name.split(", width ")[0], []).append((place + 0.2, bound))
            ticks.append(f"n = {n}\nλ = {weight:g}")
            place += 1
    spare = iter(_OTHERS)
    for name, at in points.items():
        color = SHOWN[name] if name in SHOWN else next(spare)
        axis.plot(*zip(*at, strict=True), "_", color=color, ms=14, mew=3, label=name)
    axis.axhspan(2 * np.log(10), 1e6, color="grey", alpha=0.15, linewidth=0)
    axis.set_yscale("log")
    axis.set_ylim(0.1, 1e4)
    axis.set_xticks(range(place), ticks, fontsize=8)
    axis.set_title("digits, measured constants", fontsize=9)
    return rows


FIGURE = PaperFigure("bounds_and_gap", "Bounds against the gap", draw)
