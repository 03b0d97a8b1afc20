"""GLUE: both local layouts, the hub, the traps, the metrics."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from lora_dropout.prediction.calibration import expected_calibration_error
from lora_dropout.tasks import text
from lora_dropout.tasks.catalogue import GLUE_NAMES, TASK_NAMES, find_task
from lora_dropout.tasks.data_warning import DataWarning
from lora_dropout.tasks.glue import GLUE, GlueTask, require_labels
from lora_dropout.tasks.text import Encoded, without_overlap
from tests.local_files import GLUE_DATA, local_files
from tests.lora_dropout.tasks.tiny import bert_tokenizer

# The official files' columns, with one row each, and what we read from it.
OFFICIAL = {
    "sst2": ("sentence\tlabel", "a fine film\t1", ("a fine film", None, 1)),
    "cola": (None, "gj04\t0\t*\tThey made.", ("They made.", None, 0)),
    "mrpc": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '1\t7\t8\tHe "said\tShe',
        ('He "said', "She", 1),
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "0\t1\t2\tA\tB\t0",
        ("A", "B", 0),
    ),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tnews\tf\t2012\t1\tx\ty\tA\tB\t3.25",
        ("A", "B", 3.25),
    ),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t1n\tfiction\tA\tB\tneutral\tcontradiction",
        ("A", "B", 2),
    ),
    "qnli": ("index\tquestion\tsentence\tlabel", "0\tQ\tS\tnot_entailment", ("Q", "S", 1)),
    "rte": ("index\tsentence1\tsentence2\tlabel", "0\tA\tB\tentailment", ("A", "B", 0)),
}


def write(path: Path, *lines: str | None, bom: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines if line is not None)
    path.write_bytes(content.encode("utf-8-sig" if bom else "utf-8"))
    return path


def rows(*, label: list, second: bool = False, first: list[str] | None = None) -> Dataset:
    data = {"sentence1": first or [f"a film {i}" for i in range(len(label))], "label": label}
    return Dataset.from_dict({**data, "sentence2": ["the plot"] * len(label)} if second else data)


@pytest.mark.parametrize("name", GLUE_NAMES)
def test_official_layout(name: str, tmp_path: Path) -> None:
    header, line, (first, second, label) = OFFICIAL[name]
    task = GLUE[name]
    dev = "dev_matched" if name == "mnli" else "dev"
    for split in ("train", dev):  # MRPC's file begins with a byte order mark
        write(tmp_path / task.folder / f"{split}.tsv", header, line, bom=name == "mrpc")
    found = task.load(tmp_path)
    assert set(found) == {"train", dev}
    wanted = {"sentence1": first, "label": label} | ({"sentence2": second} if second else {})
    assert found[dev][0] == wanted
    assert find_task(name) is task


@pytest.mark.parametrize("name", GLUE_NAMES)
def test_plain_layout_of_one_task(name: str, tmp_path: Path) -> None:
    pair = len(GLUE[name].columns) == 2
    second = "\tthe plot" if pair else ""
    header = "sentence1" + ("\tsentence2" if pair else "") + "\tlabel"
    write(tmp_path / "train.tsv", header, f"a film{second}\t1", f"dull{second}\t0")
    found = GLUE[name].load(tmp_path)
    assert list(found["train"]["label"]) == [1, 0]
    assert found["train"][0]["sentence1"] == "a film"


def test_quotes_and_odd_line_ends_are_text(tmp_path: Path) -> None:
    """csv's quoting would swallow rows; str.splitlines would cut at the unit separator."""
    path = write(
        tmp_path / "t.tsv", "sentence\tlabel", 'it was "good\t1', "one\x85two\u2028\t0", "x\t1\r"
    )
    assert list(GLUE["sst2"].read(path)["sentence1"]) == ['it was "good', "one\x85two\u2028", "x"]


def test_a_few_broken_rows_are_left_out(tmp_path: Path) -> None:
    good = ["question1\tquestion2\tis_duplicate", *["A\tB\t1"] * 1500]
    path = write(tmp_path / "qqp.tsv", *good, "A only")
    with pytest.warns(
        DataWarning, match=r"1 of 1502 rows do not have 3 cells \(first at line 1502"
    ):
        assert len(GLUE["qqp"].read(path)) == 1500
    with pytest.raises(ValueError, match="1 of 3 rows do not have 3 cells"):
        GLUE["qqp"].read(write(tmp_path / "bad.tsv", *good[:2], "A only"))


def test_bad_files(tmp_path: Path) -> None:
    sst2 = GLUE["sst2"]
    with pytest.raises(FileNotFoundError, match=r"--data: no train.tsv or dev.tsv of 'sst2' in"):
        sst2.load(tmp_path)
    with pytest.raises(ValueError, match="must have a column 'sentence1' or 'sentence', got text"):
        sst2.read(write(tmp_path / "a.tsv", "text\tlabel", "x\t1"))
    with pytest.raises(
        ValueError, match=r"row 1: label must be one of \(0 negative, 1 positive\), got '2'"
    ):
        sst2.read(write(tmp_path / "b.tsv", "sentence\tlabel", "x\t2"))
    with pytest.raises(ValueError, match=r"label must be one of .a number from 0 to 5., got '7'"):
        GLUE["stsb"].read(write(tmp_path / "c.tsv", "sentence1\tsentence2\tscore", "x\ty\t7"))
    with pytest.raises(ValueError, match="holds no examples"):
        sst2.read(write(tmp_path / "d.tsv", "sentence\tlabel"))
    with pytest.raises(ValueError, match="is empty"):
        sst2.read(write(tmp_path / "e.tsv"))
    (tmp_path / "f.tsv").write_bytes(b"sentence\tlabel\n\xff\t1\n")
    with pytest.raises(ValueError, match="is not UTF-8"):
        sst2.read(tmp_path / "f.tsv")
    with pytest.raises(ValueError, match=r"got task='sst3'; did you mean 'sst2'\?"):
        find_task("sst3")


def hub(monkeypatch: pytest.MonkeyPatch, splits: dict[str, Dataset]) -> list[tuple]:
    asked: list[tuple] = []

    def load_dataset(*arguments: str) -> DatasetDict:
        asked.append(arguments)
        return DatasetDict(splits)

    monkeypatch.setattr(text, "load_dataset", load_dataset)
    return asked


def test_hub_labels_go_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy with another order of the classes must not be read in ours."""
    features = Features(
        {
            "premise": Value("string"),
            "hypothesis": Value("string"),
            "label": ClassLabel(names=["contradiction", "entailment", "neutral"]),
            "idx": Value("int32"),
        }
    )
    data = {"premise": ["A"] * 4, "hypothesis": ["B"] * 4, "label": [0, 1, 2, -1], "idx": [0] * 4}
    split = Dataset.from_dict(data, features=features)
    asked = hub(
        monkeypatch, {"train": split, "validation_mismatched": split, "test_matched": split}
    )
    found = GLUE["mnli"].load(None)
    assert asked == [("nyu-mll/glue", "mnli")]
    assert set(found) == {"train", "dev_mismatched", "test_matched"}
    assert list(found["train"]["label"]) == [2, 0, 1, -1]
    assert found["train"][0] == {"sentence1": "A", "sentence2": "B", "label": 2}


def test_hub_regression_and_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"sentence1": ["A"], "sentence2": ["B"], "label": [2.5]}
    hub(monkeypatch, {"train": Dataset.from_dict(data)})
    assert GLUE["stsb"].load(None)["train"][0]["label"] == 2.5


def test_hub_failure_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(text, "load_dataset", load_dataset)
    with pytest.raises(OSError, match=r"'nyu-mll/glue' could not be loaded .*no route.*--data"):
        GLUE["rte"].load(None)


def test_unlabelled_test_sets_are_refused() -> None:
    unlabelled = rows(label=[-1, -1, 1])
    with pytest.raises(ValueError, match=r"2 of 3 examples have no label \(-1\).*measure on dev"):
        require_labels("sst2", unlabelled)
    encoded = GLUE["sst2"].encode(unlabelled, bert_tokenizer(), max_length=16)
    with pytest.raises(ValueError, match="no label"):
        GLUE["sst2"].measure(torch.zeros(3, 2), encoded, unlabelled)


def test_overlap_between_train_and_dev_is_left_out() -> None:
    train = rows(label=[1, 0, 1, 1], first=["a", "b", "c", "a"])
    dev = rows(label=[1, 0], first=["a", "z"])
    with pytest.warns(DataWarning, match="cola: 2 of 4 training examples are also in dev"):
        left = without_overlap(train, {"dev": dev}, name="cola")
    assert list(left["sentence1"]) == ["b", "c"]
    # A pair is the same only if both texts are.
    other = rows(label=[1], first=["a"], second=True)
    assert (
        len(without_overlap(other, {"dev": other.map(lambda _: {"sentence2": "x"})}, name="q")) == 1
    )


def test_tokens_and_truncation() -> None:
    tokenizer = bert_tokenizer()
    long = rows(label=[1, 0], first=["a " * 20, "a film"], second=True)
    with pytest.warns(
        DataWarning, match=r"rte: 1 of 2 examples \(50%\) are longer than max_length=10"
    ):
        encoded = GLUE["rte"].encode(long, tokenizer, max_length=10)
    assert (encoded.truncated, encoded.share_truncated) == (1, 0.5)
    first, second = encoded.rows["input_ids"]
    assert len(first) == 10
    words = tokenizer.decode(first)
    assert words.endswith("the plot [SEP]")  # the longer text gave way
    assert second == tokenizer("a film", "the plot")["input_ids"]
    assert set(encoded.rows.column_names) == {
        "input_ids",
        "token_type_ids",
        "attention_mask",
        "labels",
    }
    batch = GLUE["rte"].collator(tokenizer)([dict(row) for row in encoded.rows])
    assert batch["input_ids"].shape == (2, 10)
    assert batch["attention_mask"][1].sum() == len(second)
    with pytest.raises(ValueError, match="max_length must be at least 1, got max_length=0"):
        GLUE["rte"].encode(long, tokenizer, max_length=0)


def test_a_model_with_its_own_order_of_classes() -> None:
    task = GLUE["mnli"]
    order = ("contradiction", "neutral", "entailment")
    data = rows(label=[0, 1, 2, 2], second=True)
    encoded = task.encode(data, bert_tokenizer(), max_length=16, order=order)
    assert list(encoded.rows["labels"]) == [2, 1, 0, 0]
    logits = 9.0 * torch.nn.functional.one_hot(torch.tensor([2, 1, 0, 1]), 3).float()
    assert task.measure(logits, encoded, data)["accuracy"] == 0.75
    labels = [answer["label"] for answer in task.answers(logits, encoded, data)]
    assert labels == ["entailment", "neutral", "contradiction", "neutral"]


def by_hand(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    tp, tn = ((guess == 1) & (truth == 1)).sum(), ((guess == 0) & (truth == 0)).sum()
    fp, fn = ((guess == 1) & (truth == 0)).sum(), ((guess == 0) & (truth == 1)).sum()
    return {
        "accuracy": (tp + tn) / len(truth),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "mcc": (tp * tn - fp * fn)
        / math.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
    }


@pytest.mark.parametrize(
    ("name", "metrics"), [("sst2", ()), ("cola", ("mcc",)), ("mrpc", ("f1",)), ("qqp", ("f1",))]
)
def test_class_metrics(name: str, metrics: tuple[str, ...]) -> None:
    task, generator = GLUE[name], torch.Generator().manual_seed(0)
    logits = torch.randn(50, 2, generator=generator)
    truth = torch.randint(2, (50,), generator=generator)
    data = rows(label=truth.tolist(), second=len(task.columns) == 2)
    encoded = Encoded(data, 50, 0, task.labels)
    got = task.measure(logits, encoded, data)
    wanted = by_hand(truth.numpy(), logits.argmax(dim=1).numpy())
    assert set(got) == {"loss", "accuracy", "ece", *metrics, task.score}
    for key in ("accuracy", *metrics):
        assert got[key] == pytest.approx(wanted[key], abs=1e-12)
    chances = logits.softmax(dim=1)
    assert got["ece"] == expected_calibration_error(chances, truth)
    assert got["loss"] == pytest.approx(float(-chances[range(50), truth].log().mean()), rel=1e-6)
    if task.score == "mean":
        assert got["mean"] == pytest.approx((wanted["accuracy"] + wanted["f1"]) / 2)
    answer = task.answers(logits, encoded, data)[0]
    assert answer["probabilities"][task.labels[1]] == pytest.approx(float(chances[0, 1]))


def ranks(values: np.ndarray) -> np.ndarray:
    return np.array([np.mean([(v > w) + 0.5 * (v == w) for w in values]) for v in values])


def test_regression_metrics() -> None:
    task, generator = GLUE["stsb"], np.random.default_rng(0)
    truth = generator.integers(0, 6, 40) * 1.0
    guess = truth + generator.normal(size=40)
    data = rows(label=truth.tolist(), second=True)
    encoded = task.encode(data, bert_tokenizer(), max_length=16)
    assert list(encoded.rows["labels"]) == truth.tolist()
    got = task.measure(torch.tensor(guess).unsqueeze(1), encoded, data)
    assert got["pearson"] == pytest.approx(np.corrcoef(guess, truth)[0, 1])
    assert got["spearman"] == pytest.approx(np.corrcoef(ranks(guess), ranks(truth))[0, 1])
    assert got["mean"] == pytest.approx((got["pearson"] + got["spearman"]) / 2)
    assert got["loss"] == pytest.approx(np.mean((guess - truth) ** 2))
    assert "ece" not in got
    constant = task.measure(torch.ones(40, 1), encoded, data)
    assert math.isnan(constant["pearson"]) and math.isnan(constant["mean"])
    assert task.answers(torch.tensor([[2.5]]), encoded, data) == [{"value": 2.5}]


def test_every_task_has_a_name() -> None:
    assert set(GLUE) == set(GLUE_NAMES)
    assert all(find_task(name).name == name for name in TASK_NAMES)
    assert isinstance(find_task("rte"), GlueTask)


def test_real_files() -> None:
    """Sizes, CoLA's duplicates, RTE's long pairs, MRPC's quotes, on the real data."""
    folder = local_files(GLUE_DATA)
    cola = GLUE["cola"].load(folder)
    with pytest.warns(DataWarning, match="16 of 8551 training examples are also in dev"):
        assert len(without_overlap(cola["train"], {"dev": cola["dev"]}, name="cola")) == 8535
    mrpc = GLUE["mrpc"].load(folder)
    assert {k: len(v) for k, v in mrpc.items()} == {"train": 3668, "dev": 408, "test": 1725}
    assert sum(mrpc["train"]["label"]) == 2474
    assert {k: len(v) for k, v in GLUE["rte"].load(folder).items()} == {"train": 2490, "dev": 277}
    assert len(GLUE["sst2"].load(folder)["dev"]) == 872
