"""Instruction tuning on Alpaca-format JSON, with the loss on the response only.

A file is a JSON list of objects with `instruction`, `input` (may be empty) and `output`. Without a
local folder the cleaned Alpaca set of the hub is used, as in the paper's Table 3. Prompts have the
format's own wording (Taori et al., 2023, "Stanford Alpaca").
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import DataCollatorForSeq2Seq

from lora_dropout.door import check_count, check_type
from lora_dropout.tasks.text import (
    Encoded,
    Head,
    TextTask,
    check_rows,
    hub_splits,
    open_ended,
    read_json,
    to_rows,
    warn_truncated,
)

_REPOSITORY = "yahma/alpaca-cleaned"
_IGNORED = -100
_DEV_SHARE, _DEV_MOST = 0.1, 1000

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)


def prompt(instruction: str, context: str = "") -> str:
    """The text before the response.

    Args:
        instruction: What to do.
        context: Further input; may be empty.

    Returns:
        The prompt, ending where the response begins.
    """
    check_type("instruction", instruction, str, "a text")
    check_type("context", context, str, "a text")
    # One pass each: braces in the texts are text.
    template = _WITH_INPUT if context else _WITHOUT_INPUT
    return template.format(instruction=instruction, input=context)


@dataclass(frozen=True)
class InstructionTask(TextTask):
    """Alpaca-format instruction tuning.

    Attributes:
        name: Its name here.
        max_length: Usual number of tokens of prompt and response.
    """

    name: str = "instructions"
    max_length: int = 512
    head: Head = "causal"
    labels: tuple[str, ...] = ()
    score: str = "loss"

    def load(self, folder: Path | None) -> dict[str, Dataset]:
        """Read the data.

        Args:
            folder: With `train.json` and perhaps `dev.json`, or one JSON file; None asks the hub.

        Returns:
            `train` and `dev`. Where there is no dev set, a tenth of the examples (at most 1000),
            always the same, is set aside.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        if folder is None:
            found = dict(hub_splits(_REPOSITORY))
            found = {
                k: v.select_columns(["instruction", "input", "output"]) for k, v in found.items()
            }
        elif folder.is_file():
            found = {"train": self.read(folder)}
        else:
            files = {name: folder / f"{name}.json" for name in ("train", "dev")}
            found = {name: self.read(path) for name, path in files.items() if path.is_file()}
            if not found:
                raise FileNotFoundError(f"--data: no train.json or dev.json in {folder}")
        if "dev" not in found and len(found["train"]) > 1:
            size = min(_DEV_MOST, max(1, int(_DEV_SHARE * len(found["train"]))))
            parts = found["train"].train_test_split(test_size=size, seed=0)
            found = {"train": parts["train"], "dev": parts["test"]}
        return found

    def source(self, folder: Path | None, split: str) -> str:
        """Where `load` has a split from, for messages.

        Args:
            folder: As for `load`.
            split: Its name.

        Returns:
            A file, or the data set of the hub.
        """
        if folder is None:
            return f"{_REPOSITORY}, {split}"
        file = folder / f"{split}.json"
        return str(file if file.is_file() else folder)

    def check_labels(self, rows: Dataset, source: str) -> None:
        """Refuse a split without any response; each example has a text, which may be empty.

        Args:
            rows: The split.
            source: Where it is from, for the message.

        Raises:
            ValueError: If all responses are empty.
        """
        if not any(text.strip() for text in rows["output"]):
            raise ValueError(f"{source}: 'output' is empty in all {len(rows)} examples")

    def read(self, path: Path) -> Dataset:
        """Read one JSON file.

        Args:
            path: The file.

        Returns:
            The rows.

        Raises:
            ValueError: If the file has another structure.
        """
        content = read_json(path)
        if not isinstance(content, list):
            raise ValueError(f"{path} must hold a JSON list, got {type(content).__name__}")
        check_rows(str(path), content)
        data: dict[str, list[str]] = {"instruction": [], "input": [], "output": []}
        for number, record in enumerate(content, start=1):
            for key, values in data.items():
                value = (
                    record.get(key, "" if key == "input" else None)
                    if isinstance(record, dict)
                    else None
                )
                if not isinstance(value, str):
                    raise ValueError(f"{path}: record {number} must have a text {key!r}")
                values.append(value)
        return to_rows(path, data)

    def encode(
        self,
        rows: Dataset,
        tokenizer: Any,
        *,
        max_length: int,
        order: Sequence[str] = (),
    ) -> Encoded:
        """Prompt and response as tokens; labels on the response and its end only.

        Args:
            rows: A split.
            tokenizer: Of the model.
            max_length: Greatest number of tokens; what is beyond is cut off at the end.
            order: Not used: there are no classes.

        Returns:
            The tokens, without the examples of whose response nothing is left.

        Raises:
            ValueError: If nothing is left of any response.
        """
        check_rows(self.name, rows)
        check_count("max_length", max_length)
        texts = [
            prompt(instruction, context)
            for instruction, context in zip(rows["instruction"], rows["input"], strict=True)
        ]
        # Apart, so that the tokens of the response do not depend on how it meets the prompt.
        before = [
            open_ended(ids, tokenizer) for ids in tokenizer(texts, verbose=False)["input_ids"]
        ]
        after = tokenizer(list(rows["output"]), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        stop = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        cut = 0
        for start, response in zip(before, after, strict=True):
            ids = [*start, *response, *stop]
            cut += len(ids) > max_length
            if len(start) < max_length and len(ids) > len(start):
                ids = ids[:max_length]
                columns["input_ids"].append(ids)
                columns["attention_mask"].append([1] * len(ids))
                columns["labels"].append([_IGNORED] * len(start) + ids[len(start) :])
        if not columns["input_ids"]:
            raise ValueError(
                f"max_length must leave room for a response after the prompt, got "
                f"max_length={max_length}"
            )
        encoded = Encoded(Dataset.from_dict(columns), len(rows), cut)
        return warn_truncated(self.name, encoded, max_length)

    def collator(self, tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Batches padded to their longest row; padding has no label.

        Args:
            tokenizer: Of the model.

        Returns:
            List of rows -> batch.
        """
        return DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=_IGNORED)

    def reduce(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Negative log-likelihood of each response, and its number of tokens.

        Args:
            outputs: Logits, shape (batch, tokens, vocabulary).
            batch: With `labels`.

        Returns:
            Shape (batch, 2).
        """
        labels = batch["labels"][:, 1:]
        loss = torch.nn.functional.cross_entropy(
            outputs[:, :-1].float().transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none"
        )
        return torch.stack([loss.sum(dim=1), (labels != _IGNORED).sum(dim=1).float()], dim=1)

    def measure(
        self,
        outputs: Tensor,
        encoded: Encoded,
        rows: Dataset,
    ) -> dict[str, float]:
        """Loss on the responses.

        Args:
            outputs: What `reduce` kept, shape (n, 2).
            encoded: Not used.
            rows: Not used.

        Returns:
            `loss`, nats a token of the response, and `perplexity`.
        """
        total, tokens = outputs.double().sum(dim=0)
        return {"loss": float(total / tokens), "perplexity": float((total / tokens).exp())}

    def answers(
        self,
        outputs: Tensor,
        encoded: Encoded,
        rows: Dataset,
    ) -> list[dict[str, Any]]:
        """Refused: a response is generated, not chosen.

        Args:
            outputs: Not used.
            encoded: Not used.
            rows: Not used.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "instructions: responses are generated, not predicted; load the adapter in PEFT and "
            "call generate()"
        )
