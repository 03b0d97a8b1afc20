"""Cells that train several adapters of the digits transformer at once (`fit_replicas`)."""

import hashlib
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import LoRADropoutConfig, Replica, adapt, fit_replicas
from lora_dropout.prediction.calibration import expected_calibration_error
from lora_dropout.runs.store import Cell
from lora_dropout.seeds import derived_seed
from lora_dropout.tasks.digits import digits_pool
from paper_figures.experiments.digits_runs import based
from paper_figures.experiments.digits_setup import losses, means_over, settings_for

N_TRAIN, N_VALIDATION, N_INSTANCES = 64, 100, 4
SETTING = "Digits, 64 training examples, learning rate 0.01 throughout (not tuned), N = 4"


def fingerprint(base: bytes) -> str:
    """Name of a base model in a cell.

    Args:
        base: Its weights.

    Returns:
        Hexadecimal digest.
    """
    return hashlib.blake2b(base, digest_size=12).hexdigest()


def _adapted(base: bytes, *, rank: int, dropout: float, mask: str, nudge: float = 0.0) -> nn.Module:
    torch.set_num_threads(1)  # one run a core
    config = LoRADropoutConfig(
        rank=rank,
        alpha=2.0 * rank,
        dropout=dropout,
        mask=mask,  # type: ignore[arg-type]
        target_modules=r"blocks\..*",
    )
    model = based(base, nudge=nudge)
    return adapt(model, config, generator=torch.Generator().manual_seed(0))


def run_law(cell: Cell, *, base: bytes) -> dict[str, list[Any]]:
    """Train with one rank, rate and mask law over seeds.

    Args:
        cell: `rank`, `dropout`, `mask`, `seeds` (number), `steps`; `nudge`, if any, as in
            `make_cell`.
        base: Weights of the pretrained model.

    Returns:
        By seed: `train_loss`, `test_loss`, `accuracy`, `ece` of the mean network, the same with
        `_ensemble`, and `singular_values` of the mean update of the first adapted layer.
    """
    model = _adapted(base, rank=cell["rank"], dropout=cell["dropout"], mask=cell["mask"],
                     nudge=cell.get("nudge", 0.0))  # fmt: skip
    pool, test = digits_pool()
    sets = [_drawn(N_TRAIN, seed=s, population=len(pool[1])) for s in range(cell["seeds"])]
    runs = fit_replicas(
        model,
        pool,
        [Replica(seed=s, init_seed=s, examples=chosen) for s, chosen in enumerate(sets)],
        config=settings_for(steps=cell["steps"], n=N_TRAIN, n_instances=N_INSTANCES),
        progress=False,
    )
    own = [derived_seed(s, "evaluation") for s in range(cell["seeds"])]  # masks of its own for each
    found: dict[str, list[Any]] = {}
    for mode, suffix in (("mean", ""), ("ensemble", "_ensemble")):
        train, fresh = (
            runs.outputs(
                model,
                part[0],
                inference=mode,  # type: ignore[arg-type]
                n_instances=N_INSTANCES,
                seed=own,
                average="probabilities",
            )
            for part in (pool, test)
        )
        hits = (fresh.argmax(dim=-1) == test[1]).double().mean(dim=1)
        found[f"train_loss{suffix}"] = means_over(losses(train, pool[1]), sets).tolist()
        found[f"test_loss{suffix}"] = losses(fresh, test[1]).double().mean(dim=1).tolist()
        found[f"accuracy{suffix}"] = hits.tolist()
        found[f"ece{suffix}"] = [
            expected_calibration_error(row.softmax(dim=-1), test[1]) for row in fresh
        ]
    names = sorted(name.removesuffix(".lora_A") for name in runs.parameters if "lora_A" in name)
    A, B = (runs.parameters[f"{names[0]}.lora_{part}"] for part in "AB")
    updates = torch.bmm(B, A).double()
    found["singular_values"] = torch.linalg.svdvals(updates)[:, : cell["rank"]].tolist()
    return found


def run_baselines(cell: Cell, *, base: bytes) -> dict[str, dict[str, float]]:
    """Ways to calibrate, on one training set.

    Args:
        cell: `seed` of the set, `members`, `steps`.
        base: Weights of the pretrained model.

    Returns:
        Way -> test `loss`, `accuracy`, `ece`; and the fitted `temperature`.
    """
    model = _adapted(base, rank=8, dropout=0.5, mask="row_column")
    pool, test = digits_pool()
    chosen = _drawn(N_TRAIN + N_VALIDATION, seed=cell["seed"], population=len(pool[1]))
    train, spare = chosen[:N_TRAIN], list(chosen[N_TRAIN:])
    seeds = [cell["seed"] * cell["members"] + k for k in range(cell["members"])]
    replicas = [Replica(seed=s, init_seed=s, dropout=0.0, examples=train) for s in seeds]
    replicas.append(Replica(seed=seeds[0], init_seed=seeds[0], dropout=0.5, examples=train))
    runs = fit_replicas(
        model,
        pool,
        replicas,
        config=settings_for(steps=cell["steps"], n=N_TRAIN, n_instances=N_INSTANCES),
        progress=False,
    )
    labels = pool[1][spare]
    held = runs.outputs(model, pool[0][spare], inference="mean")
    fresh = runs.outputs(model, test[0], inference="mean")
    voted = runs.outputs(
        model,
        test[0],
        inference="ensemble",
        n_instances=cell["members"],
        seed=derived_seed(cell["seed"], "evaluation"),
        average="probabilities",
    )[-1]
    temperatures = [_temperature(held[k], labels) for k in (0, len(replicas) - 1)]
    ways = {
        "LoRA": fresh[0],
        "LoRA, temperature": fresh[0] / temperatures[0],
        "LoRA, deep ensemble": fresh[:-1].softmax(dim=-1).mean(dim=0).log(),
        "LoRA Dropout, mean": fresh[-1],
        "LoRA Dropout, mean, temperature": fresh[-1] / temperatures[1],
        "LoRA Dropout, ensemble": voted,
    }
    return {
        way: {
            "loss": float(F.cross_entropy(outputs, test[1])),
            "accuracy": float((outputs.argmax(dim=-1) == test[1]).double().mean()),
            "ece": expected_calibration_error(outputs.softmax(dim=-1), test[1]),
        }
        for way, outputs in ways.items()
    } | {"temperatures": dict(zip(("LoRA", "LoRA Dropout, mean"), temperatures, strict=True))}


def _drawn(size: int, *, seed: int, population: int) -> tuple[int, ...]:
    """Returns indices of a training set; those of two seeds may have examples in common."""
    return tuple(np.random.default_rng(seed).permutation(population)[:size].tolist())


def _temperature(logits: Tensor, labels: Tensor) -> float:
    """Returns the temperature of the least loss on these examples (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / np.exp(log_temperature), labels))

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 5.0), method="bounded").x))
