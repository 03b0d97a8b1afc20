"""Predict and measure a task with a model of `transformers`, masks or none."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from lora_dropout.adapters.layer import masked_layers
from lora_dropout.adapters.use_masks import sample_masks, use_masks
from lora_dropout.data import call_model
from lora_dropout.prediction.ensemble import ensemble_predict
from lora_dropout.seeds import derived_generator
from lora_dropout.tasks.text import Encoded, TextTask

_TARGETS = ("labels", "start_positions", "end_positions")


@torch.no_grad()
def collect(
    model: nn.Module,
    task: TextTask,
    tokenizer: Any,
    encoded: Encoded,
    *,
    inference: str,
    n_instances: int = 8,
    seed: int = 0,
    batch_size: int = 64,
    precision: str = "float32",
    progress: bool = False,
) -> Tensor:
    """Outputs for all rows; every batch meets the same ensemble.

    Args:
        model: Of `transformers`; without masks `inference` plays no part.
        task: The task.
        tokenizer: Of the model.
        encoded: The rows.
        inference: `ensemble`, `mean` or `raw`.
        n_instances: Members of the ensemble.
        seed: Of their masks.
        batch_size: Rows a pass.
        precision: `float32` or `bf16`.
        progress: Whether to show a progress bar.

    Returns:
        What `task.reduce` keeps, in the order of the rows, on the CPU; a last dimension that
        differs between batches is padded with minus infinity.
    """
    predictor = task.predictor(model, tokenizer)
    model.eval()
    masked = bool(masked_layers(predictor))
    masks = None
    if masked and inference == "ensemble":
        generator = derived_generator(seed, "evaluation")
        masks = sample_masks(predictor, n_instances=n_instances, generator=generator)
    device = next(model.parameters()).device
    average: Any = "logits" if task.head == "regression" else "probabilities"
    # Rows of one length together: less padding.
    lengths = [len(ids) for ids in encoded.rows["input_ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    loader = DataLoader(
        encoded.rows.select(order), batch_size=batch_size, collate_fn=task.collator(tokenizer)
    )
    parts = []
    for batch in tqdm(loader, unit="batch", disable=not progress, leave=False):
        batch = {key: value.to(device) for key, value in batch.items()}
        inputs = {k: v for k, v in batch.items() if k not in _TARGETS}
        cast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
        with cast:
            if masks is not None:
                # One member a pass: DeBERTa's relative embeddings allow nothing else.
                outputs = ensemble_predict(
                    predictor,
                    inputs,
                    masks=masks,
                    average=average,
                    max_rows=len(batch["input_ids"]),
                )
            else:
                with use_masks(predictor, inference) if masked else nullcontext():  # type: ignore[arg-type]
                    outputs = call_model(predictor, inputs)
        parts.append(task.reduce(outputs, batch).cpu())
    width = max(part.shape[-1] for part in parts)
    padded = [F.pad(part, (0, width - part.shape[-1]), value=-math.inf) for part in parts]
    return torch.cat(padded)[torch.tensor(order).argsort()]


def measure(
    model: nn.Module,
    task: TextTask,
    tokenizer: Any,
    encoded: Encoded,
    rows: Dataset,
    **options: Any,
) -> dict[str, float]:
    """The task's metrics.

    Args:
        model: Of `transformers`.
        task: The task.
        tokenizer: Of the model.
        encoded: The tokens of `rows`.
        rows: A labelled split.
        **options: For `collect`.

    Returns:
        Metric -> value, and `seconds` for the predictions.
    """
    start = time.perf_counter()
    outputs = collect(model, task, tokenizer, encoded, **options)
    seconds = time.perf_counter() - start
    return {**task.measure(outputs, encoded, rows), "seconds": seconds}


def splits_to_measure(task: TextTask, names: Sequence[str]) -> list[str]:
    """The splits that a task is measured on.

    Args:
        task: The task.
        names: Of the splits there are.

    Returns:
        Some of them.

    Raises:
        ValueError: If there is none.
    """
    found = [name for name in names if name.startswith(task.measured)]
    if not found:
        raise ValueError(
            f"--data: no {task.measured} split of {task.name!r}, only {', '.join(names)}"
        )
    return found
