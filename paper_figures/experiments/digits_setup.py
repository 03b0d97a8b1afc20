"""What the digits experiments share: the pretrained base, the population, the runs, the losses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.adapters.adapt import adapt
from lora_dropout.data import Data
from lora_dropout.masks.config import LoRADropoutConfig
from lora_dropout.prediction.ensemble import Prediction
from lora_dropout.replicas import Replica, fit_replicas
from lora_dropout.seeds import derived_seed
from lora_dropout.tasks.digits import digits_pool, pretrain_digits
from lora_dropout.training.fit_config import FitConfig

RANK, ALPHA, BATCH, LEARNING_RATE = 8, 16.0, 32, 0.01

Array = NDArray[np.float64]


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


def sample(size: int, *, run: int, block: int, population_size: int) -> tuple[int, ...]:
    """Draw a run's training set: samples of different runs have no example in common.

    Runs are then independent draws from what the pool itself was drawn from. Samples that overlap
    share the pool's luck, which no scatter between runs shows.

    Args:
        size: Number of examples, at most `block`; a run's smaller sets lie in its larger ones.
        run: Which run.
        block: Examples set apart for each run.
        population_size: Size of the pool.

    Returns:
        Indices, all different.

    Raises:
        ValueError: If the pool has no block for the run, or the block is too small.
    """
    if size > block or (run + 1) * block > population_size:
        raise ValueError(
            f"size must be at most block and the pool of {population_size} hold run + 1 blocks, "
            f"got size={size}, block={block}, run={run}"
        )
    order = np.random.default_rng(0).permutation(population_size)
    return tuple(int(i) for i in order[run * block : run * block + size])


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


def evaluation_seeds(replicas: Sequence[Replica], *, place: int = 0) -> list[int]:
    """Choose the seeds of the runs' evaluation masks: those of no training, each run's own.

    Args:
        replicas: The runs, of seeds below 1000.
        place: Which evaluation: each has seeds of its own.

    Returns:
        One for each; runs of one seed share theirs, whatever their rates.
    """
    return [derived_seed(1000 * place + replica.seed, "evaluation") for replica in replicas]


def measure_runs(
    model: nn.Module,
    pool: Data,
    test: Data,
    replicas: Sequence[Replica],
    *,
    config: FitConfig,
    folder: Path,
    ensemble_size: int = 4,
) -> dict[str, Array]:
    """Train replicas on samples of a pool; measure them on their samples and on the test set.

    Args:
        model: The adapted base.
        pool: What the samples are drawn from.
        test: Test set of m examples.
        replicas: The K runs, each with its `examples`.
        config: Training settings.
        folder: Where unfinished runs are kept.
        ensemble_size: N of the ensemble, whose masks a run draws by its own seed.

    Returns:
        `train_loss_mean`, of shape (K,), and `test_loss_mean`, `test_accuracy_mean` of each test
        example, of shape (K, m); and the same with `_ensemble`.

    Raises:
        FloatingPointError: If a run diverged.
    """
    trained = fit_replicas(model, pool, replicas, config=config, checkpoint_folder=folder)
    if trained.diverged:
        raise FloatingPointError(
            f"every run must end finite, diverged (at step): {trained.diverged}"
        )
    samples = [replica.examples or () for replica in replicas]
    found: dict[str, Array] = {}
    modes: tuple[Prediction, ...] = ("mean", "ensemble")
    for mode in modes:
        seen = [
            trained.outputs(
                model,
                inputs,
                inference=mode,
                n_instances=ensemble_size,
                seed=evaluation_seeds(replicas),
                average="probabilities",
            )
            for inputs, _ in (pool, test)
        ]
        found[f"train_loss_{mode}"] = means_over(losses(seen[0], pool[1]), samples).numpy()
        found[f"test_loss_{mode}"] = losses(seen[1], test[1]).double().numpy()
        found[f"test_accuracy_{mode}"] = (seen[1].argmax(dim=-1) == test[1]).double().numpy()
    return found


def crossed_table(name: str, values: Array) -> dict[str, Any]:
    """Sum up what each of K settings measured on each test example, over runs and over examples.

    Both are random, and the same examples meet every run: an interval for other runs *and* other
    examples needs the scatter of either (`lora_bounds.trial.effects.crossed`).

    Args:
        name: What was measured.
        values: Of each run in each setting on each test example, shape (runs, K, m).

    Returns:
        `name`, means over the examples, of shape (runs, K); `name_covariance`, the covariance over
        the examples of the means over the runs, of shape (K, K).
    """
    covariance = np.atleast_2d(np.cov(values.mean(axis=0)))
    return {name: values.mean(axis=2).tolist(), f"{name}_covariance": covariance.tolist()}
