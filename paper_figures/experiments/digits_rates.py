"""Gap, training loss and test loss of LoRA Dropout over p, with true and with corrupted labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_dropout.replicas import Replica
from paper_figures.experiments.digits_setup import (
    adapted_base,
    crossed_table,
    measure_runs,
    population,
    sample,
    settings_for,
)

QUESTION = (
    "Digits transformer, LoRA Dropout at p from 0 to 0.75: how do gap, training loss and test loss "
    "change with p, with true labels and with corrupted ones?"
)


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        rates: Dropout rates p, evenly spaced.
        label_noise: Shares of corrupted labels, in training and test alike.
        seeds: Number of runs a rate; a seed fixes sample, initial factors, data order and masks,
            for all rates alike. As many as the pool has samples without a common example.
        n: Training examples.
        steps: Optimiser steps.
        n_instances: Mask draws N a step.
        pretrain_epochs: Length of the pretraining.
    """

    rates: tuple[float, ...] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
    label_noise: tuple[float, ...] = (0.0, 0.4)
    seeds: int = 18
    n: int = 32
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
        (label_noise, seeds, rates); of the test's figures also the `_covariance` over examples, of
        shape (label_noise, rates, rates); and `test_examples`, their number.
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
                examples=sample(
                    settings.n, run=seed, block=settings.n, population_size=len(pool[1])
                ),
            )
            for seed in range(settings.seeds)
            for rate in settings.rates
        ]
        found = measure_runs(
            model, pool, test, replicas, config=config, folder=folder / f"noise-{share}"
        )
        shape = (settings.seeds, len(settings.rates))
        for name, column in found.items():
            one = column.reshape(*shape, *column.shape[1:])
            by_example = name.startswith("test")
            summed = crossed_table(name, one) if by_example else {name: one.tolist()}
            for key, table in summed.items():
                values.setdefault(key, []).append(table)
        values["test_examples"] = len(test[1])
    return values
