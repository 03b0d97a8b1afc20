"""The committed gallery is what the code draws: a stale picture, number or word fails here.

Figures that train nothing are drawn again. Of the trained ones a run is repeated, and their words
are derived again from their numbers.
"""

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_dropout.runs.torch_provenance import provenance
from paper_figures.experiments.digits_runs import make_cell, pretrained, run_cell
from paper_figures.experiments.tuned_runs import DROPOUT, METHODS
from paper_figures.figures.paper import fig1_losses, fig4_dropping, table2_budgets
from paper_figures.press.figure import Context, Training, write_csv
from paper_figures.press.registry import figures
from paper_figures.press.statistics import Verdict, compared, judge
from paper_figures.press.style import use_style

GALLERY = Path(fig1_losses.__file__).parents[2] / "gallery"
NOT_TRAINED = (
    "verdicts",
    "fig2_scheme",
    "fig5_rate_and_size",
    "bounds_and_gap",
    "stability",
    "regime_map",
    "ensemble_size",
    "equivalence",
)
REMEDY = "the gallery is stale: python -m paper_figures, then copy its files"


def described(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GALLERY / f"{name}.json").read_text())
    return content


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def same_machine(name: str) -> bool:
    """Whether sums have the same last bits: equal libraries and vector instructions."""
    here, there = provenance(), described(name)["provenance"]
    keys = ("versions", "machine", "cpu_capability")
    return all(here[key] == there.get(key) for key in keys)


def agree(found: str, recorded: str, *, exact: bool) -> bool:
    if found == recorded or exact:
        return found == recorded
    try:
        return math.isclose(float(found), float(recorded), rel_tol=1e-6, abs_tol=1e-12)
    except ValueError:
        return False


@pytest.mark.parametrize("name", NOT_TRAINED)
def test_figures_that_train_nothing_are_drawn_again(name: str, tmp_path: Path) -> None:
    use_style()
    drawing = figures()[name].draw(Context(tmp_path))
    exact = same_machine(name)
    for rows, file in ((drawing.rows, f"{name}.csv"), (drawing.table, f"{name}_table.csv")):
        assert bool(rows) == (GALLERY / file).is_file(), file
        if rows:
            found, recorded = read(write_csv(tmp_path / file, rows)), read(GALLERY / file)
            assert len(found) == len(recorded), REMEDY
            for one, other in zip(found, recorded, strict=True):
                assert one.keys() == other.keys(), REMEDY
                assert all(agree(one[k], other[k], exact=exact) for k in one), f"{REMEDY}: {one}"
    assert described(name)["verdict"] == drawing.verdict, REMEDY
    assert described(name)["caption"] == drawing.caption or not exact, REMEDY


def test_trained_figures_were_trained_as_the_code_trains(tmp_path: Path) -> None:
    """The pretraining and one run of Fig. 1, again."""
    settings = described("fig1_losses")["training"]
    assert settings == json.loads(json.dumps(Training()._asdict())), REMEDY
    method = METHODS[0].label
    (rate,) = {
        float(row["learning_rate"])
        for row in read(GALLERY / "fig1_losses_table.csv")
        if row["method"] == method
    }
    before = torch.get_num_threads()
    base = pretrained(Context(tmp_path).store, epochs=settings["pretraining_epochs"])
    cell = make_cell(**METHODS[0]._asdict(), base=base, learning_rate=rate, seed=0,
                     epochs=settings["epochs"], tuning=False)  # fmt: skip
    history = run_cell(cell, base=base)["history"]
    torch.set_num_threads(before)
    recorded = [r for r in read(GALLERY / "fig1_losses.csv") if r["method"] == method]
    recorded = [row for row in recorded if row["seed"] == "0"]
    exact = same_machine("fig1_losses")
    for one, other in zip(history, recorded, strict=True):
        for key in ("step", "train_loss", "held_out_loss", "gap"):
            if exact:
                assert repr(one[key]) == other[key], REMEDY
            else:  # rounding grows along a run; another algorithm is further away
                assert float(one[key]) == pytest.approx(float(other[key]), rel=0.1, abs=0.1)


def last(name: str, column: str) -> dict[str, list[float]]:
    """Method -> the last value of each seed."""
    rows = read(GALLERY / f"{name}.csv")
    end = max(int(row["step"]) for row in rows)
    found: dict[str, list[float]] = {}
    for row in rows:
        if int(row["step"]) == end:
            found.setdefault(row["method"], []).append(float(row[column]))
    return found


def words(found: dict[str, list[float]], *, better: int, tests: int) -> list[tuple[str, Any]]:
    plain_and_masked = [
        (found[name], found[f"{name} + LoRA Dropout"]) for name in ("LoRA", "AdaLoRA")
    ]
    return [
        compared([b - a for a, b in zip(*pair, strict=True)], better=better, tests=tests)
        for pair in plain_and_masked
    ]


def of_fig1() -> tuple[Sequence[str], Verdict]:
    gaps = words(last("fig1_losses", "gap"), better=-1, tests=8)
    losses = words(last("fig1_losses", "held_out_loss"), better=-1, tests=8)
    texts = [f"gap {t}, " for t, _ in gaps] + [f"test loss {t}, " for t, _ in losses]
    return texts, judge([word for _, word in gaps + losses])


def of_fig3() -> tuple[Sequence[str], Verdict]:
    found = words(last("fig3_calibration", "held_out_ece"), better=-1, tests=2)
    return [text for text, _ in found], judge([word for _, word in found])


def of_table4() -> tuple[Sequence[str], Verdict]:
    found: dict[str, list[float]] = {}
    for row in read(GALLERY / "table4_calibration.csv"):
        found.setdefault(row["method"].removesuffix(", ensemble"), []).append(float(row["ece"]))
    both = words(found, better=-1, tests=2)
    return [text for text, _ in both], judge([word for _, word in both])


def of_fig4() -> tuple[Sequence[str], Verdict]:
    rows: list[dict[str, Any]] = [dict(row) for row in read(GALLERY / "fig4_dropping.csv")]
    for row in rows:
        row |= {key: float(row[key]) for key in ("accuracy", "loss")}
    text, verdict = fig4_dropping.conclude(rows)
    return [text], verdict


def of_table2() -> tuple[Sequence[str], Verdict]:
    rows = read(GALLERY / "table2_budgets.csv")

    def column(rank: int, method: str) -> list[float]:
        keys = (str(rank), method, "accuracy")
        return [float(r["value"]) for r in rows if (r["rank"], r["method"], r["metric"]) == keys]

    found: table2_budgets.Found = {}
    for rank in table2_budgets.RANKS:
        found[rank, 0.0] = {"accuracy": column(rank, "LoRA")}
        found[rank, DROPOUT] = {"accuracy_ensemble": column(rank, "LoRA Dropout, ensemble")}
    text, verdict = table2_budgets.conclude(found)
    return [text], verdict


@pytest.mark.parametrize(
    ("name", "derive"),
    [
        ("fig1_losses", of_fig1),
        ("fig3_calibration", of_fig3),
        ("fig4_dropping", of_fig4),
        ("table2_budgets", of_table2),
        ("table4_calibration", of_table4),
    ],
)
def test_words_of_trained_figures_follow_from_their_numbers(
    name: str, derive: Callable[[], tuple[Sequence[str], Verdict]]
) -> None:
    texts, verdict = derive()
    recorded = described(name)
    assert all(text in recorded["caption"] for text in texts), REMEDY
    overruled = "the verdict would be" in recorded["caption"] or "edge" in recorded["caption"]
    assert recorded["verdict"] == ("not resolved" if overruled else verdict), REMEDY
    assert overruled or "the verdict is the same" in recorded["caption"], REMEDY
