"""`lora-dropout` from end to end, on a tiny BERT and TSV files made here."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from lora_dropout import __main__ as cli
from lora_dropout.commands import settings
from lora_dropout.commands.comparison import cells as compare_runs
from lora_dropout.commands.comparison import conclusions as compare_report
from lora_dropout.commands.options import read_settings
from lora_dropout.commands.settings import TrainSettings
from lora_dropout.runs import store as sweeps
from lora_dropout.runs.differences import differences
from lora_dropout.tasks.mmlu import MmluTask
from tests.local_files import ENCODER, GLUE_DATA, local_files
from tests.lora_dropout.tasks.test_language import mmlu_folder
from tests.lora_dropout.tasks.test_squad import squad_file
from tests.lora_dropout.tasks.tiny import save_tiny_bert, save_tiny_gpt2

# PEFT and transformers call each other by deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

GOOD, BAD = ("good", "great", "fine", "nice"), ("bad", "awful", "poor", "dull")
NOUNS = ("film", "plot", "cast", "story")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()  # runs of a comparison take one
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences that the words decide; all differ."""
    folder = tmp_path_factory.mktemp("glue") / "sst2"
    folder.mkdir()
    lines = [
        f"the {noun} is {start}{word}\t{label}"
        for start in ("", "very ", "not ", "a very ")
        for noun in NOUNS
        for words, label in ((GOOD, 1), (BAD, 0))
        for word in words
    ]
    train, dev = lines[::2] + lines[1::4], lines[3::4]
    for name, part in (("train", train), ("dev", dev)):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *part]) + "\n")
    return folder


def train_options(bert: Path, glue: Path, output: Path, *more: str) -> list[str]:
    quick = ["--epochs", "2", "--batch-size", "8", "--learning-rate", "0.01", "--instances", "2"]
    common = ["train", "--model", str(bert), "--task", "sst2", "--data", str(glue)]
    return [*common, "--output", str(output), "--eval-instances", "3", *quick, *more]


@pytest.fixture(scope="module")
def trained(bert: Path, glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert cli.main(train_options(bert, glue, folder, "--no-rescale")) == 0
    return folder


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_train_leaves_an_adapter_a_record_and_a_card(trained: Path, bert: Path) -> None:
    found = record(trained)
    assert found["settings"]["dropout"] == 0.5 and found["settings"]["rescale"] is False
    assert found["n_train"] == 96 and found["steps"] == 24
    assert {"loss", "accuracy", "ece"} < set(found["results"]["dev"])
    assert found["provenance"]["versions"]["peft"]
    card = (trained / "README.md").read_text()
    assert card.startswith("---\n") and "library_name: peft" in card
    assert f"| dev | accuracy | {found['results']['dev']['accuracy']:.4g} |" in card
    assert not list(trained.rglob("*.bin")) or all(
        path.parent.name.startswith("checkpoint") for path in trained.rglob("*.bin")
    )


@pytest.mark.parametrize("inference", ["ensemble", "mean", "raw"])
def test_evaluate_and_predict_agree(
    inference: str, trained: Path, glue: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evaluation.json"
    how = ["--inference", inference]
    options = ["evaluate", str(trained), "--data", str(glue), "--json", str(out), *how]
    assert cli.main(options) == 0
    metrics = json.loads(out.read_text())["results"]["dev"]
    if inference == "ensemble":  # what train itself measured, before the factors were folded
        wanted = record(trained)["results"]["dev"]
        assert metrics["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert metrics["accuracy"] == wanted["accuracy"]
    answers = tmp_path / "answers.jsonl"
    options = ["predict", str(trained), "--input", str(glue / "dev.tsv"), "--output", str(answers)]
    assert cli.main([*options, *how]) == 0
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    lines = (glue / "dev.tsv").read_text().splitlines()[1:]
    names = ("negative", "positive")
    truth = [names[int(line.rpartition("\t")[2])] for line in lines]
    right = [answer["label"] == label for answer, label in zip(found, truth, strict=True)]
    assert sum(right) / len(right) == pytest.approx(metrics["accuracy"])
    chances = torch.tensor([a["probabilities"][t] for a, t in zip(found, truth, strict=True)])
    assert float(-chances.log().mean()) == pytest.approx(metrics["loss"], rel=1e-4)


def test_plain_peft_computes_the_mean_network(
    trained: Path, bert: Path, glue: Path, tmp_path: Path
) -> None:
    """Trained without rescaling: what is saved is folded."""
    answers = tmp_path / "answers.jsonl"
    options = ["predict", str(trained), "--input", str(glue / "dev.tsv"), "--output", str(answers)]
    assert cli.main([*options, "--inference", "mean"]) == 0
    from tests.lora_dropout.tasks.tiny import bert_tokenizer

    base = AutoModelForSequenceClassification.from_pretrained(bert, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(trained)).eval()
    texts = [line.rpartition("\t")[0] for line in (glue / "dev.tsv").read_text().splitlines()[1:]]
    with torch.no_grad():
        batch = bert_tokenizer()(texts, padding=True, return_tensors="pt")
        wanted = model(**batch).logits.softmax(dim=-1)[:, 1]
    got = [json.loads(x)["probabilities"]["positive"] for x in answers.read_text().splitlines()]
    assert torch.tensor(got) == pytest.approx(wanted, abs=1e-5)


def test_a_stopped_training_resumes(
    bert: Path,
    glue: Path,
    tmp_path: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lora_dropout.peft import LoRADropoutTrainer

    step, calls = LoRADropoutTrainer.training_step, []

    def stop(self: Any, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return step(self, *arguments, **more)

    options = train_options(bert, glue, tmp_path / "run", "--no-rescale")
    with monkeypatch.context() as patch:
        patch.setattr(LoRADropoutTrainer, "training_step", stop)
        assert cli.main(options) == 130
    assert "interrupted" in capsys.readouterr().err
    assert cli.main(options) == 2
    assert "holds checkpoints of a stopped run; add --resume" in capsys.readouterr().err
    assert cli.main([*options, "--resume"]) == 0
    wanted, got = record(trained), record(tmp_path / "run")
    assert differences(got, wanted) == []
    assert got["adapter_digest"] == wanted["adapter_digest"]
    assert "train_loss" in wanted and "train_loss" not in got  # it would be of the last part only
    assert cli.main(options) == 2
    assert "holds a finished run" in capsys.readouterr().err


def test_dry_run_counts_by_hand(
    bert: Path, glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = train_options(bert, glue, tmp_path / "no", "--dry-run", "--rank", "4")
    assert cli.main([*options, "--target-modules", "query", "value"]) == 0
    shown = capsys.readouterr().out
    lora, head = 2 * 2 * (4 * 16 + 16 * 4), 16 * 2 + 2
    assert f"trainable parameters {lora + head:,} of" in shown
    assert "bert.encoder.layer.1.attention.self.value" in shown
    assert "activations up to about" in shown
    assert not (tmp_path / "no").exists()


def test_config_file_and_flags(bert: Path, glue: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {bert}\ntask: sst2\noutput: {tmp_path / 'o'}\nlearning-rate: 1e-3\nrank: 2\n"
        "target_modules: [query, value]\nrescale: false\nmax_length: null\n"
    )
    arguments = cli._parser().parse_args(["train", "--config", str(path), "--rank", "3"])
    found = read_settings(TrainSettings, arguments)
    assert (found.learning_rate, found.rank, found.rescale) == (1e-3, 3, False)
    assert found.target_modules == ("query", "value")
    assert found.output == tmp_path / "o" and found.max_length is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat: 1", "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ("rank: two", "--rank must be an integer, got 'two'"),
        ("rescale: 3", "--rescale must be true or false, got 3"),
        ("rank: true", "--rank must be an integer, got True"),
        ("mask: rows", "--mask must be one of row_column, rank"),
        ("epochs: .inf", "--epochs must be a number, got inf"),
        ("- rank", "must hold key: value lines"),
        ("rank: 2\nrank: 4", "the key 'rank' is there twice"),
        ("eval-batch-size: 2\neval_batch_size: 4", "--eval-batch-size is there twice"),
        ("a: [", "is no YAML"),
        ("rank: 2", "--model is required, here or in a --config file"),
        ("a: !!python/object/apply:os.system ['true']", "is no YAML"),
    ],
)
def test_bad_config(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(line + "\n")
    assert cli.main(["train", "--config", str(path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dropout", "1"], "--dropout must be below 1"),
        (["--dropout", "1.5"], "--dropout must be in [0, 1]"),
        (["--rank", "0"], "--rank must be at least 1, got --rank=0"),
        (["--n-train", "97"], "--n-train must be at most 96, got 97"),
        (["--max-length", "65"], "--max-length must be at most 64 for this model, got 65"),
        (["--target-modules", "nothing"], "--target-modules: No modules were targeted"),
        (["--model", "/nowhere/at/all"], "--model: '/nowhere/at/all' could not be loaded"),
        (["--data", "/nowhere"], "--data: there is no /nowhere"),
        (["--task", "mmlu"], "--task: mmlu has no training data"),
        (["--task", "rte"], "--data: no train.tsv or dev.tsv of 'rte'"),
        (["--adapter", "adalora", "--resume"], "--adapter: PEFT cannot resume adalora"),
        (["--resume"], "--resume: there is no checkpoint"),
        (["--warmup", "1"], "--warmup must be below 1, got 1.0"),
        (["--config", "none.yaml"], "--config: there is no file none.yaml"),
    ],
)
def test_bad_options(
    more: list[str], message: str, bert: Path, glue: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = glue if "rte" not in more else tmp_path
    assert cli.main(train_options(bert, data, tmp_path / "o", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o" / "run.json").exists()


def test_report_to(
    bert: Path, glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = train_options(bert, glue, tmp_path / "run", "--epochs", "0.1")
    assert cli.main([*options, "--report-to", "no_such_place"]) == 2
    assert "--report-to no_such_place" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert cli.main([*options, "--report-to", "tensorboard"]) == 0
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_using_needs_what_train_wrote(
    trained: Path, glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (["evaluate", str(tmp_path)], "holds no finished run of `lora-dropout train`"),
        (["evaluate", str(trained)], "--data: the run used local data"),
        (
            ["evaluate", str(trained), "--data", str(glue), "--split", "tset"],
            "--split must be one of train, dev, got 'tset'",
        ),
        (
            ["evaluate", str(trained), "--data", str(glue), "--task", "squad"],
            "--task: a model trained on 'sst2' does not fit 'squad'",
        ),
        (
            ["predict", str(trained), "--input", "none.tsv", "--output", "x"],
            "--input: there is no file none.tsv",
        ),
    ):
        assert cli.main(options) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "run.json").write_text("{}")
    assert cli.main(["evaluate", str(tmp_path)]) == 2
    assert "run.json is damaged" in capsys.readouterr().err


def test_code_of_a_repository_needs_a_flag(
    monkeypatch: pytest.MonkeyPatch, trained: Path, glue: Path
) -> None:
    """Neither by default nor because a folder's run.json says so."""
    from lora_dropout.commands.loading import base_model as models

    asked: list[bool] = []
    real = models.AutoConfig.from_pretrained

    def spy(name: str, **options: Any) -> Any:
        asked.append(options["trust_remote_code"])
        return real(name, **options)

    monkeypatch.setattr(models.AutoConfig, "from_pretrained", spy)
    path = trained / "run.json"
    before = path.read_text()
    try:
        path.write_text(before.replace('"trust_remote_code": false', '"trust_remote_code": true'))
        assert '"trust_remote_code": true' in path.read_text()
        out = str(trained / "evaluation.json")
        assert cli.main(["evaluate", str(trained), "--data", str(glue), "--json", out]) == 0
    finally:
        path.write_text(before)
    assert asked and not any(asked)


def test_squad_from_end_to_end(bert: Path, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        squad_file(tmp_path / "data" / f"{name}-v2.0.json")
    out = tmp_path / "run"
    options = ["--model", str(bert), "--task", "squad_v2", "--data", str(tmp_path / "data")]
    options += ["--output", str(out), "--epochs", "1", "--keep-overlap", "--mode", "batched"]
    assert cli.main(["train", *options]) == 0
    assert {"exact_match", "f1", "no_answer_f1"} < set(record(out)["results"]["dev"])
    answers, file = tmp_path / "a.jsonl", tmp_path / "data" / "dev-v2.0.json"
    assert cli.main(["predict", str(out), "--input", str(file), "--output", str(answers)]) == 0
    assert [json.loads(line)["id"] for line in answers.read_text().splitlines()] == ["0", "1", "2"]


def test_instructions_then_mmlu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_gpt2(tmp_path / "gpt2")
    data, out = tmp_path / "alpaca.json", tmp_path / "run"
    data.write_text(json.dumps([{"instruction": f"i{i}", "output": "yes"} for i in range(12)]))
    options = ["--model", str(model), "--task", "instructions", "--data", str(data)]
    assert cli.main(["train", *options, "--output", str(out), "--epochs", "1"]) == 0
    assert record(out)["results"]["dev"]["perplexity"] > 1
    folder = mmlu_folder(tmp_path / "mmlu")
    assert cli.main(["evaluate", str(out), "--task", "mmlu", "--data", str(folder)]) == 0
    assert "test (ensemble), 3 examples" in capsys.readouterr().out
    found = json.loads((out / "evaluation.json").read_text())
    assert 0 <= found["results"]["test"]["subject_accuracy"] <= 1
    assert cli.main(["predict", str(out), "--input", str(data), "--output", "x"]) == 2
    assert "answered by text" in capsys.readouterr().err
    assert MmluTask.trainable is False


def test_adalora_prunes_to_its_budget(bert: Path, glue: Path, tmp_path: Path) -> None:
    options = train_options(bert, glue, tmp_path, "--adapter", "adalora", "--rank", "4")
    assert cli.main(options) == 0
    from safetensors.torch import load_file

    out = str(tmp_path / "evaluation.json")
    assert cli.main(["evaluate", str(tmp_path), "--data", str(glue), "--json", out]) == 0
    again = json.loads(Path(out).read_text())["results"]["dev"]
    assert again["loss"] == pytest.approx(record(tmp_path)["results"]["dev"]["loss"], rel=1e-5)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    kept = [int((t != 0).sum()) for name, t in tensors.items() if name.endswith("lora_E")]
    full = 6 * len(kept)  # begun with 3/2 of the rank
    assert kept and sum(kept) < full


def tampered(path: Path, folder: Path, *way: str | int) -> Path:
    """A copy of a record, with a recorded number changed in its last bit."""
    content = json.loads(path.read_text())
    *keys, last = way
    inner = content
    for key in keys:
        inner = inner[key]
    inner[last] = math.nextafter(inner[last], 1)
    copy = folder / path.name
    copy.write_text(json.dumps(content))
    return copy


def test_train_replays(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The record itself, with its weights; then a record with one bit changed."""
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert cli.main(["train", "--replay", str(trained)]) == 0
    assert "repeated to the last bit" in capsys.readouterr().out.splitlines()[-1]
    changed = tampered(trained / "run.json", tmp_path, "results", "dev", "loss")
    assert cli.main(["train", "--replay", str(changed)]) == 1
    *_, first, last = (x for x in capsys.readouterr().out.splitlines() if "provenance" not in x)
    assert first.startswith("results.dev.loss: ") and "relative difference 1" in first
    assert last.startswith("differs: 1 of ") and str(changed) in last
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_the_digest_of_a_record_is_that_of_the_weights(
    trained: Path, bert: Path, glue: Path, tmp_path: Path
) -> None:
    found = record(trained)
    assert len(found["adapter_digest"]) == 32 and found["processes"] == 1
    assert found["provenance"]["threads"] == torch.get_num_threads()
    again = tmp_path / "run"
    options = train_options(bert, glue, again, "--no-rescale", "--seed", "1", "--epochs", "0.1")
    assert cli.main(options) == 0
    assert record(again)["adapter_digest"] != found["adapter_digest"]


@pytest.mark.parametrize(
    ("more", "change", "message"),
    [
        (["--rank", "2"], {}, "--replay: the settings are the record's, besides --model, --data"),
        (["--config", "a.yaml"], {}, "got --config"),
        (["--data", "/nowhere"], {}, "give --data: --data: there is no /nowhere"),
        ([], {"rank": "two"}, "run.json: --rank must be an integer, got 'two'"),
        ([], {"rank": 0}, "run.json: --rank must be at least 1, got --rank=0"),
        ([], {"rang": 8}, "run.json: unknown key 'rang'; did you mean 'rank'?"),
        ([], {"trust_remote_code": True}, "add --trust-remote-code to run it again"),
        ([], {"model": "models/bert"}, "its model was a folder, models/bert, not there now"),
        ([], None, "cannot be repeated without its settings, got None"),
    ],
)
def test_bad_replays(
    more: list[str], change: dict[str, Any] | None, message: str, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    content = record(trained)
    content["settings"] = None if change is None else content["settings"] | change
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert cli.main(["train", "--replay", str(tmp_path), *more]) == 2
    assert message in capsys.readouterr().err
    assert cli.main(["compare", "--replay", str(tmp_path / "none.json"), *more]) == 2
    assert "none.json: No such file" in capsys.readouterr().err


# compare


def compare_options(bert: Path, glue: Path, output: Path, *more: str) -> list[str]:
    options = ["compare", "--model", str(bert), "--task", "sst2", "--data", str(glue)]
    options += ["--output", str(output), "--n-train", "32", "--n-validation", "24", "--seeds", "2"]
    options += ["--epochs", "1", "--learning-rates", "0.003", "0.01", "--instances", "2"]
    options += ["--no-rescale"]  # else the mean network is the raw one
    return [*options, "--eval-instances", "2", "--mode", "grouped", *more]


@pytest.fixture(scope="module")
def compared(bert: Path, glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    threads = torch.get_num_threads()
    assert cli.main(compare_options(bert, glue, folder)) == 0
    torch.set_num_threads(threads)
    return folder


def test_compare_reports_what_the_runs_found(compared: Path) -> None:
    found = json.loads((compared / "compare.json").read_text())
    assert set(found["chosen"]) == {"lora", "dropout", "lora_dropout"}
    assert len(found["runs"]) == 6 and len(found["tuning"]) == 6
    with (compared / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5  # seeds, ways
    text = (compared / "compare.md").read_text()
    for name in compare_report._NAMES.values():
        values = [float(row["accuracy"]) for row in rows if row["method"] == name]
        mean, half = compare_report.interval(values)
        assert f"{mean:.4g} ± {half:.2g}" in text
    for row in rows:
        run = next(
            run
            for run in found["runs"]
            if str(run["seed"]) == row["seed"] and run["method"] == _key(row["method"])
        )
        way = next(w for (_, w), name in compare_report._NAMES.items() if name == row["method"])
        losses = run["results"][way]["dev"]["loss"], run["results"][way]["train"]["loss"]
        assert float(row["gap"]) == pytest.approx(losses[0] - losses[1])
        assert run["n_train"] == 32
    # Raw and mean predictions of the same weights differ without rescaling.
    assert [r["loss"] for r in rows if "mean" in r["method"]] != [
        r["loss"] for r in rows if "raw" in r["method"]
    ]


def _key(name: str) -> str:
    return next(method for (method, _), shown in compare_report._NAMES.items() if shown == name)


def is_tuning(path: Path) -> bool:
    return json.loads(path.read_text())["cell"]["tuning"]


def test_compare_resumes(
    compared: Path,
    bert: Path,
    glue: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One run more than the tuning, then Ctrl-C; nothing is computed twice."""
    keep = {path.name for path in (compared / "runs").iterdir() if is_tuning(path)}
    shutil.copytree(compared / "runs", tmp_path / "runs", ignore=lambda _, names: set(names) - keep)
    run, cells = compare_runs.run_cell, []

    def stop(cell: Any) -> Any:
        if cells:
            raise KeyboardInterrupt
        cells.append(cell)
        return run(cell)

    with monkeypatch.context() as patch:
        patch.setattr(compare_runs, "run_cell", stop)
        assert cli.main(compare_options(bert, glue, tmp_path)) == 130
    assert len(list((tmp_path / "runs").glob("*.json"))) == 7
    with monkeypatch.context() as patch:
        patch.setattr(compare_runs, "run_cell", lambda cell: cells.append(cell) or run(cell))
        assert cli.main(compare_options(bert, glue, tmp_path)) == 0
    assert len(cells) == 6 and not any(cell["tuning"] for cell in cells)
    both = [json.loads((f / "compare.json").read_text())["rows"] for f in (compared, tmp_path)]
    costs = ("train_seconds", "predict_seconds_1000", "peak_mb")
    plain, resumed = ([{k: v for k, v in r.items() if k not in costs} for r in b] for b in both)
    assert plain == resumed
    capsys.readouterr()


def test_compare_replays(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder that has most of the runs, as if it had been stopped."""
    done, last = tmp_path / "again" / "runs", sorted((compared / "runs").iterdir())[-1]
    shutil.copytree(compared / "runs", done)
    (done / last.name).unlink()
    before = (compared / "compare.json").read_bytes()
    again = ["--output", str(tmp_path / "again")]
    assert cli.main(["compare", "--replay", str(compared), *again]) == 0
    assert (done / last.name).is_file()
    assert "repeated to the last bit" in capsys.readouterr().out
    changed = tampered(compared / "compare.json", tmp_path, "rows", 3, "loss")
    assert cli.main(["compare", "--replay", str(changed), *again]) == 1
    assert "rows[3].loss: " in capsys.readouterr().out
    assert cli.main(["compare", "--replay", str(compared), "--output", str(compared)]) == 2
    assert "--output must be another folder than the record's" in capsys.readouterr().err
    content = json.loads(changed.read_text())
    content["settings"]["model"] = "models/bert"
    changed.write_text(json.dumps(content))
    assert cli.main(["compare", "--replay", str(changed), *again]) == 2
    assert "its model was a folder, models/bert, not there now" in capsys.readouterr().err
    assert (compared / "compare.json").read_bytes() == before


def test_compare_never_tunes_on_dev(
    bert: Path, glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another dev set the tuning runs find the same, and the same is chosen."""
    cells: list[Any] = []
    monkeypatch.setattr(sweeps, "run_cells", lambda c, cs, **_: cells.extend(cs) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(compare_options(bert, glue, tmp_path))
    assert {cell["tuning"] for cell in cells} == {True}
    assert min(cell["seed"] for cell in cells) >= 10_000
    other = tmp_path / "glue"
    other.mkdir()
    (other / "train.tsv").write_text((glue / "train.tsv").read_text())
    (other / "dev.tsv").write_text("sentence\tlabel\nnice nice\t0\n")
    cell = cells[-1]
    found = [compare_runs.run_cell(c) for c in (cell, {**cell, "data": str(other)})]
    for value in found:
        assert set(value["results"]) == {"ensemble"}
        assert set(value["results"]["ensemble"]) == {"validation"}
        value["results"]["ensemble"]["validation"].pop("seconds")
    assert found[0]["results"] == found[1]["results"]


def test_the_best_candidate_is_chosen() -> None:
    options = settings.CompareSettings(model="m", task="sst2", output=Path())

    def tried(rate: float, *pairs: tuple[float | None, float | None]) -> list[Any]:
        candidate = {"method": "lora", "rate": 0.0, "learning_rate": rate}
        return [
            (candidate, {"results": {"plain": {"validation": {"accuracy": a, "loss": x}}}})
            for a, x in pairs
        ]

    tuning = [
        *tried(1e-4, (0.9, 0.5), (0.5, 0.9)),
        *tried(1e-3, (0.8, 0.7), (0.8, 0.7)),
        *tried(2e-3, (0.8, 0.6), (0.8, 0.6)),
        *tried(1e-2, (1.0, 0.1), (None, None)),
    ]
    assert compare_report.choose(options, tuning)["lora"]["learning_rate"] == 2e-3


def test_a_failed_run_says_which(
    bert: Path,
    glue: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(cell: Any) -> Any:
        raise FloatingPointError("loss is not finite")

    monkeypatch.setattr(compare_runs, "run_cell", fail)
    assert cli.main(compare_options(bert, glue, tmp_path)) == 1
    shown = capsys.readouterr().err
    assert "6 of 6 cells failed" in shown and "loss is not finite" in shown


def test_intervals() -> None:
    mean, half = compare_report.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302652729749464 / 3**0.5)  # t(0.975, 2) from a table
    assert compare_report.interval([0.5, 0.5]) == (0.5, 0.0)


def test_help_is_quick_and_teaches() -> None:
    """Nothing of the extra is imported for it."""
    code = (
        "import sys; from lora_dropout.__main__ import main\n"
        "try: main(['compare', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'transformers', 'peft', 'datasets', 'sklearn', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout and "--learning-rates" in done.stdout


def test_real_encoder_on_cola(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = local_files(ENCODER), local_files(GLUE_DATA)
    options = ["--model", str(model), "--task", "cola", "--data", str(data), "--n-train", "32"]
    options += ["--epochs", "1", "--max-length", "32", "--instances", "2", "--mode", "grouped"]
    options += ["--eval-instances", "1", "--output", str(tmp_path)]
    assert cli.main(["train", *options]) == 0
    assert "cola: 16 of 8551 training examples are also in dev" in capsys.readouterr().err
    assert record(tmp_path)["overlap_left_out"] == 16
