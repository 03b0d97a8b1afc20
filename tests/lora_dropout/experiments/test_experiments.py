"""The experiments at a tiny scale: shapes, files, and that nothing is trained twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_dropout.experiments import digits_rates, digits_setup, digits_sizes, digits_stability
from lora_dropout.experiments.__main__ import main, measure

TINY: dict[str, Any] = {"steps": 2, "n_instances": 2, "pretrain_epochs": 1}


def test_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = digits_rates.Settings(rates=(0.0, 0.5), label_noise=(0.0, 0.4), seeds=2, n=8, **TINY)
    path = measure("digits_rates", out=tmp_path, work=tmp_path / "work", settings=settings)
    content = json.loads(path.read_text())
    assert content["settings"]["n"] == 8
    assert {"command", "commit", "versions"} <= content["provenance"].keys()
    for name, table in content["values"].items():
        assert np.shape(table) == (2, 2, 2), name
        assert np.isfinite(table).all()
    train = np.array(content["values"]["train_loss_mean"])
    assert (train[:, :, 0] != train[:, :, 1]).any()  # the rate matters

    def no_pass(*args: object) -> None:
        raise AssertionError("trained again")

    from lora_dropout.replicas.chunk import Chunk

    monkeypatch.setattr(Chunk, "train_epoch", no_pass)
    again = measure("digits_rates", out=tmp_path, work=tmp_path / "work", settings=settings)
    assert json.loads(again.read_text())["values"] == content["values"]


def test_sizes_and_stability(tmp_path: Path) -> None:
    sizes = digits_sizes.Settings(sizes=(8, 16), rates=(0.0, 0.5), seeds=3, **TINY)
    found = digits_sizes.run(sizes, folder=tmp_path / "sizes")
    assert {np.shape(table) for table in found.values()} == {(2, 3, 2)}
    stability = digits_stability.Settings(
        sizes=(8, 16), rates=(0.5,), samples=2, left_out=4, **TINY
    )
    measured = digits_stability.run(stability, folder=tmp_path / "stability")
    assert {np.shape(table) for table in measured.values()} == {(1, 2, 2)}
    assert (np.array(measured["absolute"]) >= np.abs(measured["signed"])).all()


def test_corrupted_labels_are_wrong_and_the_same_each_time() -> None:
    (images, labels), _ = digits_setup.population(label_noise=0.0)
    (same, noisy), (_, noisy_test) = digits_setup.population(label_noise=0.4)
    assert (images == same).all()
    assert 0.3 < float((labels != noisy).double().mean()) < 0.5
    assert (digits_setup.population(label_noise=0.4)[1][1] == noisy_test).all()


def test_samples_are_nested() -> None:
    small, large = (digits_setup.sample(n, seed=3, population_size=50) for n in (5, 20))
    assert large[:5] == small
    assert len(set(large)) == 20


def test_an_unknown_experiment_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "no_such"])
    assert "no experiment ['no_such']" in capsys.readouterr().err
