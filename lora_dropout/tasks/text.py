"""What the text tasks share: reading, encoding with a count of truncations, the task interface.

Part of the extra `hf`. A task turns files (or a data set of the hub) into rows, rows into tokens,
and predictions into the benchmark's own metrics; training and prediction know only `TextTask`.
"""

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from lora_dropout.door import check_count, short
from lora_dropout.tasks.data_warning import DataWarning

try:
    from datasets import Dataset, load_dataset
except ImportError as error:  # pragma: no cover
    raise ImportError(
        f"text tasks need the extra 'hf' (pip install 'lora-dropout[hf]'): {error}"
    ) from error

Head = Literal["classification", "regression", "spans", "causal"]

# Columns by which two examples are the same; of SQuAD's, all questions on one text are.
_TEXTS = ("sentence1", "sentence2", "context", "instruction", "input")
_WARN_TRUNCATED = 0.01  # a share worth a warning
_BAD_ROWS = 1e-3  # the official QQP files hold a few broken lines


@dataclass(frozen=True)
class Encoded:
    """Rows as tokens.

    Attributes:
        rows: `input_ids`, `attention_mask`, ... and `labels` where there are any; possibly more
            rows than examples (windows), or fewer (dropped ones).
        examples: Number of examples.
        truncated: Number of examples that lost tokens to `max_length`.
        order: Class names in the order of the encoded labels and of the model's outputs.
    """

    rows: Dataset
    examples: int
    truncated: int
    order: tuple[str, ...] = ()

    @property
    def share_truncated(self) -> float:
        """Share of examples that lost tokens, in [0, 1]."""
        return self.truncated / self.examples if self.examples else 0.0


class TextTask(ABC):
    """A task: data, tokens, metrics.

    Attributes:
        name: Its name on the command line.
        head: What the model puts on top.
        labels: Class names in the order of the integer labels; empty without classes.
        score: The metric to choose settings by; larger is better unless it is `loss`.
        max_length: Usual number of tokens.
        trainable: Whether the task has training data.
        measured: Splits to measure on: those whose name starts so.
    """

    name: str
    head: Head
    labels: tuple[str, ...]
    score: str
    max_length: int
    trainable: ClassVar[bool] = True
    measured: ClassVar[str] = "dev"

    @abstractmethod
    def load(self, folder: Path | None) -> dict[str, Dataset]:
        """Read the data.

        Args:
            folder: Local files; None asks the hub.

        Returns:
            Split name -> rows: `train`, one or more `dev...`, and `test` where there is one.
        """

    @abstractmethod
    def source(self, folder: Path | None, split: str) -> str:
        """Where `load` has a split from, for messages.

        Args:
            folder: As for `load`.
            split: Its name.

        Returns:
            A file or folder, or a data set of the hub.
        """

    @abstractmethod
    def check_labels(self, rows: Dataset, source: str) -> None:
        """Refuse a split to train or to measure on that is not labelled.

        Args:
            rows: The split.
            source: Where it is from, for the message.

        Raises:
            ValueError: If an example has no label; it names the file, the column and the example.
        """

    @abstractmethod
    def encode(
        self, rows: Dataset, tokenizer: Any, *, max_length: int, order: Sequence[str] = ()
    ) -> Encoded:
        """Turn rows into tokens.

        Args:
            rows: A split.
            tokenizer: Of the model.
            max_length: Greatest number of tokens.
            order: Class names in the order of the model's outputs; empty is the task's order.

        Returns:
            The tokens.
        """

    @abstractmethod
    def collator(self, tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Batches from encoded rows, padded to the longest of each batch.

        Args:
            tokenizer: Of the model.

        Returns:
            List of rows -> batch of tensors.
        """

    def predictor(self, model: nn.Module, tokenizer: Any) -> nn.Module:
        """The model as a function from a batch to one tensor that an ensemble can average.

        Args:
            model: Of `transformers`, adapted or not.
            tokenizer: Of the model.

        Returns:
            A module that holds `model`; its outputs have softmax over the last dimension as their
            probabilities (none for regression).
        """
        return model

    def reduce(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """What to keep of one batch, where keeping all outputs would not fit.

        Args:
            outputs: From `predictor`, batch first.
            batch: Its inputs and labels.

        Returns:
            Shape (batch, ...), in float32.
        """
        return outputs.float()

    @abstractmethod
    def measure(self, outputs: Tensor, encoded: Encoded, rows: Dataset) -> dict[str, float]:
        """The benchmark's metrics.

        Args:
            outputs: What `reduce` kept of all encoded rows, in their order.
            encoded: What `encode` made of `rows`.
            rows: A labelled split.

        Returns:
            Metric -> value: `loss` (mean, in nats for classes and tokens), and the task's own.
        """

    @abstractmethod
    def answers(self, outputs: Tensor, encoded: Encoded, rows: Dataset) -> list[dict[str, Any]]:
        """Predictions for a reader.

        Args:
            outputs: As in `measure`.
            encoded: What `encode` made of `rows`.
            rows: A split; labels are not needed.

        Returns:
            One record an example, representable in JSON.
        """

    @abstractmethod
    def read(self, path: Path) -> Dataset:
        """Read one file of examples; labels may be missing.

        Args:
            path: In the task's local format.

        Returns:
            The rows.
        """


def hub_splits(path: str, name: str | None = None) -> Mapping[str, Dataset]:
    """A data set of the hub, by `datasets`, without any code of its own.

    Args:
        path: Its repository.
        name: Its configuration.

    Returns:
        Split -> rows.

    Raises:
        OSError: If it cannot be had; the message says how to use local files instead.
    """
    try:
        return load_dataset(path, name)
    except Exception as error:  # `datasets` raises many kinds, some of them private
        raise OSError(
            f"data set {path!r} could not be loaded from the hub ({error}); "
            "give a local folder with --data, or check the network"
        ) from error


def check_rows(name: str, rows: Sequence[Any]) -> None:
    """Refuse an empty set.

    Args:
        name: What it is, for the message.
        rows: The set.

    Raises:
        ValueError: If it is empty.
    """
    if len(rows) == 0:
        raise ValueError(f"{name} holds no examples")


def read_tsv(path: Path) -> list[list[str]]:
    """Read a tab-separated file as the benchmarks write them: no quoting, any line is a row.

    Args:
        path: UTF-8, with or without a byte order mark (MRPC's has one).

    Returns:
        The rows, the header (if any) first. A row whose number of cells is not the header's is
        left out and warned of, if there are no more than one in a thousand.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, no UTF-8, or more rows are broken.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        # Only \n ends a row: splitlines() would also cut at characters that stand inside texts.
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            rows = [line.rstrip("\r\n").split("\t") for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    if not rows:
        raise ValueError(f"{path} is empty")
    width = len(rows[0])
    broken = [number for number, row in enumerate(rows, start=1) if len(row) != width]
    if broken:
        text = (
            f"{path}: {len(broken)} of {len(rows)} rows do not have {width} cells "
            f"(first at line {broken[0]})"
        )
        if len(broken) > _BAD_ROWS * len(rows):
            raise ValueError(text)
        warnings.warn(f"{text}; they are left out", DataWarning, stacklevel=2)
    return [row for row in rows if len(row) == width]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: UTF-8.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, or an object has a key twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON: {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"an object has the key {short(key)} twice")
        found[key] = value
    return found


def to_rows(path: Path, data: Mapping[str, list[Any]]) -> Dataset:
    """Make rows of columns.

    Args:
        path: Where they are from, for the message.
        data: Columns.

    Returns:
        The rows.

    Raises:
        ValueError: If a column holds values of several types, or what no text holds.
    """
    try:
        return Dataset.from_dict(dict(data))
    except (ValueError, TypeError, OverflowError) as error:  # Arrow's errors are such
        raise ValueError(f"{path} holds what no column can: {str(error)[:200]}") from error


def tokenize(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int
) -> tuple[dict[str, list[Any]], list[bool]]:
    """Tokenize texts or pairs; the longer of a pair loses tokens first.

    Args:
        tokenizer: Of the model.
        texts: First texts.
        pairs: Second texts.
        max_length: Greatest number of tokens, special ones included.

    Returns:
        (columns without padding, which examples were truncated).
    """
    check_count("max_length", max_length)
    # The length warning of the tokenizer says what we count.
    full = tokenizer(list(texts), pairs and list(pairs), truncation=False, verbose=False)
    long = [len(ids) > max_length for ids in full["input_ids"]]
    columns = {key: list(values) for key, values in full.items()}
    for i, cut in enumerate(long):
        if cut:
            kept = tokenizer(texts[i], pairs and pairs[i], truncation=True, max_length=max_length)
            for key in columns:
                columns[key][i] = kept[key]
    return columns, long


def open_ended(ids: list[int], tokenizer: Any) -> list[int]:
    """Tokens of a text that goes on: some tokenizers close every text.

    Args:
        ids: Tokens.
        tokenizer: Theirs.

    Returns:
        The tokens without closing ones.
    """
    while ids and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        ids = ids[:-1]
    return ids


def warn_truncated(name: str, encoded: Encoded, max_length: int) -> Encoded:
    """Warn if a notable share of the examples lost tokens.

    Args:
        name: Whose.
        encoded: The tokens.
        max_length: Their greatest number.

    Returns:
        `encoded`.
    """
    if encoded.share_truncated > _WARN_TRUNCATED:
        warnings.warn(
            f"{name}: {encoded.truncated} of {encoded.examples} examples "
            f"({encoded.share_truncated:.0%}) are longer than max_length={max_length} tokens and "
            "were truncated",
            DataWarning,
            stacklevel=3,
        )
    return encoded


def without_overlap(train: Dataset, others: Mapping[str, Dataset], *, name: str) -> Dataset:
    """Take out of the training data what is in a split to measure on; CoLA has such sentences.

    Args:
        train: Training rows.
        others: Splits to measure on.
        name: Of the task, for the warning.

    Returns:
        The rest of `train`; what was taken out is warned of.
    """
    columns = [column for column in _TEXTS if column in train.column_names]
    seen = {key for rows in others.values() for key in _keys(rows, columns)}
    kept = [i for i, key in enumerate(_keys(train, columns)) if key not in seen]
    if len(kept) < len(train):
        warnings.warn(
            f"{name}: {len(train) - len(kept)} of {len(train)} training examples are also in "
            f"{', '.join(others)}; they are left out of the training data",
            DataWarning,
            stacklevel=2,
        )
    return train.select(kept)


def _keys(rows: Dataset, columns: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(list(rows[column]) for column in columns), strict=True))
