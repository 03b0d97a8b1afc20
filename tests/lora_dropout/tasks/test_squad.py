"""SQuAD: files, windows, spans, and the official scores."""

import json
import re
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lora_dropout.tasks import text
from lora_dropout.tasks.data_warning import DataWarning
from lora_dropout.tasks.squad import SQUAD, Windows, _scores
from tests.lora_dropout.tasks.tiny import bert_tokenizer

CONTEXT = "paris is the capital of france . rome is the capital of italy . he was born in 1976 ."
CASES = [
    ("what is the capital of italy ?", "rome"),
    ("who was born in 1976 ?", "he"),
    ("where is the film ?", None),
]


def place(gold: str) -> int:
    return re.search(rf"\b{gold}\b", CONTEXT).start()  # type: ignore[union-attr]


def squad_file(path: Path, cases: list[tuple[str, str | None]] = CASES) -> Path:
    questions = [
        {
            "id": str(i),
            "question": question,
            "answers": [{"text": gold, "answer_start": place(gold)}] if gold else [],
            "is_impossible": gold is None,
        }
        for i, (question, gold) in enumerate(cases)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    article = {"title": "t", "paragraphs": [{"context": CONTEXT, "qas": questions}]}
    path.write_text(json.dumps({"version": "v2.0", "data": [article]}))
    return path


def perfect(windows: Windows) -> Tensor:
    """Outputs of a model that knows the targets."""
    width = max(len(ids) for ids in windows.rows["input_ids"])
    outputs = torch.full((len(windows.rows), 2, width), -20.0)
    for i, row in enumerate(windows.rows):
        outputs[i, 0, row["start_positions"]] = 0.0
        outputs[i, 1, row["end_positions"]] = 0.0
    return outputs.log_softmax(dim=-1)


@pytest.mark.parametrize("max_length", [64, 24, 16])
def test_perfect_predictions_through_windows(max_length: int, tmp_path: Path) -> None:
    task = SQUAD["squad_v2"]
    data = task.load(squad_file(tmp_path / "dev-v2.0.json").parent)["dev"]
    windows = task.encode(data, bert_tokenizer(), max_length=max_length)
    assert (len(windows.rows) > 3) == (max_length < 64)
    assert all(len(ids) <= max_length for ids in windows.rows["input_ids"])
    for row, places, index in zip(windows.rows, windows.offsets, windows.example, strict=True):
        start, end = places[row["start_positions"]], places[row["end_positions"]]
        if start is not None:  # a window that holds the answer points at it
            assert CONTEXT[start[0] : end[1]] == CASES[index][1]
    outputs = perfect(windows)
    got = task.measure(outputs, windows, data)
    assert got["exact_match"] == got["f1"] == got["has_answer_f1"] == got["no_answer_f1"] == 1.0
    assert got["loss"] == pytest.approx(0.0, abs=1e-5)
    answers = task.answers(outputs, windows, data)
    assert [answer["answer"] for answer in answers] == ["rome", "he", ""]
    assert answers[0]["probability"] == pytest.approx(1.0, abs=1e-4)


def test_every_pair_is_searched_as_by_brute_force(tmp_path: Path) -> None:
    task = SQUAD["squad"]
    data = task.read(squad_file(tmp_path / "t.json", CASES[:2]))
    windows = task.encode(data, bert_tokenizer(), max_length=24)
    width = max(len(ids) for ids in windows.rows["input_ids"])
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(len(windows.rows), 2, width, generator=generator).log_softmax(dim=-1)
    best: dict[int, tuple[float, str]] = {}
    for i, (index, places) in enumerate(zip(windows.example, windows.offsets, strict=True)):
        for s, begin in enumerate(places):
            for e in range(s, min(s + 30, len(places))):
                if begin is not None and places[e] is not None:
                    found = (
                        float(outputs[i, 0, s] + outputs[i, 1, e]),
                        CONTEXT[begin[0] : places[e][1]],
                    )
                    best[index] = max(best.get(index, found), found)
    answers = task.answers(outputs, windows, data)
    assert [answer["answer"] for answer in answers] == [best[i][1] for i in range(2)]


def test_no_answer_is_for_v2_only(tmp_path: Path) -> None:
    data = SQUAD["squad"].read(squad_file(tmp_path / "t.json", CASES[:1]))
    windows = SQUAD["squad"].encode(data, bert_tokenizer(), max_length=64)
    nothing = torch.full((1, 2, len(windows.rows["input_ids"][0])), -20.0)
    nothing[..., 0] = 0.0  # all weight on "no answer here"
    assert SQUAD["squad"].answers(nothing, windows, data)[0]["answer"] != ""
    assert SQUAD["squad_v2"].answers(nothing, windows, data)[0]["answer"] == ""
    unanswered = SQUAD["squad"].read(squad_file(tmp_path / "u.json"))
    windows = SQUAD["squad"].encode(unanswered, bert_tokenizer(), max_length=64)
    with pytest.raises(ValueError, match=r"a question has no answer; is this v2.0 \(squad_v2\)\?"):
        SQUAD["squad"].measure(perfect(windows), windows, unanswered)


def test_answer_longer_than_any_window_is_counted(tmp_path: Path) -> None:
    long = CONTEXT[: CONTEXT.index(" . he")]
    data = SQUAD["squad"].read(squad_file(tmp_path / "t.json", [("what ?", long)]))
    with pytest.warns(DataWarning, match="1 of 1 examples"):
        windows = SQUAD["squad"].encode(data, bert_tokenizer(), max_length=12)
    assert windows.truncated == 1
    assert set(windows.rows["start_positions"]) == {0}


def official(prediction: str, golds: list[str]) -> tuple[float, float]:
    """EM and F1 of one question, from the definition in arXiv 1606.05250, section 6.1, and v2.0."""

    def words(said: str) -> list[str]:
        kept = "".join(c for c in said.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", kept).split()

    def f1(a: list[str], b: list[str]) -> float:
        if not a or not b:
            return float(a == b)
        same = sum((Counter(a) & Counter(b)).values())
        return 2 * same / (len(a) + len(b))

    golds = golds or [""]
    said = words(prediction)
    return max(float(said == words(g)) for g in golds), max(f1(said, words(g)) for g in golds)


phrases = st.lists(
    st.sampled_from(["the", "a", "Cat", "cat,", "dog", "An", "1976"]), max_size=4
).map(" ".join)


@given(st.lists(st.tuples(phrases, st.lists(phrases, max_size=3)), min_size=1, max_size=4))
def test_scores_by_the_definition(cases: list[tuple[str, list[str]]]) -> None:
    wanted = [official(prediction, golds) for prediction, golds in cases]
    got = _scores([p for p, _ in cases], [golds for _, golds in cases])
    assert got["exact_match"] == pytest.approx(sum(em for em, _ in wanted) / len(cases), abs=1e-6)
    assert got["f1"] == pytest.approx(sum(f1 for _, f1 in wanted) / len(cases), abs=1e-6)


def test_model_outputs_become_one_tensor() -> None:
    class Model(nn.Module):
        def forward(self, input_ids: Tensor) -> Any:
            return type("Output", (), {"start_logits": input_ids, "end_logits": input_ids + 1})

    ids = torch.arange(6.0).reshape(2, 3)
    out = SQUAD["squad"].predictor(Model(), None)(input_ids=ids)
    assert out.shape == (2, 2, 3)
    assert torch.equal(out[:, 1], ids + 1)
    assert torch.allclose(SQUAD["squad"].reduce(out, {}).exp().sum(dim=-1), torch.ones(2, 2))


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"text": ["rome"], "answer_start": [CONTEXT.index("rome")]}
    row = {"id": "1", "title": "t", "context": CONTEXT, "question": "what ?", "answers": answers}
    split = Dataset.from_list([row])
    monkeypatch.setattr(
        text, "load_dataset", lambda *a: DatasetDict({"train": split, "validation": split})
    )
    found = SQUAD["squad"].load(None)
    assert set(found) == {"train", "dev"}
    windows = SQUAD["squad"].encode(found["dev"], bert_tokenizer(), max_length=32)
    got = SQUAD["squad"].measure(perfect(windows), windows, found["dev"])
    assert got["f1"] == 1.0


def test_bad_input(tmp_path: Path) -> None:
    task = SQUAD["squad"]
    with pytest.raises(FileNotFoundError, match=r"--data: no train-v1.1.json or dev-v1.1.json in"):
        task.load(tmp_path)
    bad = tmp_path / "bad.json"
    for content, message in (
        ("{", "damaged or no JSON"),
        ('{"data": [{}]}', r"not in SQuAD's format: KeyError\('paragraphs'\)"),
        ('{"data": []}', "holds no examples"),
    ):
        bad.write_text(content)
        with pytest.raises(ValueError, match=message):
            task.read(bad)
    path = squad_file(tmp_path / "t.json", CASES[:1])
    path.write_text(path.read_text().replace('"answer_start": ', '"answer_start": 1'))
    with pytest.raises(ValueError, match=r"question 0: no answer 'rome' at 1"):
        task.read(path)
    data = task.read(squad_file(tmp_path / "t.json", CASES[:1]))
    with pytest.raises(
        ValueError, match=r"beside the longest question \(7 tokens\), got max_length=11"
    ):
        task.encode(data, bert_tokenizer(), max_length=11)
    slow = type("Slow", (), {"is_fast": False})()
    with pytest.raises(ValueError, match="squad needs a fast tokenizer, got Slow"):
        task.encode(data, slow, max_length=64)
