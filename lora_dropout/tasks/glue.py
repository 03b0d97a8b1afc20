"""GLUE (Wang et al., 2019, arXiv 1804.07461): the eight tasks of the paper's Table 1.

From the hub (`nyu-mll/glue`), or from a local folder with `<task>/train.tsv`, `dev.tsv` (MNLI:
`dev_matched.tsv`, `dev_mismatched.tsv`) and perhaps `test.tsv`, in either of two layouts: the
official files with the official columns, or columns `sentence1`, `sentence2`, `label` with
integers or names as labels. Nothing in these files is quoted.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import Tensor
from torch.nn import functional as F
from transformers import DataCollatorWithPadding

from lora_dropout.door import short
from lora_dropout.prediction.calibration import expected_calibration_error
from lora_dropout.tasks.text import (
    Encoded,
    Head,
    TextTask,
    check_rows,
    hub_splits,
    read_tsv,
    to_rows,
    tokenize,
    warn_truncated,
)

_REPOSITORY = "nyu-mll/glue"
_UNLABELLED = -1  # what the hub's test sets have for a label
# Names of the column: ours and the hub's, and those of the official files.
_LABELS = ("label", "gold_label", "is_duplicate", "Quality")
_SCORES = ("label", "score")
_SPLITS = ("train", *(f"{s}{m}" for s in ("dev", "test") for m in ("", "_matched", "_mismatched")))


@dataclass(frozen=True)
class GlueTask(TextTask):
    """One of the tasks.

    Attributes:
        name: Its name here.
        config: Its name on the hub.
        folder: Its name in the official distribution.
        labels: Class names, index = label on the hub and in local integers; empty for STS-B.
        columns: Text columns, the names of the official files and of the hub first.
        metrics: Metrics of the benchmark.
        score: What GLUE's own average counts: the metric, or the mean of the two.
        max_length: Usual number of tokens.
    """

    name: str
    config: str
    folder: str
    labels: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    metrics: tuple[str, ...] = ("accuracy",)
    score: str = "accuracy"
    max_length: int = 128

    @property
    def head(self) -> Head:  # type: ignore[override]
        """Classes, or a number for STS-B."""
        return "classification" if self.labels else "regression"

    def load(self, folder: Path | None) -> dict[str, Dataset]:
        """Read the data.

        Args:
            folder: A local folder, of the task or of all tasks; None asks the hub.

        Returns:
            `train`, `dev` (MNLI: `dev_matched` and `dev_mismatched`), and `test` if it is there.
            Rows have `sentence1`, perhaps `sentence2`, and `label` (-1 where there is none).

        Raises:
            FileNotFoundError: If the local folder holds no file of the task.
            ValueError: If a file is damaged.
        """
        if folder is None:
            found = hub_splits(_REPOSITORY, self.config)
            return {k.replace("validation", "dev"): self._from_hub(v) for k, v in found.items()}
        return {name: self.read(path) for name, path in self._files(folder).items()}

    def _files(self, folder: Path) -> dict[str, Path]:
        places = [folder, *(folder / name for name in dict.fromkeys((self.name, self.config)))]
        places.append(folder / self.folder)
        for place in places:
            files = {name: place / f"{name}.tsv" for name in _SPLITS}
            files = {name: path for name, path in files.items() if path.is_file()}
            if files:
                return files
        raise FileNotFoundError(
            f"--data: no train.tsv or dev.tsv of {self.name!r} in {folder} or {folder / self.name}"
        )

    def source(self, folder: Path | None, split: str) -> str:
        """Where `load` has a split from, for messages.

        Args:
            folder: As for `load`.
            split: Its name.

        Returns:
            A file, or the data set of the hub.
        """
        if folder is None:
            return f"{_REPOSITORY}, {self.config} {split}"
        return str(self._files(folder)[split])

    def check_labels(self, rows: Dataset, source: str) -> None:
        """Refuse a split to train or to measure on that is not labelled.

        Args:
            rows: The split.
            source: Where it is from, for the message.

        Raises:
            ValueError: If any label is -1.
        """
        require_labels(source, rows)

    def read(self, path: Path) -> Dataset:
        """Read one TSV file.

        Args:
            path: In either layout.

        Returns:
            The rows.

        Raises:
            ValueError: If columns are missing or there twice, or a label is none of the task's.
        """
        header, *rows = read_tsv(path)
        if self.name == "cola" and len(header) == 4 and header[1] in ("0", "1"):
            # The official file has no header: source, label, the author's mark, sentence.
            header, rows = ["source", "label", "mark", "sentence"], [header, *rows]
        check_rows(str(path), rows)
        data: dict[str, list[Any]] = {}
        for target, names in zip(("sentence1", "sentence2"), self.columns, strict=False):
            column = _column(path, header, (target, *names))
            if column is None:
                found = ", ".join(header)[:200]
                raise ValueError(
                    f"{path} must have a column {target!r} or {names[0]!r}, got {found}"
                )
            data[target] = [row[column] for row in rows]
        column = _column(path, header, _LABELS if self.labels else _SCORES)
        if column is None:
            data["label"] = [_UNLABELLED] * len(rows)
        else:
            data["label"] = [
                self._label(row[column], f"{path}, row {i}", header[column])
                for i, row in enumerate(rows, start=1)
            ]
        return to_rows(path, data)

    def _label(self, text: str, where: str, column: str) -> float | int:
        if text in self.labels:
            return self.labels.index(text)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        allowed = value in range(len(self.labels)) if self.labels else 0.0 <= value <= 5.0
        if allowed or value == _UNLABELLED:
            return int(value) if self.labels else value
        wanted = ", ".join(f"{i} {n}" for i, n in enumerate(self.labels)) or "a number from 0 to 5"
        raise ValueError(
            f"{where}: label must be one of ({wanted}), got {short(text)} in column {column!r}"
        )

    def _from_hub(self, rows: Dataset) -> Dataset:
        names = dict(zip(("sentence1", "sentence2"), self.columns, strict=False))
        data = {
            k: list(rows[next(n for n in v if n in rows.column_names)]) for k, v in names.items()
        }
        labels = list(rows["label"])
        feature = rows.features["label"]
        if self.labels and isinstance(feature, ClassLabel):
            # By name: an order other than ours would be a silent disaster.
            ours = {i: self.labels.index(name) for i, name in enumerate(feature.names)}
            labels = [ours.get(label, _UNLABELLED) for label in labels]
        return Dataset.from_dict({**data, "label": labels})

    def encode(
        self, rows: Dataset, tokenizer: Any, *, max_length: int, order: Sequence[str] = ()
    ) -> Encoded:
        """Turn rows into tokens; of a pair, the longer text loses tokens first.

        Args:
            rows: A split.
            tokenizer: Of the model.
            max_length: Greatest number of tokens.
            order: Class names in the order of the model's outputs; empty is the task's.

        Returns:
            The tokens; a notable share of truncations is warned of.
        """
        check_rows(self.name, rows)
        order = tuple(order) or self.labels
        second = list(rows["sentence2"]) if "sentence2" in rows.column_names else None
        columns, cut = tokenize(tokenizer, list(rows["sentence1"]), second, max_length=max_length)
        if self.labels:
            place = [order.index(name) for name in self.labels]
            columns["labels"] = [place[x] if x >= 0 else _UNLABELLED for x in rows["label"]]
        else:
            columns["labels"] = [float(x) for x in rows["label"]]
        encoded = Encoded(Dataset.from_dict(columns), len(rows), sum(cut), order)
        return warn_truncated(self.name, encoded, max_length)

    def collator(self, tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Batches padded to their longest row.

        Args:
            tokenizer: Of the model.

        Returns:
            List of rows -> batch.
        """
        return DataCollatorWithPadding(tokenizer)

    def measure(self, outputs: Tensor, encoded: Encoded, rows: Dataset) -> dict[str, float]:
        """GLUE's metrics, with loss and calibration.

        Args:
            outputs: Logits, shape (n, classes), or (n, 1) for STS-B.
            encoded: What `encode` made of `rows`.
            rows: A labelled split.

        Returns:
            `loss` (cross-entropy in nats; squared error for STS-B), the benchmark's metrics in
            [-1, 1], `ece` for classes. A correlation is NaN where it is not defined: of
            predictions that are all the same.

        Raises:
            ValueError: If the split has no labels.
        """
        require_labels(self.name, rows)
        if not self.labels:
            return _correlations(outputs.squeeze(-1).double(), torch.tensor(rows["label"]).double())
        logits = self._in_our_order(outputs, encoded)
        targets = torch.tensor(rows["label"])
        truth, guess = targets.numpy(), logits.argmax(dim=-1).numpy()
        values: dict[str, Callable[[], float]] = {
            "accuracy": lambda: accuracy_score(truth, guess),
            "f1": lambda: f1_score(truth, guess, zero_division=0.0),
            "mcc": lambda: matthews_corrcoef(truth, guess),
        }
        result = {"loss": float(F.cross_entropy(logits, targets))}
        # The accuracy goes along for all: where it is not the benchmark's, it is still asked for.
        for name in dict.fromkeys((*self.metrics, "accuracy")):
            result[name] = float(values[name]())
        if self.score == "mean":
            result["mean"] = sum(result[name] for name in self.metrics) / len(self.metrics)
        result["ece"] = expected_calibration_error(logits.softmax(dim=-1), targets)
        return result

    def answers(self, outputs: Tensor, encoded: Encoded, rows: Dataset) -> list[dict[str, Any]]:
        """Class and probabilities, or the number.

        Args:
            outputs: As in `measure`.
            encoded: What `encode` made of `rows`.
            rows: The examples, labelled or not.

        Returns:
            `label` and `probabilities` (class -> probability), or `value`, for each example.
        """
        if not self.labels:
            return [{"value": value} for value in outputs.squeeze(-1).tolist()]
        chances = self._in_our_order(outputs, encoded).softmax(dim=-1)
        return [
            {
                "label": self.labels[int(row.argmax())],
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }
            for row in chances
        ]

    def _in_our_order(self, outputs: Tensor, encoded: Encoded) -> Tensor:
        return outputs[:, [encoded.order.index(name) for name in self.labels]]


def _correlations(values: Tensor, targets: Tensor) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant predictions: the value is NaN, as documented
        found = {
            "pearson": float(pearsonr(values.numpy(), targets.numpy())[0]),
            "spearman": float(spearmanr(values.numpy(), targets.numpy())[0]),
        }
    mean = float(np.mean(list(found.values())))
    return {"loss": float(F.mse_loss(values, targets)), **found, "mean": mean}


def require_labels(name: str, rows: Dataset) -> None:
    """Refuse a split without labels.

    Args:
        name: Of the task or the file.
        rows: A split.

    Raises:
        ValueError: If any label is -1.
    """
    missing = [i for i, label in enumerate(rows["label"], start=1) if label == _UNLABELLED]
    if len(missing) == len(rows):
        raise ValueError(
            f"{name}: no example has a label: the column 'label' is missing, or -1 in all rows, as "
            "in the test sets of GLUE, whose labels are not public; measure on dev instead"
        )
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(rows)} examples have no label (-1) in column 'label', "
            f"the first in row {missing[0]}, as in the test sets of GLUE, whose labels are not "
            "public; measure on dev instead"
        )


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> int | None:
    found = [i for i, name in enumerate(header) if name in names]
    if len(found) > 1:
        what = " and ".join(repr(header[i]) for i in found)
        raise ValueError(f"{path} must have one column for each thing, got {what}")
    return found[0] if found else None


_ENTAILMENT = ("entailment", "not_entailment")

GLUE: dict[str, GlueTask] = {
    task.name: task
    for task in (
        GlueTask(
            "mnli",
            "mnli",
            "MNLI",
            ("entailment", "neutral", "contradiction"),
            (("premise",), ("hypothesis",)),
        ),
        GlueTask("sst2", "sst2", "SST-2", ("negative", "positive"), (("sentence",),)),
        GlueTask(
            "cola",
            "cola",
            "CoLA",
            ("unacceptable", "acceptable"),
            (("sentence",),),
            metrics=("mcc",),
            score="mcc",
        ),
        GlueTask(
            "qqp",
            "qqp",
            "QQP",
            ("not_duplicate", "duplicate"),
            (("question1",), ("question2",)),
            metrics=("accuracy", "f1"),
            score="mean",
        ),
        GlueTask("qnli", "qnli", "QNLI", _ENTAILMENT, (("question",), ("sentence",))),
        GlueTask(
            "rte", "rte", "RTE", _ENTAILMENT, (("sentence1",), ("sentence2",)), max_length=256
        ),
        GlueTask(
            "mrpc",
            "mrpc",
            "MRPC",
            ("not_equivalent", "equivalent"),
            (("#1 String", "sentence1"), ("#2 String", "sentence2")),
            metrics=("accuracy", "f1"),
            score="mean",
        ),
        GlueTask(
            "stsb",
            "stsb",
            "STS-B",
            (),
            (("sentence1",), ("sentence2",)),
            metrics=("pearson", "spearman"),
            score="mean",
        ),
    )
}
