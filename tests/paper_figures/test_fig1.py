import csv
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.testing.compare import compare_images
from scipy import stats

from paper_figures import fig1_losses
from paper_figures.__main__ import main
from paper_figures.fig1_losses import METHODS, Settings
from paper_figures.statistics import mean_interval

TINY = Settings(
    learning_rates=(3e-3, 1e-2),
    tuning_seeds=(100,),
    seeds=(0, 1),
    epochs=2,
    pretraining_epochs=1,
)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    files = fig1_losses.run(out, settings=TINY, jobs=1)
    return out, files


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_files_are_written_and_named(output):
    _, files = output
    names = {path.name for path in files}
    assert names == {
        "fig1_losses.png",
        "fig1_losses.pdf",
        "fig1_losses.csv",
        "fig1_losses.md",
        "fig1_losses.provenance.json",
        "fig1_table.csv",
    }
    assert all(path.stat().st_size > 0 for path in files)


def test_table_is_the_summary_of_the_curves(output):
    out, _ = output
    curves = read(out / "fig1_losses.csv")
    assert len(curves) == len(METHODS) * 2 * 3  # two seeds, epochs 0 to 2
    for row in read(out / "fig1_table.csv"):
        if not row["gap"]:
            continue
        last = [c for c in curves if c["method"] == row["method"] and c["epoch"] == "2"]
        gaps = [float(c["held_out_loss"]) - float(c["train_loss"]) for c in last]
        losses = [float(c["held_out_loss"]) for c in last]
        assert math.isclose(float(row["gap"]), np.mean(gaps), rel_tol=1e-9)
        assert math.isclose(float(row["test_loss"]), np.mean(losses), rel_tol=1e-6)


def test_second_run_draws_the_same_without_training(output, monkeypatch, capsys):
    out, files = output
    before = {path: path.read_bytes() for path in files if path.suffix in (".csv", ".png", ".md")}

    def no_training(cell, **_):
        raise AssertionError("a finished cell was computed again")

    monkeypatch.setattr(fig1_losses, "run_cell", no_training)
    fig1_losses.run(out, settings=TINY, jobs=1)
    assert {path: path.read_bytes() for path in before} == before
    assert "LoRA + LoRA Dropout" in capsys.readouterr().out


def test_tuning_takes_the_rate_of_the_lowest_validation_loss(monkeypatch):
    wanted = {m: TINY.learning_rates[i % 2] for i, m in enumerate(METHODS)}

    def fake(compute, cells, **_):
        return [
            {
                "history": [
                    {
                        "held_out_loss": float(
                            cell["learning_rate"] != wanted[(cell["adapter"], cell["dropout"])]
                        )
                    }
                ]
            }
            for cell in cells
        ]

    monkeypatch.setattr(fig1_losses, "run_cells", fake)
    chosen = fig1_losses.tune(None, b"weights", TINY, 1, "local")
    assert chosen == wanted


def test_interval_is_students_t():
    values = [1.0, 2.0, 4.0]
    mean, half = mean_interval(values)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-12)
    with pytest.raises(ValueError, match="at least two numbers, got 1"):
        mean_interval([1.0])


def test_command_lists_figures_and_refuses_unknown_ones(capsys):
    assert main(["list"]) == 0
    assert "fig1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["run", "fig99"])
    assert "no figure named fig99" in capsys.readouterr().err


GALLERY = Path(fig1_losses.__file__).parent / "gallery"


def test_the_gallery_redraws_from_its_numbers(tmp_path):
    runs = {method: {} for method in METHODS}
    labels = {method.label: method for method in METHODS}
    for row in read(GALLERY / "fig1_losses.csv"):
        record = {key: float(row[key]) for key in ("step", "train_loss", "held_out_loss", "gap")}
        runs[labels[row["method"]]].setdefault(int(row["seed"]), []).append(record)
    histories = {m: [{"history": h} for h in by_seed.values()] for m, by_seed in runs.items()}
    fig1_losses.draw(histories, tmp_path / "again")
    committed, redrawn = GALLERY / "fig1_losses.png", tmp_path / "again.png"
    assert compare_images(str(committed), str(redrawn), tol=2.0) is None
    for row in read(GALLERY / "fig1_table.csv"):
        if row["gap"]:
            gaps = [run["history"][-1]["gap"] for run in histories[labels[row["method"]]]]
            assert math.isclose(float(row["gap"]), np.mean(gaps), rel_tol=1e-9)
