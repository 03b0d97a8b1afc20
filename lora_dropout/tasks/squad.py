"""SQuAD v1.1 and v2.0 (arXiv 1606.05250, 1806.03822): answer spans, exact match and F1.

From the hub (`rajpurkar/squad`, `rajpurkar/squad_v2`) or from the official JSON files. A context
too long for the model is read in overlapping windows; a window without the whole answer points at
its first token, and so does a question of v2.0 that has no answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torchmetrics.functional.text.squad import squad as squad_scores
from transformers import DataCollatorWithPadding

from lora_dropout.door import check_count, short
from lora_dropout.tasks.text import (
    Encoded,
    Head,
    TextTask,
    check_rows,
    hub_splits,
    read_json,
    to_rows,
    warn_truncated,
)

_STRIDE = 128  # tokens that two windows share; the usual setting for 384 tokens
_BEST = 20  # starts and ends tried in a window
_LONGEST_ANSWER = 30  # tokens

Offsets = list[tuple[int, int] | None]


@dataclass(frozen=True)
class Windows(Encoded):
    """Windows of contexts.

    Attributes:
        example: For each window, the index of its example.
        offsets: For each window and token, the token's characters in the context; None for
            tokens of the question and special ones.
        first: For each window, the position that means "no answer here".
    """

    example: tuple[int, ...] = ()
    offsets: tuple[Offsets, ...] = ()
    first: tuple[int, ...] = ()


@dataclass(frozen=True)
class SquadTask(TextTask):
    """One of the two versions.

    Attributes:
        name: Its name here.
        repository: Its name on the hub.
        version: As in the official file names.
        max_length: Usual number of tokens in a window.
    """

    name: str
    repository: str
    version: str
    max_length: int = 384
    head: Head = "spans"
    labels: tuple[str, ...] = ()
    score: str = "f1"

    def load(self, folder: Path | None) -> dict[str, Dataset]:
        """Read the data.

        Args:
            folder: With `train-v1.1.json` and `dev-v1.1.json` (or `v2.0`); None asks the hub.

        Returns:
            `train` and `dev` with `id`, `question`, `context`, `answers` (`text`,
            `answer_start`).

        Raises:
            FileNotFoundError: If neither file is there.
        """
        if folder is None:
            found = hub_splits(self.repository)
            columns = ["id", "question", "context", "answers"]
            return {
                k.replace("validation", "dev"): v.select_columns(columns) for k, v in found.items()
            }
        files = {name: Path(self.source(folder, name)) for name in ("train", "dev")}
        files = {name: path for name, path in files.items() if path.is_file()}
        if not files:
            raise FileNotFoundError(
                f"--data: no train-{self.version}.json or dev-{self.version}.json in {folder}"
            )
        return {name: self.read(path) for name, path in files.items()}

    def source(self, folder: Path | None, split: str) -> str:
        """Where `load` has a split from, for messages.

        Args:
            folder: As for `load`.
            split: Its name.

        Returns:
            A file, or the data set of the hub.
        """
        if folder is None:
            return f"{self.repository}, {split}"
        return str(folder / f"{split}-{self.version}.json")

    def check_labels(self, rows: Dataset, source: str) -> None:
        """Refuse a split to train or to measure on that has questions without `answers`.

        Args:
            rows: The split.
            source: Where it is from, for the message.

        Raises:
            ValueError: If a question has no `answers`; one of v2.0 may have an empty list of them,
                but not with `is_impossible` false.
        """
        labelled = list(rows["labelled"]) if "labelled" in rows.column_names else [True] * len(rows)
        missing = [
            name
            for name, answers, known in zip(rows["id"], rows["answers"], labelled, strict=True)
            if not known or (self.version == "v1.1" and not answers["text"])
        ]
        if missing:
            hint = "; is this v2.0 (squad_v2)?" if self.version == "v1.1" and all(labelled) else ""
            raise ValueError(
                f"{source}: {len(missing)} of {len(rows)} questions have no 'answers', or some "
                f"that 'is_impossible' denies, the first {short(missing[0])}{hint}"
            )

    def read(self, path: Path) -> Dataset:
        """Read one official JSON file.

        Args:
            path: The file.

        Returns:
            The rows. A question without `answers` (to predict on) has none, and is not `labelled`.

        Raises:
            ValueError: If the file has another structure, or an answer is not where it is said.
        """
        content = read_json(path)
        names = ("id", "question", "context", "answers", "labelled")
        data: dict[str, list[Any]] = {name: [] for name in names}
        try:
            for article in content["data"]:
                for paragraph in article["paragraphs"]:
                    for question in paragraph["qas"]:
                        answers = question.get("answers", [])
                        impossible = question.get("is_impossible", not answers)
                        known = "answers" in question and impossible != bool(answers)
                        data["labelled"].append(known)
                        data["id"].append(str(question["id"]))
                        data["question"].append(question["question"])
                        data["context"].append(paragraph["context"])
                        data["answers"].append(
                            {
                                "text": [answer["text"] for answer in answers],
                                "answer_start": [answer["answer_start"] for answer in answers],
                            }
                        )
            self._check_answers(path, data)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is not in SQuAD's format: {repr(error)[:200]}") from error
        check_rows(str(path), data["id"])
        return to_rows(path, data)

    def _check_answers(self, path: Path, data: Mapping[str, list[Any]]) -> None:
        parts = zip(data["id"], data["context"], data["answers"], strict=True)
        for name, context, answers in parts:
            for text, start in zip(answers["text"], answers["answer_start"], strict=True):
                if context[start : start + len(text)] != text:
                    question = f"{path}: question {name[:80]}"
                    raise ValueError(f"{question}: no answer {short(text)} at {short(start)}")

    def encode(
        self,
        rows: Dataset,
        tokenizer: Any,
        *,
        max_length: int,
        order: Sequence[str] = (),
    ) -> Windows:
        """Cut contexts into windows.

        Args:
            rows: A split.
            tokenizer: Of the model; a fast one, which knows the characters of its tokens.
            max_length: Greatest number of tokens of question and window.
            order: Not used: there are no classes.

        Returns:
            The windows. `truncated` counts examples whose answer no window holds whole.

        Raises:
            ValueError: If the tokenizer is not a fast one, or a question leaves no room for a
                window.
        """
        check_rows(self.name, rows)
        check_count("max_length", max_length, minimum=8)
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(f"{self.name} needs a fast tokenizer, got {type(tokenizer).__name__}")
        # Some questions start with blanks that would take the place of the context.
        questions = [question.lstrip() for question in rows["question"]]
        contexts, answers = list(rows["context"]), list(rows["answers"])
        longest = max(
            map(len, tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"])
        )
        room = max_length - longest - tokenizer.num_special_tokens_to_add(pair=True)
        if room < 2:
            raise ValueError(
                f"max_length must leave room beside the longest question ({longest} tokens), "
                f"got max_length={max_length}"
            )
        tokens = tokenizer(
            questions,
            contexts,
            truncation="only_second",
            max_length=max_length,
            stride=min(_STRIDE, room // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        example = tuple(tokens.pop("overflow_to_sample_mapping"))
        spans = tokens.pop("offset_mapping")
        columns = {key: list(values) for key, values in tokens.items()}
        columns |= {"start_positions": [], "end_positions": []}
        offsets, firsts, held = [], [], set()
        for i, index in enumerate(example):
            ids, parts = columns["input_ids"][i], tokens.sequence_ids(i)
            places = [
                tuple(s) if part == 1 else None for s, part in zip(spans[i], parts, strict=True)
            ]
            first = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
            start, end = _target(answers[index], places, first)
            if (start, end) != (first, first):
                held.add(index)
            columns["start_positions"].append(start)
            columns["end_positions"].append(end)
            offsets.append(places)
            firsts.append(first)
        lost = sum(bool(a["text"]) and i not in held for i, a in enumerate(answers))
        windows = Windows(
            Dataset.from_dict(columns),
            len(rows),
            lost,
            example=example,
            offsets=tuple(offsets),
            first=tuple(firsts),
        )
        warn_truncated(self.name, windows, max_length)
        return windows

    def collator(self, tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Batches padded to their longest window.

        Args:
            tokenizer: Of the model.

        Returns:
            List of windows -> batch.
        """
        return DataCollatorWithPadding(tokenizer)

    def predictor(self, model: nn.Module, tokenizer: Any) -> nn.Module:
        """The model with start and end in one tensor.

        Args:
            model: Of `transformers`, for question answering.
            tokenizer: Not used.

        Returns:
            A module with outputs (batch, 2, tokens).
        """
        return _StartsAndEnds(model)

    def reduce(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Logarithms of the probabilities of starts and ends.

        Args:
            outputs: Shape (batch, 2, tokens).
            batch: Not used.

        Returns:
            The same shape.
        """
        return outputs.float().log_softmax(dim=-1)

    def measure(self, outputs: Tensor, encoded: Encoded, rows: Dataset) -> dict[str, float]:
        """Exact match and F1 as the official script of v2.0 defines them.

        The script of v1.1 differs only where an answer is empty once articles and punctuation are
        gone.

        Args:
            outputs: Shape (windows, 2, tokens), padded with minus infinity.
            encoded: What `encode` made of `rows`.
            rows: A split with answers.

        Returns:
            `loss` (nats, mean of start and end over windows), `exact_match` and `f1` in [0, 1];
            for v2.0 also apart for questions with an answer (`has_answer_...`) and without.

        Raises:
            ValueError: If a split of v1.1 holds a question without an answer.
        """
        windows = encoded.rows
        places = torch.tensor([list(windows["start_positions"]), list(windows["end_positions"])]).T
        chosen = outputs.gather(2, places.unsqueeze(-1)).squeeze(-1)
        result = {"loss": float(-chosen.mean())}
        golds = [[t for t in answers["text"] if _says_something(t)] for answers in rows["answers"]]
        if self.version == "v1.1" and not all(answers["text"] for answers in rows["answers"]):
            raise ValueError(f"{self.name}: a question has no answer; is this v2.0 (squad_v2)?")
        texts = [answer["answer"] for answer in self.answers(outputs, encoded, rows)]
        result |= _scores(texts, golds)
        if self.version != "v1.1":
            for name, kind in (("has_answer", True), ("no_answer", False)):
                part = [i for i, gold in enumerate(golds) if bool(gold) is kind]
                if part:
                    scores = _scores([texts[i] for i in part], [golds[i] for i in part])
                    result |= {f"{name}_{key}": value for key, value in scores.items()}
        return result

    def answers(self, outputs: Tensor, encoded: Encoded, rows: Dataset) -> list[dict[str, Any]]:
        """The best span of each question.

        Args:
            outputs: As in `measure`.
            encoded: What `encode` made of `rows`.
            rows: The examples.

        Returns:
            `id`, `answer` (empty: none, v2.0 only) and `probability` of start and end together.

        Raises:
            TypeError: If `encoded` is not from this task.
        """
        if not isinstance(encoded, Windows):
            raise TypeError(f"encoded must be windows, got {type(encoded).__name__}")
        best: dict[int, tuple[float, str]] = {}
        nothing: dict[int, float] = {}
        contexts = list(rows["context"])
        for window, (index, places, first) in enumerate(
            zip(encoded.example, encoded.offsets, encoded.first, strict=True)
        ):
            start, end = outputs[window]
            none_here = float(start[first] + end[first])
            nothing[index] = min(nothing.get(index, 0.0), none_here)
            score, characters = _best_span(start, end, places)
            if characters is not None and (index not in best or score > best[index][0]):
                best[index] = (score, contexts[index][slice(*characters)])
        found = []
        for index, name in enumerate(rows["id"]):
            score, text = best.get(index, (float("-inf"), ""))
            if self.version != "v1.1" and nothing[index] > score:
                score, text = nothing[index], ""
            chance = float(torch.tensor(score).exp())
            found.append({"id": name, "answer": text, "probability": chance})
        return found


class _StartsAndEnds(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        output = self.model(**inputs)
        return torch.stack([output.start_logits, output.end_logits], dim=1)


def _target(answers: Mapping[str, Any], places: Offsets, first: int) -> tuple[int, int]:
    if not answers["text"]:
        return first, first
    left = answers["answer_start"][0]
    right = left + len(answers["text"][0])
    inside = [i for i, place in enumerate(places) if place and place[1] > left and place[0] < right]
    if not inside:
        return first, first
    begin, end = places[inside[0]], places[inside[-1]]
    assert begin is not None and end is not None
    whole = begin[0] <= left and end[1] >= right
    return (inside[0], inside[-1]) if whole else (first, first)


def _best_span(start: Tensor, end: Tensor, places: Offsets) -> tuple[float, tuple[int, int] | None]:
    size = len(places)
    inside = torch.tensor([place is not None for place in places])
    start = start[:size].masked_fill(~inside, float("-inf"))
    end = end[:size].masked_fill(~inside, float("-inf"))
    starts, ends = (x.topk(min(_BEST, size)).indices for x in (start, end))
    length = ends.unsqueeze(0) - starts.unsqueeze(1)
    scores = start[starts].unsqueeze(1) + end[ends].unsqueeze(0)
    scores = scores.masked_fill((length < 0) | (length >= _LONGEST_ANSWER), float("-inf"))
    at = divmod(int(scores.argmax()), scores.shape[1])
    score = float(scores[at])
    if score == float("-inf"):
        return score, None
    begin, finish = places[int(starts[at[0]])], places[int(ends[at[1]])]
    assert begin is not None and finish is not None
    return score, (begin[0], finish[1])


def _scores(texts: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    # torchmetrics has the official normalisation, but no notion of "no answer": the official
    # script of v2.0 compares with the empty text there.
    guesses: Any = [{"id": str(i), "prediction_text": text} for i, text in enumerate(texts)]
    targets: Any = [
        {"id": str(i), "answers": {"text": list(gold) or [""], "answer_start": []}}
        for i, gold in enumerate(golds)
    ]
    scores = squad_scores(guesses, targets)
    return {name: float(scores[name]) / 100 for name in ("exact_match", "f1")}


def _says_something(text: str) -> bool:
    # The official script leaves out golds that are empty once normalised; an exact match with the
    # empty text is how torchmetrics says so.
    return _scores([text], [[]])["exact_match"] == 0.0


SQUAD: dict[str, SquadTask] = {
    "squad": SquadTask("squad", "rajpurkar/squad", "v1.1"),
    "squad_v2": SquadTask("squad_v2", "rajpurkar/squad_v2", "v2.0"),
}
