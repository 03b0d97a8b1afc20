"""The benchmarks run, check that what they time agrees, and write it down; no time is tested."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import bounds, growth, masked_layers
from benchmarks.core import line
from benchmarks.turns import ratio_row, time_in_turn

RESULTS = Path(bounds.__file__).parent / "results"


def test_turns_alternate_and_ratios_are_taken_turn_by_turn() -> None:
    called = []
    functions = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    seen = time_in_turn(functions, rounds=3, warmup=1)
    assert called == ["a", "b"] * 4
    assert [len(values) for values in seen.values()] == [3, 3]
    made = {"a": np.array([1.0, 2.0, 9.0]), "b": np.array([2.0, 2.0, 3.0])}
    row = ratio_row(made, "a", "b", target=1.0)
    assert row["time_ratio"] == {"lower_quartile": 0.75, "median": 1.0, "upper_quartile": 2.0}
    assert "target 1" in line(row)


def test_layers_and_bounds_at_a_small_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = masked_layers.run(torch.device("cpu"), 1)
    monkeypatch.setattr(bounds, "imports", lambda rounds: [])
    rows += bounds.million_bounds(1)
    assert len(rows) == 14
    for row in rows:
        assert row["time_ratio"]["median"] > 0
        assert str(row["what"]) in line(row)


def test_growth_fits_the_upper_half(tmp_path: Path) -> None:
    assert growth.exponent([1, 2, 4, 8], [5.0, 5.0, 10.0, 20.0]) == pytest.approx(1.0)
    row = {"values": [1, 2], "seconds": [{"median": 1.0}, {"median": 2.0}], "exponent": 1.0}
    growth.plot({"tokens": row}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_unknown_names_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "no_such"],
        capture_output=True,
        text=True,
        cwd=RESULTS.parents[1],
        check=False,
    )
    assert done.returncode == 2
    assert "no benchmark ['no_such']" in done.stderr


@pytest.mark.parametrize("file", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.name)
def test_results_on_file_say_where_they_are_from(file: Path) -> None:
    made = json.loads(file.read_text())["provenance"]
    assert {"command", "commit", "versions", "machine", "cpus"} <= made.keys()
