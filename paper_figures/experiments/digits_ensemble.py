"""The ensemble against its size N, beside the mean network and plain LoRA."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lora_dropout.prediction.calibration import calibration_terms
from lora_dropout.replicas import Replica, fit_replicas
from paper_figures.experiments.digits_setup import (
    adapted_base,
    crossed_table,
    evaluation_seeds,
    losses,
    population,
    sample,
    settings_for,
)

QUESTION = (
    "Digits transformer: how do test loss, accuracy and calibration of the ensemble change with "
    "its size N, and how do they compare with the mean network's and with plain LoRA's (p = 0)?"
)


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        rates: Dropout rates p.
        sizes: Ensemble sizes N.
        seeds: Number of runs a rate; a seed fixes sample, initial factors, data order and masks,
            those of the ensembles too. As many as the pool has samples without a common example.
        n: Training examples.
        steps: Optimiser steps.
        n_instances: Mask draws a training step.
        pretrain_epochs: Length of the pretraining.
    """

    rates: tuple[float, ...] = (0.0, 0.2, 0.5)
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: int = 18
    n: int = 32
    steps: int = 120
    n_instances: int = 4
    pretrain_epochs: int = 40


def run(settings: Settings, *, folder: Path) -> dict[str, Any]:
    """Train, and measure one ensemble of each size a run; no two share a member.

    Means over nested blocks of the same members would fall with N whatever was measured, by
    convexity alone.

    Args:
        settings: The settings.
        folder: Where unfinished runs are kept.

    Returns:
        `loss_probabilities`, `accuracy` and `ece` of the averaged probabilities, each of shape
        (rates, seeds, sizes); `mean_loss`, `mean_accuracy`, `mean_ece` of the mean network, of
        shape (rates, seeds); `loss_covariance`, `accuracy_covariance`, `ece_covariance` over the
        examples of the test, of shape (rates, sizes + 1, rates, sizes + 1), last the mean network;
        `test_examples`, their number.

    Raises:
        FloatingPointError: If a run diverged.
    """
    model = adapted_base(dropout=0.5, pretrain_epochs=settings.pretrain_epochs)
    pool, (inputs, targets) = population(label_noise=0.0)
    replicas = [
        Replica(
            seed=seed,
            init_seed=seed,
            dropout=rate,
            examples=sample(settings.n, run=seed, block=settings.n, population_size=len(pool[1])),
        )
        for seed in range(settings.seeds)
        for rate in settings.rates
    ]
    trained = fit_replicas(
        model,
        pool,
        replicas,
        config=settings_for(steps=settings.steps, n=settings.n, n_instances=settings.n_instances),
        checkpoint_folder=folder,
    )
    if trained.diverged:
        raise FloatingPointError(
            f"every run must end finite, diverged (at step): {trained.diverged}"
        )

    outputs = [
        trained.outputs(
            model,
            inputs,
            inference="ensemble",
            n_instances=size,
            seed=evaluation_seeds(replicas, place=place),  # so that its members are its own
            average="probabilities",
        )
        for place, size in enumerate(settings.sizes)
    ]
    outputs.append(trained.outputs(model, inputs, inference="mean"))
    columns = {
        "loss": [losses(each, targets).double() for each in outputs],
        "accuracy": [(each.argmax(dim=-1) == targets).double() for each in outputs],
        "ece": [
            torch.stack([calibration_terms(row.softmax(dim=-1), targets) for row in each])
            for each in outputs
        ],
    }
    rates, places = len(settings.rates), len(outputs)
    values: dict[str, Any] = {"test_examples": len(targets)}
    for name, column in columns.items():
        # (runs, rates * places, examples)
        table = torch.stack(column, dim=1).view(settings.seeds, rates * places, -1)
        found = crossed_table(name, table.numpy())
        runs = np.reshape(found[name], (settings.seeds, rates, places)).swapaxes(0, 1)
        key = "loss_probabilities" if name == "loss" else name
        values[key], values[f"mean_{name}"] = runs[..., :-1].tolist(), runs[..., -1].tolist()
        square = np.reshape(found[f"{name}_covariance"], (rates, places, rates, places))
        values[f"{name}_covariance"] = square.tolist()
    return values
