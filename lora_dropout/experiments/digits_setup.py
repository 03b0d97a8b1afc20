"""What the digits experiments share: the pretrained base, the population, the runs, the losses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.config import LoRADropoutConfig
from lora_dropout.ensemble import Prediction
from lora_dropout.evaluation import Data
from lora_dropout.fit_config import FitConfig
from lora_dropout.inject import adapt
from lora_dropout.replicas import Replica, fit_replicas
from lora_dropout.tasks.digits import digits_pool, pretrain_digits

RANK, ALPHA, BATCH, LEARNING_RATE = 8, 16.0, 32, 0.01


def adapted_base(*, dropout: float, pretrain_epochs: int) -> nn.Module:
    """The pretrained transformer with adapters on the layers of its blocks.

    Args:
        dropout: Rate p of LoRA Dropout.
        pretrain_epochs: Length of the pretraining on upright scans.

    Returns:
        The adapted model.
    """
    config = LoRADropoutConfig(
        rank=RANK, alpha=ALPHA, dropout=dropout, target_modules=r"blocks\..*"
    )
    model = pretrain_digits(epochs=pretrain_epochs, progress=False)
    return adapt(model, config, generator=torch.Generator().manual_seed(0))


def population(*, label_noise: float) -> tuple[Data, Data]:
    """The shifted digits, with a share of the labels replaced by random other ones.

    Train and test labels are corrupted alike, once for all runs, so that both come from one
    distribution.

    Args:
        label_noise: Share of corrupted labels, in [0, 1].

    Returns:
        (pool of 597, test set of 500).
    """
    generator = torch.Generator().manual_seed(0)
    parts = []
    for images, labels in digits_pool():
        wrong = torch.rand(len(labels), generator=generator) < label_noise
        offset = torch.randint(1, 10, labels.shape, generator=generator)
        parts.append((images, torch.where(wrong, (labels + offset) % 10, labels)))
    return parts[0], parts[1]


def sample(size: int, *, seed: int, population_size: int) -> tuple[int, ...]:
    """Draw a training set.

    Args:
        size: Number of examples.
        seed: Seed of the draw; smaller sets are the beginnings of larger ones.
        population_size: Size of the pool.

    Returns:
        Indices, all different.
    """
    order = np.random.default_rng(seed).permutation(population_size)
    return tuple(int(i) for i in order[:size])


def settings_for(*, steps: int, n: int, n_instances: int) -> FitConfig:
    """Training settings for about a number of steps.

    Args:
        steps: Optimiser steps.
        n: Number of training examples.
        n_instances: Mask draws N a step, dealt out over the batch.

    Returns:
        The settings.
    """
    return FitConfig(
        epochs=max(1, round(steps / -(-n // BATCH))),
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        n_instances=n_instances,
        mode="grouped",
    )


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every example under every run.

    Args:
        outputs: Logits, shape (K, b, classes).
        targets: Shape (b,).

    Returns:
        Shape (K, b), nats.
    """
    every = targets.to(outputs.device).expand(len(outputs), -1)
    return F.cross_entropy(outputs.flatten(0, 1), every.flatten(), reduction="none").view_as(every)


def means_over(values: Tensor, samples: Sequence[tuple[int, ...]]) -> Tensor:
    """Mean over each run's own sample.

    Args:
        values: Shape (K, b).
        samples: K index sets.

    Returns:
        Shape (K,), float64.
    """
    rows = [row[list(chosen)].double().mean() for row, chosen in zip(values, samples, strict=True)]
    return torch.stack(rows)


def measure_runs(
    model: nn.Module,
    pool: Data,
    test: Data,
    replicas: Sequence[Replica],
    *,
    config: FitConfig,
    folder: Path,
    ensemble_size: int = 4,
) -> dict[str, np.ndarray]:
    """Train replicas on samples of a pool; measure them on their samples and on the test set.

    Args:
        model: The adapted base.
        pool: What the samples are drawn from.
        test: Test set.
        replicas: The runs, each with its `examples`.
        config: Training settings.
        folder: Where unfinished runs are kept.
        ensemble_size: N of the ensemble.

    Returns:
        `train_loss_mean`, `test_loss_mean`, `test_accuracy_mean` and the same with `_ensemble`;
        each of shape (K,).

    Raises:
        FloatingPointError: If a run diverged.
    """
    trained = fit_replicas(model, pool, replicas, config=config, checkpoint_folder=folder)
    if trained.diverged:
        raise FloatingPointError(
            f"every run must end finite, diverged (at step): {trained.diverged}"
        )
    samples = [replica.examples or () for replica in replicas]
    found: dict[str, np.ndarray] = {}
    modes: tuple[Prediction, ...] = ("mean", "ensemble")
    for mode in modes:
        seen = [
            trained.outputs(
                model, inputs, inference=mode, n_instances=ensemble_size, average="probabilities"
            )
            for inputs, _ in (pool, test)
        ]
        found[f"train_loss_{mode}"] = means_over(losses(seen[0], pool[1]), samples).numpy()
        found[f"test_loss_{mode}"] = losses(seen[1], test[1]).double().mean(dim=1).numpy()
        hits = seen[1].argmax(dim=-1) == test[1]
        found[f"test_accuracy_{mode}"] = hits.double().mean(dim=1).numpy()
    return found
