"""MMLU (Hendrycks et al., 2021, arXiv 2009.03300), scored without examples in the prompt.

From the hub (`cais/mmlu`), or from the official CSV files: `test/<subject>_test.csv` without
header, columns question, four choices, letter of the answer. A choice is scored by the probability
of its letter as the next token after the official prompt.
"""

import csv
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DataCollatorWithPadding

from lora_dropout.door import check_count, check_sequence, check_type, short
from lora_dropout.prediction.calibration import expected_calibration_error
from lora_dropout.tasks.text import (
    Encoded,
    Head,
    TextTask,
    check_rows,
    hub_splits,
    open_ended,
    warn_truncated,
)

_REPOSITORY, _CONFIG = "cais/mmlu", "all"
_LETTERS = ("A", "B", "C", "D")
_SPLITS = {"test": "test", "val": "validation", "dev": "dev"}  # here -> hub


def prompt(question: str, choices: Sequence[str], subject: str) -> str:
    """The official prompt, without examples.

    Args:
        question: The question.
        choices: Four of them.
        subject: As in the file name, such as `college_biology`.

    Returns:
        The text; the next token is the answer.

    Raises:
        ValueError: If there are not four choices.
    """
    check_type("question", question, str, "a text")
    check_type("subject", subject, str, "a text")
    if len(check_sequence("choices", choices, str)) != len(_LETTERS):
        raise ValueError(f"choices must be four, got {len(choices)}")
    lines = [f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=True)]
    return (
        f"The following are multiple choice questions (with answers) about "
        f"{subject.replace('_', ' ')}.\n\n" + "\n".join([question, *lines, "Answer:"])
    )


@dataclass(frozen=True)
class MmluTask(TextTask):
    """MMLU, 0-shot.

    Attributes:
        name: Its name here.
        max_length: Usual number of tokens.
    """

    name: str = "mmlu"
    max_length: int = 1024
    head: Head = "causal"
    labels: tuple[str, ...] = _LETTERS
    score: str = "accuracy"
    trainable: ClassVar[bool] = False
    measured: ClassVar[str] = "test"

    def load(self, folder: Path | None) -> dict[str, Dataset]:
        """Read the data.

        Args:
            folder: With `test/*_test.csv`, perhaps `val` and `dev`; None asks the hub.

        Returns:
            `test`, and `val` and `dev` where there are; rows have `question`, `choices`,
            `answer` (0 to 3) and `subject`.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        if folder is None:
            found = hub_splits(_REPOSITORY, _CONFIG)
            return {here: found[there] for here, there in _SPLITS.items() if there in found}
        splits = {}
        for name in _SPLITS:
            files = sorted((folder / name).glob(f"*_{name}.csv"))
            if files:
                records = [record for path in files for record in _records(path)]
                splits[name] = Dataset.from_list(records)
        if not splits:
            raise FileNotFoundError(f"--data: no test/*_test.csv in {folder}")
        return splits

    def source(self, folder: Path | None, split: str) -> str:
        """Where `load` has a split from, for messages.

        Args:
            folder: As for `load`.
            split: Its name.

        Returns:
            A folder, or the data set of the hub.
        """
        return f"{_REPOSITORY}, {split}" if folder is None else str(folder / split)

    def check_labels(self, rows: Dataset, source: str) -> None:
        """Refuse a split with an answer that is none of the four; files are read with theirs.

        Args:
            rows: The split.
            source: Where it is from, for the message.

        Raises:
            ValueError: If there is such an answer.
        """
        odd = [i for i, x in enumerate(rows["answer"], start=1) if x not in range(len(_LETTERS))]
        if odd:
            raise ValueError(f"{source}, row {odd[0]}: column 'answer' must be one of 0 to 3")

    def read(self, path: Path) -> Dataset:
        """Read one CSV file.

        Args:
            path: The file; the subject is its name.

        Returns:
            The rows.
        """
        return Dataset.from_list(_records(path))

    def encode(
        self,
        rows: Dataset,
        tokenizer: Any,
        *,
        max_length: int,
        order: Sequence[str] = (),
    ) -> Encoded:
        """Prompts as tokens; what is too long loses its beginning.

        Args:
            rows: A split.
            tokenizer: Of the model.
            max_length: Greatest number of tokens.
            order: Not used: the classes are tokens.

        Returns:
            The tokens.
        """
        check_rows(self.name, rows)
        check_count("max_length", max_length)
        texts = [
            prompt(question, choices, subject)
            for question, choices, subject in zip(
                rows["question"], rows["choices"], rows["subject"], strict=True
            )
        ]
        ids = [open_ended(x, tokenizer) for x in tokenizer(texts, verbose=False)["input_ids"]]
        columns = {
            "input_ids": [x[-max_length:] for x in ids],
            "attention_mask": [[1] * min(len(x), max_length) for x in ids],
        }
        cut = sum(len(x) > max_length for x in ids)
        return warn_truncated(
            self.name, Encoded(Dataset.from_dict(columns), len(rows), cut), max_length
        )

    def collator(self, tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Batches padded at the end: some models count positions from padding too.

        Args:
            tokenizer: Of the model.

        Returns:
            List of rows -> batch.
        """
        pad = DataCollatorWithPadding(tokenizer)

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            side, tokenizer.padding_side = tokenizer.padding_side, "right"
            try:
                return pad(rows)
            finally:
                tokenizer.padding_side = side

        return collate

    def predictor(self, model: nn.Module, tokenizer: Any) -> nn.Module:
        """The model as a classifier of the next token: A, B, C, D, or any other.

        Args:
            model: A causal language model.
            tokenizer: Of the model.

        Returns:
            A module with outputs (batch, 5) whose softmax is the model's own distribution.
        """
        return _NextLetter(model, letter_tokens(tokenizer))

    def reduce(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Logarithms of the letters' probabilities.

        Args:
            outputs: Shape (batch, 5).
            batch: Not used.

        Returns:
            Shape (batch, 4).
        """
        return outputs.float().log_softmax(dim=-1)[:, : len(_LETTERS)]

    def measure(
        self,
        outputs: Tensor,
        encoded: Encoded,
        rows: Dataset,
    ) -> dict[str, float]:
        """Accuracy of the likeliest letter.

        Args:
            outputs: What `reduce` kept, shape (n, 4).
            encoded: Not used.
            rows: A split.

        Returns:
            `loss` and `ece` of the distribution over the four letters, `accuracy` over all
            questions, `subject_accuracy` the mean over subjects.
        """
        targets = torch.tensor(rows["answer"])
        right = (outputs.argmax(dim=-1) == targets).double()
        subjects = defaultdict(list)
        for subject, hit in zip(rows["subject"], right.tolist(), strict=True):
            subjects[subject].append(hit)
        means = [sum(hits) / len(hits) for hits in subjects.values()]
        return {
            "loss": float(F.cross_entropy(outputs, targets)),
            "accuracy": float(right.mean()),
            "subject_accuracy": sum(means) / len(means),
            "ece": expected_calibration_error(outputs.softmax(dim=-1), targets),
        }

    def answers(
        self,
        outputs: Tensor,
        encoded: Encoded,
        rows: Dataset,
    ) -> list[dict[str, Any]]:
        """The likeliest letter.

        Args:
            outputs: As in `measure`.
            encoded: Not used.
            rows: Not used.

        Returns:
            `label` and `probabilities` among the four letters, for each question.
        """
        return [
            {
                "label": _LETTERS[int(row.argmax())],
                "probabilities": dict(zip(_LETTERS, row.tolist(), strict=True)),
            }
            for row in outputs.softmax(dim=-1)
        ]


def letter_tokens(tokenizer: Any) -> list[int]:
    """The tokens of the four answers after the prompt.

    Args:
        tokenizer: Of the model.

    Returns:
        Four token ids.

    Raises:
        ValueError: If an answer is not one token of its own.
    """
    before = tokenizer("Answer:", add_special_tokens=False)["input_ids"]
    found = []
    for letter in _LETTERS:
        ids = tokenizer(f"Answer: {letter}", add_special_tokens=False)["input_ids"]
        if ids[:-1] != before:
            raise ValueError(
                f"mmlu: to this tokenizer {letter!r} is no single token after 'Answer:'"
            )
        found.append(ids[-1])
    if len(set(found)) < len(_LETTERS):
        raise ValueError(f"mmlu: this tokenizer has one token for several letters, got {found}")
    return found


class _NextLetter(nn.Module):
    def __init__(self, model: nn.Module, letters: Sequence[int]) -> None:
        super().__init__()
        self.model, self.letters = model, list(letters)
        base: Any = model
        if hasattr(model, "get_base_model"):
            base = base.get_base_model()
        # Logits of all positions are most of the memory; newer models compute those asked for.
        self.partial = "logits_to_keep" in inspect.signature(base.forward).parameters

    def forward(self, **inputs: Tensor) -> Tensor:
        last = inputs["attention_mask"].sum(dim=1) - 1
        rows = torch.arange(len(last), device=last.device)
        if self.partial:
            wanted, last = last.unique(return_inverse=True)
            logits = self.model(**inputs, logits_to_keep=wanted).logits
        else:
            logits = self.model(**inputs).logits
        logits = logits[rows, last].float()
        rest = logits.clone()
        rest[:, self.letters] = float("-inf")
        return torch.cat([logits[:, self.letters], rest.logsumexp(dim=-1, keepdim=True)], dim=-1)


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    subject = path.stem.rpartition("_")[0] or path.stem
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8: {error}") from error
    check_rows(str(path), rows)
    records = []
    for number, row in enumerate(rows, start=1):
        if len(row) != len(_LETTERS) + 2 or row[-1].strip() not in _LETTERS:
            raise ValueError(
                f"{path}, row {number}: wanted question, four choices and a letter, "
                f"got {short(row)}"
            )
        records.append(
            {
                "question": row[0],
                "choices": row[1:-1],
                "answer": _LETTERS.index(row[-1].strip()),
                "subject": subject,
            }
        )
    return records
