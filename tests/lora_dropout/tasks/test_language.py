"""Instruction tuning and MMLU: causal models."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict

from lora_dropout.tasks import text
from lora_dropout.tasks.data_warning import DataWarning
from lora_dropout.tasks.instructions import InstructionTask, prompt
from lora_dropout.tasks.mmlu import MmluTask, letter_tokens
from lora_dropout.tasks.mmlu import prompt as question_prompt
from tests.lora_dropout.tasks.tiny import bert_tokenizer, bytes_tokenizer, tiny_gpt2

RECORDS = [
    {"instruction": "Say yes {now}.", "input": "", "output": "yes"},
    {"instruction": "Repeat.", "input": "hello", "output": "hello"},
]


def alpaca(records: list[dict[str, str]]) -> Dataset:
    return Dataset.from_list(records)


def test_labels_on_the_response_only() -> None:
    task, tokenizer = InstructionTask(), bytes_tokenizer()
    encoded = task.encode(alpaca(RECORDS), tokenizer, max_length=600)
    for row, record in zip(encoded.rows, RECORDS, strict=True):
        asked = [
            i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100
        ]
        said = [label for label in row["labels"] if label != -100]
        assert tokenizer.decode(asked) == prompt(record["instruction"], record["input"])
        assert tokenizer.decode(said) == record["output"] + "<end>"
        assert row["input_ids"][-len(said) :] == said
    assert "### Input:\nhello" in prompt("Repeat.", "hello")
    assert "Input" not in prompt("Say yes {now}.") and "{now}" in prompt("Say yes {now}.")


def test_loss_and_padding() -> None:
    """The loss over padded batches is the token mean of single rows."""
    task, tokenizer = InstructionTask(), bytes_tokenizer()
    model = tiny_gpt2(tokenizer)
    data = alpaca(RECORDS)
    encoded = task.encode(data, tokenizer, max_length=600)
    rows = [dict(row) for row in encoded.rows]
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row["input_ids"]])
            chances = model(ids).logits[0].log_softmax(dim=-1)
            for place, label in enumerate(row["labels"]):
                if label != -100:
                    total, count = total - float(chances[place - 1, label]), count + 1
        batch = task.collator(tokenizer)(rows)
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        batch_loss = float(model(**batch).loss)
    got = task.measure(task.reduce(outputs, batch), encoded, data)
    assert got["loss"] == pytest.approx(total / count, rel=1e-5)
    assert got["loss"] == pytest.approx(batch_loss, rel=1e-5)  # what training minimises
    assert got["perplexity"] == pytest.approx(math.exp(got["loss"]))


def test_a_response_that_is_cut_off_whole_is_left_out() -> None:
    task, tokenizer = InstructionTask(), bytes_tokenizer()
    length = len(prompt("Say yes {now}."))
    records = [RECORDS[0], {**RECORDS[0], "instruction": "Say yes {now}." + "x" * 50}]
    with pytest.warns(DataWarning, match="2 of 2 examples"):
        encoded = task.encode(alpaca(records), tokenizer, max_length=length + 2)
    assert len(encoded.rows) == 1
    assert sum(label != -100 for label in encoded.rows[0]["labels"]) == 2
    with pytest.raises(ValueError, match="room for a response after the prompt, got max_length=9"):
        task.encode(alpaca(records), tokenizer, max_length=9)


def test_a_tokenizer_that_closes_texts() -> None:
    """BERT's kind ends each text with [SEP]: a prompt must not."""
    encoded = InstructionTask().encode(alpaca(RECORDS), bert_tokenizer(), max_length=600)
    for row in encoded.rows:
        assert 3 not in row["input_ids"]


def test_instruction_files(tmp_path: Path) -> None:
    task = InstructionTask()
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{"instruction": f"i{i}", "output": "o"} for i in range(30)]))
    for place in (tmp_path, path):
        found = task.load(place)
        assert {k: len(v) for k, v in found.items()} == {"train": 27, "dev": 3}
        assert not set(found["train"]["instruction"]) & set(found["dev"]["instruction"])
    assert list(task.load(tmp_path)["dev"]["instruction"]) == list(found["dev"]["instruction"])
    (tmp_path / "dev.json").write_text(json.dumps(RECORDS))
    assert {k: len(v) for k, v in task.load(tmp_path).items()} == {"train": 30, "dev": 2}
    path.write_text('[{"instruction": "i"}]')
    with pytest.raises(ValueError, match="record 1 must have a text 'output'"):
        task.read(path)
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="must hold a JSON list, got dict"):
        task.read(path)
    with pytest.raises(FileNotFoundError, match=r"--data: no train.json or dev.json in"):
        task.load(tmp_path / "none")
    with pytest.raises(ValueError, match="responses are generated"):
        task.answers(torch.zeros(1, 2), None, None)  # type: ignore[arg-type]


def test_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*arguments: Any) -> DatasetDict:
        asked.append(arguments)
        if arguments[0] == "yahma/alpaca-cleaned":
            return DatasetDict({"train": alpaca(RECORDS * 10)})
        question = {"question": "q", "subject": "s", "choices": list("wxyz"), "answer": 3}
        split = Dataset.from_list([question])
        return DatasetDict({"test": split, "validation": split, "auxiliary_train": split})

    monkeypatch.setattr(text, "load_dataset", load_dataset)
    assert {k: len(v) for k, v in InstructionTask().load(None).items()} == {"train": 18, "dev": 2}
    assert set(MmluTask().load(None)) == {"test", "val"}
    assert asked == [("yahma/alpaca-cleaned", None), ("cais/mmlu", "all")]


QUESTIONS = [
    ["Is 1, or 2?", "one", "two, or so", "three", "four", "B"],
    ['Who said "no"?', "a", "b", "c", "d", "D"],
    ["A longer question than the others are, to pad?", "a", "b", "c", "d", "A"],
]


def mmlu_folder(folder: Path) -> Path:
    import csv

    (folder / "test").mkdir(parents=True)
    for subject, part in (("college_biology", QUESTIONS[:2]), ("anatomy", QUESTIONS[2:])):
        with (folder / "test" / f"{subject}_test.csv").open("w", newline="") as file:
            csv.writer(file).writerows(part)
    return folder


def test_mmlu_reads_and_scores_the_next_token(tmp_path: Path) -> None:
    task, tokenizer = MmluTask(), bytes_tokenizer()
    model = tiny_gpt2(tokenizer)
    data = task.load(mmlu_folder(tmp_path))["test"]
    assert list(data["subject"]) == ["anatomy", "college_biology", "college_biology"]
    assert list(data["answer"]) == [0, 1, 3]
    assert data["choices"][1][1] == "two, or so"
    encoded = task.encode(data, tokenizer, max_length=400)
    batch = task.collator(tokenizer)([dict(row) for row in encoded.rows])
    with torch.no_grad():
        outputs = task.predictor(model, tokenizer)(**batch)
        wanted = []
        for row in data:  # one by one, from the definition
            said = question_prompt(row["question"], row["choices"], row["subject"])
            assert said.startswith(
                "The following are multiple choice questions (with answers) about"
            )
            last = model(torch.tensor([tokenizer(said)["input_ids"]])).logits[0, -1]
            wanted.append(last.log_softmax(dim=-1)[letter_tokens(tokenizer)])
    kept = task.reduce(outputs, batch)
    assert torch.allclose(kept, torch.stack(wanted), atol=1e-5)
    assert torch.allclose(outputs.softmax(dim=-1).sum(dim=-1), torch.ones(3))
    got = task.measure(kept, encoded, data)
    right = [float(w.argmax() == a) for w, a in zip(wanted, data["answer"], strict=True)]
    assert got["accuracy"] == pytest.approx(sum(right) / 3)
    assert got["subject_accuracy"] == pytest.approx((right[0] + (right[1] + right[2]) / 2) / 2)
    answer = task.answers(kept, encoded, data)[0]
    assert answer["label"] == "ABCD"[int(wanted[0].argmax())]
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0)


def test_mmlu_ensemble_of_letters_is_that_of_the_vocabulary() -> None:
    """Averaging over (A, B, C, D, rest) is averaging over all tokens."""
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(3, 1, 261, generator=generator)  # N, batch, vocabulary
    letters = letter_tokens(bytes_tokenizer())

    class Fixed(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return type("Output", (), {"logits": members[int(input_ids[0, 0])].unsqueeze(1)})

    model = MmluTask().predictor(Fixed(), bytes_tokenizer())
    parts = [
        model(input_ids=torch.tensor([[i]]), attention_mask=torch.ones(1, 1).long())
        for i in range(3)
    ]
    short = torch.stack(parts).softmax(dim=-1).mean(dim=0)[:, :4]
    assert torch.allclose(short, members.softmax(dim=-1).mean(dim=0)[:, letters], atol=1e-6)


def test_mmlu_truncates_at_the_front(tmp_path: Path) -> None:
    task, tokenizer = MmluTask(), bytes_tokenizer()
    data = task.load(mmlu_folder(tmp_path))["test"]
    with pytest.warns(DataWarning, match="mmlu: 3 of 3 examples"):
        encoded = task.encode(data, tokenizer, max_length=40)
    assert tokenizer.decode(encoded.rows["input_ids"][0]).endswith("\nAnswer:")


def test_bad_mmlu(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--data: no test/\*_test.csv in"):
        MmluTask().load(tmp_path)
    path = tmp_path / "x_test.csv"
    path.write_text("q,a,b,c,d,E\n")
    with pytest.raises(ValueError, match="row 1: wanted question, four choices and a letter"):
        MmluTask().read(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        MmluTask().read(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="one token for several letters"):
        letter_tokens(bert_tokenizer())
