"""A stopped run goes on as what it was, and what was trained is saved before it is measured."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lora_dropout.commands import measuring
from lora_dropout.commands import run_identity as identity
from lora_dropout.commands.comparison import cells as compare_runs
from lora_dropout.commands.options import flag_of
from lora_dropout.commands.run_identity import MAY_DIFFER, model_identity, rows_identity
from lora_dropout.commands.settings import CompareSettings, RunSettings, TrainSettings
from lora_dropout.tasks.catalogue import find_task
from tests.hardening.trust import world

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

# A value that differs from the default, and from `world.train_options`.
_OTHER = {
    "task": "rte", "max_length": "32", "n_train": "20", "keep_overlap": None, "adapter": "adalora",
    "rank": "4", "alpha": "8", "target_modules": "query", "modules_to_save": "classifier",
    "mask": "rank", "instances": "3", "mode": "grouped", "eval_instances": "3", "epochs": "3",
    "batch_size": "6", "warmup": "0.5", "weight_decay": "0.1", "precision": "bf16",
    "gradient_checkpointing": None, "dropout": "0.25", "inference": "mean", "rescale": None,
    "learning_rate": "0.1", "seed": "1",
}  # fmt: skip


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def stopped() -> Path:
    """Only looked at: refused before anything is written."""
    return world.stopped()


def test_every_setting_is_either_compared_or_named() -> None:
    names = {field.name for field in dataclasses.fields(TrainSettings)}
    assert names >= MAY_DIFFER and names - MAY_DIFFER == set(_OTHER)


@pytest.mark.parametrize("name", _OTHER)
def test_another_setting_is_refused_by_its_name(name: str, stopped: Path) -> None:
    value = _OTHER[name]
    flag = flag_of(name) if name != "rescale" else "--no-rescale"
    given = [flag] if value is None else [flag, value]
    before = {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file()}
    more = ["--resume"] if name == "epochs" else ["--resume", "--epochs", 2]
    status, printed = world.command(*world.train_options(stopped, *more, *given))
    assert status == 2
    if name == "adapter":  # refused for another reason before
        assert "PEFT cannot resume adalora" in printed
    else:
        assert f"began with {flag_of(name)} " in printed
        assert f"got {'False' if name == 'rescale' else value or 'True'}" in printed or name in (
            *("epochs", "alpha"),
        )
    assert {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file()} == before


def test_all_that_differs_is_named(stopped: Path) -> None:
    more = ["--resume", "--epochs", 2, "--seed", 3, "--learning-rate", 0.1]
    status, printed = world.command(*world.train_options(stopped, *more))
    assert status == 2
    assert "--learning-rate 0.0005, got 0.1; --seed 0, got 3" in printed


def test_what_may_differ_does_not_hinder(tmp_path: Path) -> None:
    """Another place, the same content: the folders of run, data and model are moved."""
    run, model, data = (tmp_path / name for name in ("moved", "bert", "sst2"))
    shutil.copytree(world.stopped(), run)
    shutil.copytree(world.base(), model)
    shutil.copytree(world.data(), data)
    options = ["--model", model, "--task", "sst2", "--data", data, "--output", run, "--epochs", 2]
    options += ["--batch-size", 12, "--instances", 2, "--eval-instances", 2, "--resume"]
    more = ["--eval-batch-size", 3, "--save-every", 1]
    status, printed = world.command("train", *options, *more)
    assert status == 0, printed
    found = record(run)
    assert found["settings"]["epochs"] == 2.0 and found["steps"] == 4
    assert found["provenance"]["resumed_at_step"] == 2
    assert "since step 2, where it was gone on with" in (run / "README.md").read_text()


@pytest.mark.parametrize("what", ["data", "model", "code", "started", "damaged"])
def test_other_means_are_refused_by_name(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.stopped()
    options = world.train_options(folder, "--resume", "--epochs", 2)
    if what == "data":
        other = Path(shutil.copytree(world.data(), tmp_path / "sst2"))
        path = other / "train.tsv"
        path.write_text(path.read_text().replace("good\t1", "good\t0", 1))
        options += ["--data", other]
        message = "began with another --data ("
    elif what == "model":
        other = Path(shutil.copytree(world.base(), tmp_path / "bert"))
        weights = other / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        options += ["--model", other]
        message = "began with another --model ("
    elif what == "code":
        monkeypatch.setattr(identity, "package_digest", lambda: "of another version")
        message = "now of another version)"
    elif what == "started":
        (folder / "started.json").unlink()
        message = "there is no started.json in"
    else:
        (folder / "started.json").write_text("{}")
        message = "started.json is damaged"
    status, printed = world.command(*options)
    assert status == 2 and message in printed, printed
    assert not (folder / "run.json").exists()


# Saved before it is measured


def test_what_was_trained_is_saved_before_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dev set that cannot be measured: the adapter is there, whole, and evaluate measures it."""
    folder = world.fresh() / "run"
    settings = ["--no-rescale", "--dropout", 0.3]
    options = world.train_options(folder, *settings)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "collect", fail)
        status, printed = world.command(*options)
    assert status == 2
    assert f"the trained adapter is saved in {folder}, but measuring it on dev failed" in printed
    assert "RuntimeError: out of memory" in printed and f"evaluate {folder}` measures" in printed
    found = record(folder)
    assert found["not_measured"] == ["dev"] and found["results"] == {}
    assert "not measured yet" in (folder / "README.md").read_text()
    status, printed = world.command("evaluate", folder, "--data", world.data())
    assert status == 0, printed
    status, printed = world.command(*options)
    assert status == 2 and "holds a trained adapter that is not measured" in printed
    measured = json.loads((folder / "evaluation.json").read_text())["results"]["dev"]
    status, printed = world.command(*options, "--resume")
    assert status == 0, printed
    completed = record(folder)
    assert "not_measured" not in completed
    assert completed["adapter_digest"] == found["adapter_digest"]
    assert completed["results"]["dev"]["loss"] == pytest.approx(measured["loss"], rel=1e-5)
    # The measured network is the trained one, to the last bit, though it was folded in between.
    again = world.fresh() / "run"
    status, printed = world.command(*world.train_options(again, *settings))
    assert status == 0, printed
    assert record(again)["results"]["dev"]["loss"] == completed["results"]["dev"]["loss"]


def test_what_cannot_be_encoded_is_found_before_training(tmp_path: Path) -> None:
    data, out = tmp_path / "squad", tmp_path / "out"
    data.mkdir()
    for split, question in (("train", "who is he"), ("dev", "who is " * 40)):
        qas = [{"id": "1", "question": question, "answers": [{"text": "he", "answer_start": 0}]}]
        content = {"data": [{"paragraphs": [{"context": f"he is in rome {split}", "qas": qas}]}]}
        (data / f"{split}-v1.1.json").write_text(json.dumps(content))
    options = ["--model", world.base(), "--task", "squad", "--data", data, "--output", out]
    status, printed = world.command("train", *options)
    assert status == 2 and "must leave room beside the longest question" in printed
    assert not out.exists()


# train and compare


def test_train_and_compare_have_one_default_for_each_setting() -> None:
    """Shared fields are those of one class, declared once; what only one has is listed."""
    shared = {field.name: field.default for field in dataclasses.fields(RunSettings)}
    for cls in (TrainSettings, CompareSettings):
        own = {field.name: field.default for field in dataclasses.fields(cls)}
        assert {name: own[name] for name in shared} == shared
        assert not set(cls.__annotations__) & set(shared)
    train = {f.name: f.default for f in dataclasses.fields(TrainSettings) if f.name not in shared}
    compare = {f.name: f.default for f in dataclasses.fields(CompareSettings)}
    both = set(train) & set(compare)
    assert both == {"dropout"} and compare["dropout"] == (train["dropout"],)
    assert shared["rescale"] is True


def test_what_is_compared_is_what_gets_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """By defaults, on the same data, seed and rates: the same weights, to the last bit."""
    options = ["--model", world.base(), "--task", "sst2", "--data", world.data(), "--epochs", 1]
    folder = world.fresh() / "run"
    status, printed = world.command("train", *options, "--output", folder, "--learning-rate", 0.003)
    assert status == 0, printed
    settings = CompareSettings(
        model=str(world.base()), task="sst2", data=world.data(), output=folder, epochs=1.0,
        n_validation=2,
    )  # fmt: skip
    cell = compare_runs.make_cell(
        settings, method="lora_dropout", rate=settings.dropout[0], learning_rate=0.003, seed=0,
        tuning=False, inputs=compare_runs.check_runs(settings),
    )  # fmt: skip
    # Without a validation set of its own.
    monkeypatch.setattr(compare_runs, "_set_aside", lambda train, *_: (train, train))
    found = compare_runs.run_cell(cell)
    assert found["adapter_digest"] == record(folder)["adapter_digest"]
    assert set(found["results"]) == {"ensemble", "mean"}  # raw is the mean network here
    trained = record(folder)["results"]["dev"]
    for name in ("loss", "accuracy", "ece"):
        assert found["results"]["ensemble"]["dev"][name] == trained[name]


def test_runs_of_a_comparison_are_known_by_content(tmp_path: Path) -> None:
    """Not by names and times of files: another content of the same size at the same time."""
    one, other = (Path(shutil.copytree(world.data(), tmp_path / n / "sst2")) for n in "ab")
    path = other / "train.tsv"
    state = path.stat()
    path.write_text(path.read_text().replace("good\t1", "good\t0", 1))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    task: Any = find_task("sst2")
    first, second, third = (rows_identity(task.load(f)) for f in (one, world.data(), other))
    assert first == second != third
    copy = Path(shutil.copytree(world.base(), tmp_path / "bert"))
    assert model_identity(str(copy), None) == model_identity(str(world.base()), None)
    (copy / "README.md").write_text("for people")
    (copy / "pytorch_model.bin").write_bytes(b"not read")
    assert model_identity(str(copy), None) == model_identity(str(world.base()), None)
    (copy / "config.json").write_text((copy / "config.json").read_text().replace("1e-12", "1e-6"))
    assert model_identity(str(copy), None) != model_identity(str(world.base()), None)
    assert model_identity("org/name", "abc") == "org/name@abc" != model_identity("org/name", "abd")
