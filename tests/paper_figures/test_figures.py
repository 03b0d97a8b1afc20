"""Every figure at a tiny scale; the CSV is what is drawn; exact figures have golden values."""

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from lora_dropout.tasks.catalogue import GLUE_NAMES, find_task
from lora_dropout.tasks.digits import DigitsTarget, digits_target
from paper_figures.__main__ import main
from paper_figures.experiments import digits_runs, digits_setup, replica_runs, tuned_runs
from paper_figures.experiments.exact_ridge import bounded_ridge
from paper_figures.experiments.tuned_runs import METHODS, Method
from paper_figures.figures import bounds_and_gap, ensemble_size, equivalence, regime_map
from paper_figures.figures import stability_over_n as stability
from paper_figures.figures.paper import fig1_losses, table1_glue
from paper_figures.press import comparisons_on_file as compared
from paper_figures.press import measurements_on_file as measured
from paper_figures.press import style
from paper_figures.press.figure import Context, Missing, Training, render
from paper_figures.press.index import write_index
from paper_figures.press.registry import figures
from paper_figures.press.statistics import mean_interval
from paper_figures.press.style import use_style

TINY = Training(
    learning_rates=(3e-3, 1e-2),
    tuning_seeds=(100,),
    seeds=(0, 1),
    epochs=2,
    pretraining_epochs=1,
)
QUICK = [name for name, figure in figures().items() if "quick" in figure.profiles]


def _target_with_few_tests(*, seed: int) -> DigitsTarget:
    task = digits_target(seed=seed)
    return replace(task, test=(task.test[0][:40], task.test[1][:40]))


@pytest.fixture(scope="module")
def drawn(made_once: Callable[..., Path]) -> tuple[Context, dict[str, str]]:
    """All figures of the profile `quick`, on a few images; what was skipped, and why."""
    folder = made_once("figures", draw_all)
    missing = json.loads((folder / "missing").read_text())
    return Context(folder / "out", training=TINY, jobs=1), missing


def draw_all(folder: Path) -> None:
    context = Context(folder / "out", training=TINY, jobs=1)
    (images, labels), (more, others) = digits_setup.digits_pool()
    few = ((images[:170], labels[:170]), (more[:40], others[:40]))
    missing = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_runs, "digits_pool", lambda: few)
        patch.setattr(style, "SAVE_DPI", 40)
        patch.setattr(digits_runs, "digits_target", _target_with_few_tests)
        patch.setattr(bounds_and_gap, "DRAWS", 10)  # all of them in `test_gallery.py`
        for name in QUICK:
            try:
                render(figures()[name], context)
            except Missing as reason:
                missing[name] = str(reason)
    (folder / "missing").write_text(json.dumps(missing))


def a_copy(context: Context, folder: Path) -> Context:
    return replace(context, out=shutil.copytree(context.out, folder / "out"))


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_all_are_drawn_and_none_is_missing(drawn: tuple[Context, dict[str, str]]) -> None:
    context, missing = drawn
    assert missing == {}
    for name in QUICK:
        for ending in ("png", "pdf", "csv", "json"):
            assert (context.out / f"{name}.{ending}").stat().st_size > 100
        described = json.loads((context.out / f"{name}.json").read_text())
        assert len(described["caption"]) > 100
        assert described["training"]["epochs"] == 2
        assert {"command", "commit", "versions"} <= described["provenance"].keys()
        for row in read(context.out / f"{name}.csv"):
            assert "nan" not in row.values()


def test_the_report_gathers_them(drawn: tuple[Context, dict[str, str]], tmp_path: Path) -> None:
    context = a_copy(drawn[0], tmp_path)
    page = write_index(figures(), context.out, missing={"table1_glue": "why <not>"}).read_text()
    for name in QUICK:
        assert f'src="{name}.png"' in page
        assert f'href="#{name}"' in page
    assert "Not drawn: why &lt;not&gt;" in page
    assert "table3_instructions.png" not in page
    for link in set(page.split('href="')[1:]):
        target = link.split('"')[0]
        assert target.startswith("#") or (context.out / target).is_file()


def test_a_second_run_draws_the_same_without_training(
    drawn: tuple[Context, dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = a_copy(drawn[0], tmp_path)

    def no_training(cell: Any, **_: Any) -> None:
        raise AssertionError("a finished cell was computed again")

    monkeypatch.setattr(tuned_runs, "run_cell", no_training)
    monkeypatch.setattr(style, "SAVE_DPI", 40)
    for name in ("fig1_losses", "fig4_dropping"):
        before = {e: (context.out / f"{name}.{e}").read_bytes() for e in ("csv", "png", "pdf")}
        render(figures()[name], context)
        assert {e: (context.out / f"{name}.{e}").read_bytes() for e in before} == before


def test_a_figure_replays(
    drawn: tuple[Context, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the record's settings: its finished cells are all that it needs."""

    def no_training(cell: Any, **_: Any) -> None:
        raise AssertionError("other settings than the record's")

    monkeypatch.setattr(tuned_runs, "run_cell", no_training)
    monkeypatch.setattr(style, "SAVE_DPI", 40)
    out, again = drawn[0].out, tmp_path / "again"
    shutil.copytree(out / "cells", again / "cells")
    record = tmp_path / "fig1_losses.json"
    for name in ("fig1_losses.json", "fig1_losses.csv", "fig1_losses_table.csv"):
        shutil.copy(out / name, tmp_path / name)
    command = ["--replay", str(record), "--out", str(again)]
    assert main(command) == 0
    assert "repeated to the last bit" in capsys.readouterr().out
    table = tmp_path / "fig1_losses_table.csv"
    number = read(table)[0]["test_loss"]
    table.write_text(table.read_text().replace(number, repr(math.nextafter(float(number), 9))))
    assert main(command) == 1
    assert capsys.readouterr().out.startswith("table[0].test_loss: ")
    record.write_text(record.read_text().replace('"epochs": 2', '"epochs": 2.5'))
    assert main(command) == 2
    assert "fig1_losses.json is damaged: training has 'epochs': 2.5" in capsys.readouterr().err


def test_a_replay_computes_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "equivalence", "--out", str(tmp_path)]) == 0
    record = tmp_path / "equivalence.json"
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert main(["--replay", str(record)]) == 0
    assert capsys.readouterr().out.startswith("identical: ")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    for change, message in (
        ({"profile": "lm"}, r"profile must be one of \('quick',\), got 'lm'"),
        ({"training": {"epochs": True}}, "training has 'epochs': True"),
        ({"training": {"seed": 1}}, "training has 'seed': 1"),
        ({"training": {"seeds": []}}, r"training has 'seeds': \[\]"),
        ({"provenance": None}, "cannot be repeated without its provenance"),
    ):
        record.write_text(json.dumps(json.loads(before[record]) | change))
        assert main(["--replay", str(record)]) == 2
        assert re.search(message, capsys.readouterr().err)
    record.write_bytes(before[record])
    assert main(["--replay", str(record), "--out", str(tmp_path)]) == 2
    assert "--out must be another folder than the record's" in capsys.readouterr().err
    (tmp_path / "equivalence.csv").unlink()
    assert main(["--replay", str(record)]) == 2
    assert "equivalence.csv" in capsys.readouterr().err
    (tmp_path / "no_such.json").write_bytes(before[record])
    (tmp_path / "no_such.csv").write_text("a\n1\n")
    assert main(["--replay", str(tmp_path / "no_such.json")]) == 2
    assert "no_such.json is named after no figure" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--replay", str(record), "--seeds", "3"])


def test_the_table_of_fig_1_is_the_summary_of_its_curves(
    drawn: tuple[Context, dict[str, str]],
) -> None:
    out = drawn[0].out
    curves = read(out / "fig1_losses.csv")
    assert len(curves) == len(METHODS) * 2 * 3  # two seeds, epochs 0 to 2
    steps = max(float(row["step"]) for row in curves)
    for row in read(out / "fig1_losses_table.csv"):
        if row["gap"]:
            last = [c for c in curves if c["method"] == row["method"] and float(c["step"]) == steps]
            assert math.isclose(float(row["gap"]), np.mean([float(c["gap"]) for c in last]))
            losses = [float(c["held_out_loss"]) for c in last]
            assert math.isclose(float(row["test_loss"]), np.mean(losses), rel_tol=1e-6)


def test_the_csv_is_what_is_drawn() -> None:
    use_style()
    context = Context(Path("unused"))
    for module, column in ((equivalence, "distance"), (regime_map, "LoRA Dropout, limit")):
        drawing = module.FIGURE.draw(context)
        numbers = {float(row[column]) for row in drawing.rows if column in row}
        lines = [line for line in drawing.figure.axes[0].lines if line.get_linestyle() == "-"]
        drawn = {float(y) for line in lines for y in line.get_ydata()}
        assert numbers <= drawn
        plt.close(drawing.figure)
    drawing = ensemble_size.FIGURE.draw(context)
    numbers = {row["value"] for row in drawing.rows if row["panel"] == "ece"}
    shown = {float(y) for line in drawing.figure.axes[2].lines for y in line.get_ydata()}
    assert numbers <= shown
    plt.close(drawing.figure)


def test_golden_values_of_the_exact_figures() -> None:
    use_style()
    context = Context(Path("unused"))
    rows = equivalence.FIGURE.draw(context).rows
    # Isotropic inputs: E = k W / (1 + p/k) at k = 1-p, so that the excess risk is q^2 ||W||^2 / 2.
    truth = np.random.default_rng(0).standard_normal((3, 6))
    for row in rows:
        if row["correlation"] == 0.0:
            expected = row["q"] ** 2 * float(np.sum(truth**2)) / 2
            assert row["risk_lora_dropout"] == pytest.approx(expected, rel=1e-9)
            assert row["distance"] < 1e-9
    boundary = [
        r["ridge, limit"] for r in regime_map.FIGURE.draw(context).rows if "ridge, limit" in r
    ]
    assert 0.3 < max(boundary) <= 1 / 3
    assert min(boundary) <= 0  # few examples per input: it never turns
    plt.close("all")


def test_exact_ridge_against_many_samples() -> None:
    problem = bounded_ridge(regularization=1.0)
    _, gaps, mean = problem.gaps(20, 0.5, draws=1500)
    error = gaps.std() / len(gaps) ** 0.5
    assert abs(mean - gaps.mean()) < 4 * error
    assert mean > 0
    assert np.abs(problem.targets).max() <= 1
    assert np.linalg.norm(problem.inputs, axis=1).max() <= 1 + 1e-12
    found = problem.stability(20, 0.5, draws=20)
    assert (found > 0).all()
    assert found.mean() < stability.uniform_stability(
        n=20, lipschitz=problem.lipschitz(0.5), regularization=1.0, dropout=0.5
    ).value  # fmt: skip


def test_bounds_lie_above_the_exact_gap(drawn: tuple[Context, dict[str, str]]) -> None:
    rows = read(drawn[0].out / "bounds_and_gap.csv")
    gaps = {
        (r["panel"], r["n"], r["p"]): float(r["value"]) for r in rows if r["what"] == "mean gap"
    }
    checked = 0
    for row in rows:
        if row["panel"] in ("n", "p") and row["what"] != "mean gap":
            assert float(row["value"]) > gaps[row["panel"], row["n"], row["p"]]
            checked += 1
    assert checked > 80


def test_tuning_takes_the_rate_of_the_lowest_validation_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = {m: TINY.learning_rates[i % 2] for i, m in enumerate(METHODS)}

    def fake(self: Context, function: Any, cells: Any, *, title: str) -> list[Any]:
        return [
            {
                "seed": cell["seed"],
                "history": [
                    {
                        "held_out_loss": float(
                            cell["learning_rate"]
                            != wanted[Method(cell["adapter"], cell["dropout"])]
                        )
                    }
                ],
            }
            for cell in cells
        ]

    monkeypatch.setattr(Context, "compute", fake)
    monkeypatch.setattr(tuned_runs, "pretrained", lambda store, epochs: b"weights")
    runs, rates = tuned_runs.tuned_runs(Context(tmp_path, training=TINY))
    assert rates == wanted
    assert all([run["seed"] for run in found] == [0, 1] for found in runs.values())


def test_verdicts_follow_the_numbers() -> None:
    def runs(shift: float) -> dict[Method, list[dict[str, Any]]]:
        def run(method: Method, seed: int) -> dict[str, Any]:
            level = 1.0 + (shift if method.dropout else 0.0) + 0.01 * seed * (1 + method.dropout)
            final = {"accuracy": 2 - level, "loss": level, "ece": level}
            return {"history": [{"gap": level}], "final": {"mean": final, "ensemble": final}}

        return {m: [run(m, seed) for seed in range(3)] for m in METHODS}

    for shift, verdict in ((-0.5, "reproduced"), (0.5, "contradicted"), (-0.005, "not resolved")):
        caption, found = fig1_losses.conclude(runs(shift), Context(Path(), training=TINY))
        assert found == verdict
        assert (
            caption.count(
                {"reproduced": "(better)", "contradicted": "(WORSE)"}.get(verdict, "(not resolved)")
            )
            >= 4
        )


def test_language_model_tables_come_from_comparisons_on_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(tmp_path / "out", profile="lm", training=TINY)
    monkeypatch.setattr(compared, "FOLDER", tmp_path)
    with pytest.raises(Missing, match=r"lora-dropout compare .* --task mnli"):
        render(figures()["table1_glue"], context)
    folder = tmp_path / "lm" / "sst2"
    folder.mkdir(parents=True)
    lines = ["method,seed,split,loss,accuracy,ece,gap,train_seconds"]
    for method, shift in (("LoRA", 0.0), ("LoRA Dropout, ensemble", 0.1)):
        lines += [
            f'"{method}",{s},dev,0.5,{0.7 + shift + 0.01 * s * s},0.1,0.2,3' for s in range(3)
        ]
    (folder / "compare.csv").write_text("\n".join(lines) + "\n")
    render(figures()["table1_glue"], context)
    described = json.loads((context.out / "table1_glue.json").read_text())
    assert described["verdict"] == "reproduced"
    assert "sst2 +0.100 ± 0.000" in described["caption"]
    with pytest.raises(ValueError, match="table1_glue has no profile 'quick'"):
        render(figures()["table1_glue"], Context(tmp_path))


def test_scores_are_those_of_the_tasks() -> None:
    assert set(table1_glue.SCORES) == set(GLUE_NAMES)
    for name, score in table1_glue.SCORES.items():
        assert find_task(name).score == score


def test_measurements_that_are_not_there_skip_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured.measurements, "ids", lambda: ())
    with pytest.raises(Missing, match="'digits_rates': make measurements"):
        measured.measured("digits_rates")


def test_interval_is_students_t() -> None:
    values = [1.0, 2.0, 4.0]
    mean, half = mean_interval(values)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-12)
    with pytest.raises(ValueError, match="at least two numbers, got 1"):
        mean_interval([1.0])


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["list"]) == 0
    assert "fig1_losses" in capsys.readouterr().out
    assert main(["run", "equivalence", "table1_glue", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "equivalence.pdf").is_file()
    assert "report: " in capsys.readouterr().out
    for bad, message in (
        (["run", "fig99"], "no figure named fig99"),
        (["run", "equivalence", "--seeds", "1"], "--seeds must be at least 2, got 1"),
        (["run", "equivalence", "--jobs", "0"], "--jobs must be at least 1, got 0"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(bad)
        assert message in capsys.readouterr().err


GALLERY = Path(fig1_losses.__file__).parents[2] / "gallery"


def test_the_gallery_holds_every_figure_with_its_numbers() -> None:
    for name in QUICK:
        for ending in ("png", "csv", "json"):
            assert (GALLERY / f"{name}.{ending}").is_file(), name
