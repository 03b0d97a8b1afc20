"""What is wrong with data and paths is found before any work begins, and named."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_dropout.commands.loading import base_model as models
from lora_dropout.tasks.catalogue import GLUE_NAMES
from lora_dropout.tasks.glue import GLUE
from lora_dropout.tasks.text import read_json
from tests.hardening.trust import world

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def run() -> Path:
    return world.trained()


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are read, so nothing is trained."""

    def work(*_: Any, **__: Any) -> Any:
        raise AssertionError("work began")

    monkeypatch.setattr(models, "load_base", work)


def refused(message: str, *arguments: object) -> None:
    status, printed = world.command(*arguments)
    assert status == 2, printed
    assert re.search(message, printed), printed


def options(action: str, task: str, data: Path, output: Path, *more: object) -> list[object]:
    where = ["--model", world.base(), "--task", task, "--data", data, "--output", output]
    return [action, *where, *more]


# Labels


def glue_files(task: str, folder: Path, broken: str, label: Callable[[int], str] | None) -> Path:
    """A labelled split each, but for one."""
    given = GLUE[task]
    splits = ("dev_matched", "dev_mismatched") if task == "mnli" else ("dev",)
    texts = ["sentence1", "sentence2"][: len(given.columns)]
    folder.mkdir()
    for split in ("train", *splits):
        column = label if split == broken else str
        lines = [[*texts, *(["label"] if column else [])]]
        for i in range(4):
            row = [f"{split} {i} {name}" for name in texts]
            lines.append([*row, *([column(i % 2)] if column else [])])
        (folder / f"{split}.tsv").write_text("\n".join(map("\t".join, lines)) + "\n")
    return folder


@pytest.mark.parametrize("task", GLUE_NAMES)
@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("action", ["train", "compare"])
def test_a_split_of_glue_without_labels(
    action: str, split: str, task: str, no_work: None, tmp_path: Path
) -> None:
    name = "dev_mismatched" if (task, split) == ("mnli", "dev") else split
    file = rf"{name}\.tsv"
    data, out = tmp_path / "missing", tmp_path / "out"
    given = options(action, task, glue_files(task, data, name, None), out)
    refused(f"{file}: no example has a label: the column 'label' is missing", *given)
    data = glue_files(task, tmp_path / "one", name, lambda i: "-1" if i else "0")
    message = rf"{file}: 2 of 4 examples have no label \(-1\) in column 'label', the first in row 2"
    refused(message, *options(action, task, data, out))
    data = glue_files(task, tmp_path / "empty", name, lambda i: "")
    message = rf"{file}, row 1: label must be one of .*, got '' in column 'label'"
    refused(message, *options(action, task, data, out))
    assert not out.exists()


def squad_files(task: str, folder: Path, split: str, **question: Any) -> Path:
    version = "v1.1" if task == "squad" else "v2.0"
    folder.mkdir()
    for name in ("train", "dev"):
        good = {"id": "a", "question": "who", "answers": [{"text": "he", "answer_start": 0}]}
        odd = {"id": "b", "question": "what", **question} if name == split else {**good, "id": "b"}
        content = {"data": [{"paragraphs": [{"context": f"he {name}", "qas": [good, odd]}]}]}
        (folder / f"{name}-{version}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize(
    ("task", "question"),
    [
        ("squad", {}),
        ("squad", {"answers": []}),
        ("squad_v2", {}),
        ("squad_v2", {"answers": [], "is_impossible": False}),
        ("squad_v2", {"answers": [{"text": "he", "answer_start": 0}], "is_impossible": True}),
    ],
)
def test_a_question_without_answers(
    task: str, question: dict[str, Any], split: str, no_work: None, tmp_path: Path
) -> None:
    data = squad_files(task, tmp_path / "data", split, **question)
    message = rf"{split}-v..?.json: 1 of 2 questions have no 'answers', .* the first 'b'"
    refused(message.replace("v..?", "v[0-9.]+"), *options("train", task, data, tmp_path / "out"))


def test_a_question_that_has_no_answer_is_labelled(tmp_path: Path) -> None:
    from lora_dropout.tasks.squad import SQUAD

    question = {"answers": [], "is_impossible": True}
    rows = SQUAD["squad_v2"].load(squad_files("squad_v2", tmp_path / "d", "dev", **question))["dev"]
    SQUAD["squad_v2"].check_labels(rows, "dev")


def test_instructions_without_responses(no_work: None, tmp_path: Path) -> None:
    train, dev = tmp_path / "train.json", tmp_path / "dev.json"
    train.write_text(json.dumps([{"instruction": "a", "output": "b"}]))
    given = options("train", "instructions", tmp_path, tmp_path / "out")
    dev.write_text(json.dumps([{"instruction": "c", "output": ""}]))
    refused(r"dev\.json: 'output' is empty in all 1 examples", *given)
    dev.write_text(json.dumps([{"instruction": "c"}]))
    refused(r"dev\.json: record 1 must have a text 'output'", *given)


def test_evaluate_looks_at_labels_before_the_model(
    run: Path, no_work: None, tmp_path: Path
) -> None:
    data = glue_files("sst2", tmp_path / "sst2", "dev", None)
    refused(r"dev\.tsv: no example has a label", "evaluate", run, "--data", data)


# Files of data


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("sst2", "", r"train\.tsv is empty"),
        ("sst2", "\n", r"train\.tsv must have a column|holds no examples"),
        ("sst2", "sentence\tlabel\n", r"train\.tsv holds no examples"),
        ("sst2", "\ufeffsentence\tlabel\n", r"train\.tsv holds no examples"),
        ("sst2", "label\n1\n", r"train\.tsv must have a column 'sentence1' or 'sentence'"),
        (
            *("sst2", "sentence\tlabel\tlabel\na\t1\t0\n"),
            r"train\.tsv must have one column for each thing, got 'label' and 'label'",
        ),
        ("sst2", "sentence\tsentence\tlabel\na\tb\t0\n", "got 'sentence' and 'sentence'"),
        ("sst2", "sentence\tsentence1\tlabel\na\tb\t0\n", "got 'sentence' and 'sentence1'"),
        ("mrpc", "Quality\tlabel\tsentence1\tsentence2\n1\t0\ta\tb\n", "'Quality' and 'label'"),
        ("stsb", "sentence1\tsentence2\tscore\tscore\na\tb\t1\t2\n", "got 'score' and 'score'"),
        ("instructions", "", r"train\.json is damaged or no JSON"),
        ("instructions", "[]", r"train\.json holds no examples"),
        ("instructions", '[{"instruction": "a", "output": "b", "output": "c"}]',
         r"train\.json is damaged or no JSON: an object has the key 'output' twice"),
        ("squad", '{"data": []}', r"train-v1\.1\.json holds no examples"),
        ("squad", '{"data": [], "data": []}', "an object has the key 'data' twice"),
    ],
)  # fmt: skip
def test_files_that_hold_nothing_or_something_twice(
    task: str, content: str, message: str, no_work: None, tmp_path: Path
) -> None:
    ends = {"squad": "-v1.1.json", "instructions": ".json"}
    for split in ("train", "dev"):
        path = tmp_path / f"{split}{ends.get(task, '.tsv')}"
        path.write_text(content, encoding="utf-8")
    refused(message, *options("train", task, tmp_path, tmp_path / "out"))


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("\ufefflabel\tsentence\n1\ta\n", encoding="utf-8")
    assert list(GLUE["sst2"].read(path)["label"]) == [1]
    other = tmp_path / "a.json"
    other.write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert read_json(other) == {"a": 1}
    config = tmp_path / "a.yaml"
    config.write_text("\ufeffmodel: none/at/all\ntask: sst2\noutput: out\n", encoding="utf-8")
    refused("--model: 'none/at/all' could not be loaded", "train", "--config", config)


# Paths


@pytest.mark.parametrize("action", ["train", "compare"])
def test_paths_of_a_run(action: str, no_work: None, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"

    def given(**changed: object) -> list[object]:
        values = {"model": world.base(), "data": world.data(), "output": out, **changed}
        flags = [part for name, value in values.items() for part in (f"--{name}", value)]
        return [action, "--task", "sst2", *flags]

    for model in ("./none", "none/", "/none", "~/none", "../no/model", "", str(tmp_path / "none")):
        message = f"--model: {model!r} could not be loaded: there is no such folder"
        refused(re.escape(message), *given(model=model))
    refused("could not be loaded: it is a file, name the model's folder", *given(model=file))
    refused(r"there is no config\.json in this folder", *given(model=tmp_path / "empty"))
    refused("--output: .*/file is a file, not a folder", *given(output=file))
    refused("--output: .* lies in .*/file, which is a file", *given(output=file / "a" / "b"))
    taken = tmp_path / "taken"
    name = "README.md" if action == "train" else "compare.csv"
    (taken / name).mkdir(parents=True)
    refused(f"--output: .*{name} is a folder, where a file is written", *given(output=taken))
    refused("--data: there is no .*/none", *given(data=tmp_path / "none"))
    refused("--data: no train.tsv or dev.tsv of 'sst2'", *given(data=file))
    refused("--data: no train.tsv or dev.tsv of 'sst2'", *given(data=tmp_path / "empty"))
    refused("--config: there is no file", action, "--config", tmp_path)
    assert file.read_text() == "kept" and not out.exists()


def test_paths_of_using(run: Path, no_work: None, tmp_path: Path) -> None:
    dev = world.data() / "dev.tsv"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    copy = tmp_path / "dev.tsv"
    copy.write_text(dev.read_text())
    evaluate = ["evaluate", run, "--data", world.data()]
    refused("--json: .* is a folder: name a file", *evaluate, "--json", tmp_path)
    refused("--json: .* lies in .*, which is a file", *evaluate, "--json", copy / "a" / "b.json")
    refused("--json: .*/dev.tsv is a file, not a folder", *evaluate, "--json", copy / "b.json")
    refused("--json: /dev/null is no regular file", *evaluate, "--json", "/dev/null")
    (run / "evaluation.json").mkdir()
    refused("--json: .*evaluation.json is a folder", *evaluate)
    (run / "evaluation.json").rmdir()
    for name in ("run.json", "README.md", "adapter_config.json", "started.json"):
        refused(f"--json: .*{name} belongs to the run", *evaluate, "--json", run / name)
    refused("--base-model: './none' could not be loaded", *evaluate, "--base-model", "./none")
    predict = ["predict", run, "--input", copy, "--output"]
    refused("--output: .* is a folder: name a file", *predict, tmp_path)
    refused(
        "--output: .*dev.tsv is the --input", *predict, tmp_path / ".." / tmp_path.name / "dev.tsv"
    )
    refused("--output: .*run.json belongs to the run", *predict, run / "run.json")
    refused(
        "--input: .* is a folder: name a file", *predict[:2], "--input", tmp_path, "--output", "x"
    )
    for folder in (tmp_path / "none", copy, tmp_path):
        refused("holds no finished run", "evaluate", folder)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_trailing_slash_and_a_relative_path_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.base().parent)
    model = f"{world.base().name}/"
    given = ["--task", "sst2", "--data", world.data(), "--output", tmp_path / "out", "--dry-run"]
    status, printed = world.command("train", "--model", model, *given)
    assert status == 0, printed
