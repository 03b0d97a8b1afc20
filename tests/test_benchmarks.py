"""The benchmarks run, check that what they time agrees, and write it down; no time is tested."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import adapter_path, bounds, convergence, growth, masked_layers
from benchmarks.core import line
from benchmarks.memory import peak_bytes
from benchmarks.table import all_lines, table
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
    row = {"values": [1, 2], "seconds": [{"median": 1.0}, {"median": 2.0}]}
    row |= {"exponent": 1.0, "peak_mib": [1.0, 3.0], "memory_exponent": 1.58}
    growth.plot({"tokens": row}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_peak_memory_is_that_of_the_tensors() -> None:
    """Two tensors of 4 MB at once, of the three that are made."""
    x = torch.ones(1000, 1000)

    def step() -> None:
        y = x + 1
        z = y * 2
        del y
        z.sin_().sum().item() and x.neg()

    assert peak_bytes(step, torch.device("cpu")) == pytest.approx(2 * x.nbytes, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_path_of_a_layer_at_a_small_size(dtype: torch.dtype) -> None:
    row = adapter_path.path(64, 32, 4, dtype, torch.device("cpu"), 2)
    assert row["forward and backward"]["milliseconds"]["median"] > 0
    for name in ("forward", "forward and backward"):
        assert row[name]["fraction_of_bandwidth"]["median"] > 0


def test_gradient_noise_of_a_known_law() -> None:
    """Mean (3, 4) and variance 1 a component: relative variance 2 / 25."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = convergence.noise(
        lambda: mean + torch.randn(2, generator=generator, dtype=torch.float64), 4000
    )
    assert found["squared_norm"] == pytest.approx(25, rel=0.03)
    assert found["relative_variance"] == pytest.approx(2 / 25, rel=0.1)


def test_time_to_a_loss() -> None:
    row = {"steps": [0, 2, 4], "train_loss": [3.0, 2.0, 1.0], "seconds_a_step": {"median": 0.5}}
    assert convergence.seconds_to(2.0, row) == 1.0
    assert convergence.seconds_to(0.5, row) is None


def test_one_table_says_which_targets_were_missed() -> None:
    lines = all_lines(RESULTS)
    assert len(lines) > 30
    text = table(lines)
    for found in lines:
        if found.target is not None:
            told = next(
                row for row in text.splitlines() if f"| {found.what} | {found.against} |" in row
            )
            assert told.endswith("missed |" if found.reached > found.target else "reached |")


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
