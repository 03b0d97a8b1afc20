"""The gap of LoRA and LoRA Dropout against the sample size n."""

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

QUESTION = "Digits transformer: at which rate does the gap shrink with n, at p = 0 and at p = 0.5?"


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        sizes: Numbers n of training examples; a seed's smaller sets lie in its larger ones.
        rates: Dropout rates p.
        seeds: Number of runs a size and rate.
        steps: Optimiser steps, about the same for all sizes.
        n_instances: Mask draws N a step.
        pretrain_epochs: Length of the pretraining.
    """

    sizes: tuple[int, ...] = (32, 64, 128, 256)
    rates: tuple[float, ...] = (0.0, 0.5)
    seeds: int = 20
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
        (rates, seeds, sizes).
    """
    model = adapted_base(dropout=0.5, pretrain_epochs=settings.pretrain_epochs)
    pool, test = population(label_noise=0.0)
    columns: dict[str, list[Any]] = {}
    for n in settings.sizes:
        replicas = [
            Replica(
                seed=seed,
                init_seed=seed,
                dropout=rate,
                examples=sample(n, seed=seed, population_size=len(pool[1])),
            )
            for rate in settings.rates
            for seed in range(settings.seeds)
        ]
        config = settings_for(steps=settings.steps, n=n, n_instances=settings.n_instances)
        found = measure_runs(model, pool, test, replicas, config=config, folder=folder / f"n-{n}")
        for name, column in found.items():
            columns.setdefault(name, []).append(
                column.reshape(len(settings.rates), settings.seeds).tolist()
            )
    # (sizes, rates, seeds) -> (rates, seeds, sizes)
    return {
        name: [[list(run) for run in zip(*rate, strict=True)] for rate in zip(*table, strict=True)]
        for name, table in columns.items()
    }
