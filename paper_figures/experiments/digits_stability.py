"""Pointwise hypothesis stability against n, by retraining, at p = 0 and p = 0.5."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import torch

from lora_dropout.adapters.adapt import need_adapters
from lora_dropout.probes.retraining import leave_one_out
from paper_figures.experiments.digits_setup import adapted_base, population, sample, settings_for

QUESTION = (
    "Digits transformer: how does the loss of an example change when it is left out of training, "
    "against n, and how far does another seed alone change it?"
)


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        sizes: Numbers n of training examples. A size between the ends would cost as much, and add
            little to an exponent.
        rates: Dropout rates p.
        samples: Number of samples S, as many as there are of the largest size without a common
            example; a sample's smaller sets lie in its larger ones.
        left_out: Examples left out of each sample, evenly spaced.
        steps: Optimiser steps, about the same for all sizes.
        n_instances: Mask draws N a step.
        pretrain_epochs: Length of the pretraining.
    """

    sizes: tuple[int, ...] = (8, 64)
    rates: tuple[float, ...] = (0.0, 0.5)
    samples: int = 17
    left_out: int = 8
    steps: int = 60
    n_instances: int = 4
    pretrain_epochs: int = 40


def run(settings: Settings, *, folder: Path) -> dict[str, Any]:
    """Train and measure.

    Args:
        settings: The settings.
        folder: Where unfinished runs are kept.

    Returns:
        `absolute`, `signed`, `noise` (absolute changes from another seed alone) and `distance`,
        `noise_distance` of the solutions, each of shape (rates, samples, sizes).

    Raises:
        FloatingPointError: If a run diverged.
    """
    names = ("absolute", "signed", "noise", "distance", "noise_distance")
    values: dict[str, Any] = {name: [] for name in names}
    # No test set is needed: the samples come from all scans that pretraining has not seen.
    parts = population(label_noise=0.0)
    images = torch.cat([images for images, _ in parts])  # type: ignore[misc]
    labels = torch.cat([labels for _, labels in parts])
    block = max(settings.sizes)
    for rate in settings.rates:
        model = adapted_base(dropout=rate, pretrain_epochs=settings.pretrain_epochs)
        for layer in need_adapters(model).values():
            layer.config = attrs.evolve(layer.config, dropout=rate)
        rows: dict[str, list[list[float]]] = {name: [] for name in names}
        for seed in range(settings.samples):
            row: dict[str, list[float]] = {name: [] for name in names}
            for n in settings.sizes:
                chosen = list(sample(n, run=seed, block=block, population_size=len(labels)))
                step = n // settings.left_out
                found = leave_one_out(
                    model,
                    (images[chosen], labels[chosen]),
                    config=settings_for(
                        steps=settings.steps, n=n, n_instances=settings.n_instances
                    ),
                    examples=range(0, step * settings.left_out, step),
                    seeds=(seed,),
                    checkpoint_folder=folder / f"p-{rate}-seed-{seed}-n-{n}",
                )
                if found.diverged:
                    raise FloatingPointError(f"{found.diverged} runs diverged at n={n}, p={rate}")
                row["absolute"].append(found.loss.absolute)
                row["signed"].append(found.loss.signed)
                row["noise"].append(found.noise.absolute)
                row["distance"].append(float(found.distances.mean()))
                row["noise_distance"].append(float(found.noise_distances.mean()))
            for name in names:
                rows[name].append(row[name])
        for name in names:
            values[name].append(rows[name])
    return values
