"""Gap, training loss and test loss of LoRA Dropout over p, with true and with corrupted labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_dropout.experiments.digits_setup import (
    adapted_base,
    measure_runs,
    population,
    sample,
    settings_for,
)
from lora_dropout.replicas import Replica

QUESTION = (
    "Digits transformer, LoRA Dropout at p from 0 to 0.7: how do gap, training loss and test loss "
    "change with p, with true labels and with corrupted ones?"
)


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        rates: Dropout rates p.
        label_noise: Shares of corrupted labels, in training and test alike.
        seeds: Number of runs a rate; a seed fixes sample, initial factors, data order and masks,
            for all rates alike.
        n: Training examples.
        steps: Optimiser steps.
        n_instances: Mask draws N a step.
        pretrain_epochs: Length of the pretraining.
    """

    rates: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    label_noise: tuple[float, ...] = (0.0, 0.4)
    seeds: int = 20
    n: int = 64
    steps: int = 120
    n_instances: int = 4
    pretrain_epochs: int = 40


def run(settings: Settings, *, folder: Path) -> dict[str, Any]:
    """Train and measure.

    Args:
        settings: The settings.
        folder: Where unfinished runs are kept.

    Returns:
        `train_loss`, `test_loss`, `test_accuracy` by inference (`mean`, `ensemble`), each of shape
        (label_noise, seeds, rates).
    """
    model = adapted_base(dropout=0.5, pretrain_epochs=settings.pretrain_epochs)
    config = settings_for(steps=settings.steps, n=settings.n, n_instances=settings.n_instances)
    values: dict[str, Any] = {}
    for share in settings.label_noise:
        pool, test = population(label_noise=share)
        replicas = [
            Replica(
                seed=seed,
                init_seed=seed,
                dropout=rate,
                examples=sample(settings.n, seed=seed, population_size=len(pool[1])),
            )
            for seed in range(settings.seeds)
            for rate in settings.rates
        ]
        found = measure_runs(
            model, pool, test, replicas, config=config, folder=folder / f"noise-{share}"
        )
        for name, column in found.items():
            table = column.reshape(settings.seeds, len(settings.rates))
            values.setdefault(name, []).append(table.tolist())
    return values
