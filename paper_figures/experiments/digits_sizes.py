"""The gap of LoRA and LoRA Dropout against the sample size n."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_dropout.replicas import Replica
from paper_figures.experiments.digits_setup import (
    adapted_base,
    crossed_table,
    measure_runs,
    population,
    sample,
    settings_for,
)

QUESTION = "Digits transformer: at which rate does the gap shrink with n, at p = 0 and at p = 0.5?"


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        sizes: Numbers n of training examples; a seed's smaller sets lie in its larger ones.
        rates: Dropout rates p.
        seeds: Number of runs a size and rate; as many as the pool has samples of the largest size
            without a common example.
        steps: Optimiser steps, about the same for all sizes.
        n_instances: Mask draws N a step.
        pretrain_epochs: Length of the pretraining.
    """

    sizes: tuple[int, ...] = (8, 16, 32, 64)
    rates: tuple[float, ...] = (0.0, 0.5)
    seeds: int = 9
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
        (rates, seeds, sizes); of the test's figures also the `_covariance` over examples, of shape
        (rates, sizes, sizes); and `test_examples`, their number.
    """
    model = adapted_base(dropout=0.5, pretrain_epochs=settings.pretrain_epochs)
    pool, test = population(label_noise=0.0)
    columns: dict[str, list[Any]] = {}
    block = max(settings.sizes)
    for n in settings.sizes:
        replicas = [
            Replica(
                seed=seed,
                init_seed=seed,
                dropout=rate,
                examples=sample(n, run=seed, block=block, population_size=len(pool[1])),
            )
            for rate in settings.rates
            for seed in range(settings.seeds)
        ]
        config = settings_for(steps=settings.steps, n=n, n_instances=settings.n_instances)
        found = measure_runs(model, pool, test, replicas, config=config, folder=folder / f"n-{n}")
        for name, column in found.items():
            shape = (len(settings.rates), settings.seeds, *column.shape[1:])
            columns.setdefault(name, []).append(column.reshape(shape))
    values: dict[str, Any] = {"test_examples": len(test[1])}
    for name, tables in columns.items():
        for one in np.stack(tables, axis=2):  # (seeds, sizes), and examples of the test's figures
            by_example = name.startswith("test")
            summed = crossed_table(name, one) if by_example else {name: one.tolist()}
            for key, table in summed.items():
                values.setdefault(key, []).append(table)
    return values
