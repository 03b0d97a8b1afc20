"""The experiments at a tiny scale: shapes, files, and that nothing is trained twice."""

import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_dropout.safe_files import json_digest
from paper_figures.experiments import (
    digits_bounds,
    digits_ensemble,
    digits_rates,
    digits_setup,
    digits_sizes,
    digits_stability,
)
from paper_figures.experiments.__main__ import main, measure

PRETRAIN = cache(digits_setup.pretrain_digits)
TINY: dict[str, Any] = {"steps": 2, "n_instances": 2, "pretrain_epochs": 1}


@pytest.fixture(autouse=True)
def few_images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on 60 images of the pool and 40 of the test set; pretrained once."""
    if "replays" not in request.node.name:  # which shows that pretraining can be repeated

        def once(**how: Any) -> Any:
            return deepcopy(PRETRAIN(**how))

        monkeypatch.setattr(digits_setup, "pretrain_digits", once)
    if "labels" not in request.node.name:
        parts = [
            (images[:size], labels[:size])
            for size, (images, labels) in zip((60, 40), digits_setup.digits_pool(), strict=True)
        ]
        monkeypatch.setattr(digits_setup, "digits_pool", lambda: parts)


def test_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = digits_rates.Settings(rates=(0.0, 0.5), label_noise=(0.0, 0.4), seeds=2, n=8, **TINY)
    path = measure("digits_rates", out=tmp_path, work=tmp_path / "work", settings=settings)
    content = json.loads(path.read_text())
    assert content["settings"]["n"] == 8
    assert {"command", "commit", "versions"} <= content["provenance"].keys()
    assert content["values"].pop("test_examples") == 40
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
    assert json.loads(again.read_text())["values"] == content["values"] | {"test_examples": 40}


def test_a_result_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = digits_rates.Settings(rates=(0.5,), label_noise=(0.4,), seeds=2, n=8, **TINY)
    path = measure("digits_rates", out=tmp_path, work=tmp_path / "work", settings=settings)
    before, work = path.read_bytes(), ["--work", str(tmp_path / "work")]
    assert main(["--replay", str(path), *work]) == 0
    assert "repeated to the last bit" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert not list((tmp_path / "work" / "replay").iterdir())  # the next one trains anew
    content = json.loads(before)
    content["values"]["test_loss_mean"][0][1][0] += 1e-9
    path.write_text(json.dumps(content))
    assert main(["--replay", str(path), *work]) == 2
    assert "digits_rates.json is damaged: its content is not" in capsys.readouterr().err
    del content["digest"]
    path.write_text(json.dumps(content | {"digest": json_digest(content)}))
    assert main(["--replay", str(path), *work]) == 1
    assert capsys.readouterr().out.startswith("values.test_loss_mean[0][1][0]: ")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("no_such", {}, "is named after no experiment of digits_rates"),
        ("digits_rates", {"rats": []}, "is of other settings: .*'rats'"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    name: str, settings: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{name}.json"
    content = {"settings": settings, "values": {}, "provenance": {}}
    path.write_text(json.dumps(content | {"digest": json_digest(content)}))
    assert main(["--replay", str(path)]) == 2
    assert re.search(f"{name}.json {message}", capsys.readouterr().err)
    for arguments, said in (
        (["--replay", str(path), "digits_rates"], "leave NAME out"),
        ([], "give --out, a folder, or --replay"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert said in capsys.readouterr().err


def test_sizes_and_stability(tmp_path: Path) -> None:
    sizes = digits_sizes.Settings(sizes=(8, 16), rates=(0.0, 0.5), seeds=3, **TINY)
    found = digits_sizes.run(sizes, folder=tmp_path / "sizes")
    assert found.pop("test_examples") == 40
    shapes = {name.endswith("_covariance"): np.shape(table) for name, table in found.items()}
    assert shapes == {False: (2, 3, 2), True: (2, 2, 2)}
    stability = digits_stability.Settings(
        sizes=(8, 16), rates=(0.5,), samples=2, left_out=4, **TINY
    )
    measured = digits_stability.run(stability, folder=tmp_path / "stability")
    assert {np.shape(table) for table in measured.values()} == {(1, 2, 2)}
    assert (np.array(measured["absolute"]) >= np.abs(measured["signed"])).all()


def test_ensemble(tmp_path: Path) -> None:
    settings = digits_ensemble.Settings(rates=(0.0, 0.5), sizes=(1, 2, 4), seeds=2, n=8, **TINY)
    found = {k: np.array(v) for k, v in digits_ensemble.run(settings, folder=tmp_path).items()}
    for name in ("loss_probabilities", "accuracy", "ece"):
        assert found[name].shape == (2, 2, 3)
    for name in ("loss", "accuracy", "ece"):
        assert found[f"mean_{name}"].shape == (2, 2)
        square = found[f"{name}_covariance"].reshape(8, 8)
        np.testing.assert_allclose(square, square.T)
        # Without masks all members are the mean network, on every example.
        np.testing.assert_allclose(square[:4, :4], square[0, 0], rtol=1e-4)
        assert np.linalg.eigvalsh(square).min() > -1e-12
    loss = found["loss_probabilities"]
    np.testing.assert_allclose(loss[0], np.tile(found["mean_loss"][0][:, None], 3), rtol=1e-5)
    np.testing.assert_allclose(found["ece"][0][:, 2], found["mean_ece"][0], atol=1e-5)


def test_no_two_ensembles_or_runs_share_a_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested ensembles make the loss fall by convexity, and shared masks hide their own noise."""
    from lora_dropout.replicas.stack import Stack

    drawn: list[int] = []
    draw = Stack.draw

    def noted(self: Stack, seeds: Any, rates: Any) -> Any:
        if not self.model.training:
            drawn.extend(seeds[:: len(settings.rates)].flatten().tolist())  # rates share theirs
        return draw(self, seeds, rates)

    monkeypatch.setattr(Stack, "draw", noted)
    settings = digits_ensemble.Settings(rates=(0.5,), sizes=(1, 2, 4), seeds=3, n=8, **TINY)
    digits_ensemble.run(settings, folder=tmp_path)
    assert len(drawn) == len(set(drawn)) == 3 * (1 + 2 + 4)


def test_crossed_table_by_hand() -> None:
    values = np.array([[[1.0, 3.0], [0.0, 2.0]], [[3.0, 5.0], [0.0, 0.0]]])  # 2 runs, 2 settings
    found = digits_setup.crossed_table("loss", values)
    assert found["loss"] == [[2.0, 1.0], [4.0, 0.0]]
    # Means over the runs: (2, 4) and (0, 1) over the two examples.
    assert found["loss_covariance"] == [[2.0, 1.0], [1.0, 0.5]]


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_setup, "RANK", 1)  # fewer products for the ends of the spectrum
    settings = digits_bounds.Settings(
        sizes=(8,), regularizations=(0.0,), left_out=2, n_draws=4, **TINY
    )
    found = digits_bounds.run(settings, folder=tmp_path)
    assert np.shape(found["gap"]) == (1, 1)
    names, bounds = found["names"][0][0], found["bounds"][0][0]
    assert len(names) == len(bounds) == len(found["status"][0][0])
    assert "Thm 4.4 as printed, measured eta" in names
    # Without the penalty Eq. 11 is not what was trained, and the bound has nothing to divide by.
    assert bounds[names.index("Thm 4.4 as printed, measured eta")] is None


def test_corrupted_labels_are_wrong_and_the_same_each_time() -> None:
    (images, labels), _ = digits_setup.population(label_noise=0.0)
    (same, noisy), (_, noisy_test) = digits_setup.population(label_noise=0.4)
    assert (images == same).all()
    assert 0.3 < float((labels != noisy).double().mean()) < 0.5
    assert (digits_setup.population(label_noise=0.4)[1][1] == noisy_test).all()


def test_samples_of_a_run_are_nested_and_those_of_different_runs_apart() -> None:
    def of(n: int, run: int) -> tuple[int, ...]:
        return digits_setup.sample(n, run=run, block=20, population_size=50)

    small, large, other = of(5, 1), of(20, 1), of(20, 0)
    assert large[:5] == small
    assert len({*large, *other}) == 40
    for n, run in ((21, 0), (20, 2)):
        with pytest.raises(ValueError, match=f"got size={n}, block=20, run={run}"):
            of(n, run)


@pytest.mark.parametrize("experiment", [digits_rates, digits_sizes, digits_ensemble])
def test_the_pool_labels_hold_all_runs(experiment: Any) -> None:
    settings = experiment.Settings()
    block = settings.n if hasattr(settings, "n") else max(settings.sizes)
    size = len(digits_setup.digits_pool()[0][1])
    every = [
        i
        for run in range(settings.seeds)
        for i in digits_setup.sample(block, run=run, block=block, population_size=size)
    ]
    assert len(set(every)) == settings.seeds * block


def test_an_unknown_experiment_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "no_such"])
    assert "no experiment ['no_such']" in capsys.readouterr().err


def test_members_that_know_nothing_establish_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experiment and the claim together, on outputs that are noise: no size is any better."""
    from types import SimpleNamespace

    from lora_bounds.claims.measured.on_digits import ERROR, ensemble_accuracy_rises_with_size
    from lora_bounds.measurements import Measurement
    from lora_bounds.trial.frequency import judge_frequency

    generator = torch.Generator().manual_seed(0)

    def outputs(model: Any, inputs: Any, *, n_instances: int = 1, **how: Any) -> torch.Tensor:
        members = torch.randn(n_instances, 12, len(inputs), 10, generator=generator)
        return members.softmax(dim=-1).mean(dim=0).log()

    trained = SimpleNamespace(diverged={}, outputs=outputs)
    monkeypatch.setattr(digits_ensemble, "fit_replicas", lambda *args, **how: trained)
    monkeypatch.setattr(digits_ensemble, "adapted_base", lambda **how: None)
    settings = digits_ensemble.Settings(rates=(0.0, 0.5), seeds=6, n=8)
    held, repeats = 0, 20
    for _ in range(repeats):
        values = digits_ensemble.run(settings, folder=tmp_path)
        seen = Measurement("noise", "noise", vars(settings), values, {})
        held += ensemble_accuracy_rises_with_size(seen).low > 0
        over_size = np.mean(values["loss_probabilities"], axis=(0, 1))
        assert over_size[-1] < over_size[0]  # which convexity forces, and is no evidence
    found = judge_frequency(name="", failures=held, trials=repeats, probability=ERROR)
    assert not found.rejected
