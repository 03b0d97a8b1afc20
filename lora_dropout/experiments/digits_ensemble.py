"""The ensemble against its size N, beside the mean network and plain LoRA."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_dropout.calibration import expected_calibration_error
from lora_dropout.experiments.digits_setup import (
    adapted_base,
    losses,
    population,
    sample,
    settings_for,
)
from lora_dropout.replicas import Replica, fit_replicas

QUESTION = (
    "Digits transformer: how do test loss, accuracy and calibration of the ensemble change with "
    "its size N, and how do they compare with the mean network's and with plain LoRA's (p = 0)?"
)


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        rates: Dropout rates p.
        sizes: Ensemble sizes N, each a divisor of the last.
        seeds: Number of runs a rate; a seed fixes sample, initial factors, data order and masks.
        n: Training examples.
        steps: Optimiser steps.
        n_instances: Mask draws a training step.
        pretrain_epochs: Length of the pretraining.
    """

    rates: tuple[float, ...] = (0.0, 0.2, 0.5)
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    seeds: int = 20
    n: int = 64
    steps: int = 120
    n_instances: int = 4
    pretrain_epochs: int = 40


def run(settings: Settings, *, folder: Path) -> dict[str, Any]:
    """Train, draw members once, and measure ensembles of disjoint blocks of them.

    Args:
        settings: The settings.
        folder: Where unfinished runs are kept.

    Returns:
        `loss_probabilities`, `loss_logits` (what is averaged), `accuracy` and `ece` of the averaged
        probabilities, each of shape (rates, seeds, sizes), the mean over the blocks;
        `mean_loss`, `mean_accuracy`, `mean_ece` of the mean network, of shape (rates, seeds).

    Raises:
        ValueError: If a size does not divide the last.
        FloatingPointError: If a run diverged.
    """
    most = settings.sizes[-1]
    if any(most % size for size in settings.sizes):
        raise ValueError(f"sizes must divide the last, got sizes={settings.sizes}")
    model = adapted_base(dropout=0.5, pretrain_epochs=settings.pretrain_epochs)
    pool, (inputs, targets) = population(label_noise=0.0)
    trained = fit_replicas(
        model,
        pool,
        [
            Replica(
                seed=seed,
                init_seed=seed,
                dropout=rate,
                examples=sample(settings.n, seed=seed, population_size=len(pool[1])),
            )
            for rate in settings.rates
            for seed in range(settings.seeds)
        ],
        config=settings_for(steps=settings.steps, n=settings.n, n_instances=settings.n_instances),
        checkpoint_folder=folder,
    )
    if trained.diverged:
        raise FloatingPointError(
            f"every run must end finite, diverged (at step): {trained.diverged}"
        )
    members = torch.stack(
        [
            trained.outputs(
                model, inputs, inference="ensemble", n_instances=1, seed=seed, average="outputs"
            )
            for seed in range(most)
        ],
        dim=1,
    )  # (K, N, b, classes)
    table = (len(settings.rates), settings.seeds)
    names = ("loss_probabilities", "loss_logits", "accuracy", "ece")
    columns: dict[str, list[Tensor]] = {name: [] for name in names}
    for size in settings.sizes:
        blocks = members.unflatten(1, (most // size, size)).log_softmax(dim=-1)
        mixed = (blocks.logsumexp(dim=2) - math.log(size)).transpose(0, 1)  # (blocks, K, b, c)
        pooled = blocks.mean(dim=2).transpose(0, 1)
        for name, outputs in (("loss_probabilities", mixed), ("loss_logits", pooled)):
            found = torch.stack([losses(block, targets).double().mean(dim=1) for block in outputs])
            columns[name].append(found.mean(dim=0))
        quality = torch.stack([torch.stack(_quality(block, targets)) for block in mixed])
        for name, column in zip(("accuracy", "ece"), quality.mean(dim=0), strict=True):
            columns[name].append(column)
    values = {name: torch.stack(c, dim=1).view(*table, -1).tolist() for name, c in columns.items()}
    mean = trained.outputs(model, inputs, inference="mean")
    accuracy, ece = _quality(mean, targets)
    single = {
        "mean_loss": losses(mean, targets).double().mean(dim=1),
        "mean_accuracy": accuracy,
        "mean_ece": ece,
    }
    return values | {name: column.view(table).tolist() for name, column in single.items()}


def _quality(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    hits = (outputs.argmax(dim=-1) == targets).double().mean(dim=1)
    errors = [expected_calibration_error(row.softmax(dim=-1), targets) for row in outputs]
    return hits, torch.tensor(errors, dtype=torch.float64)
