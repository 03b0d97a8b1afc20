"""Which way to average over N masks learns most in a second: `loop`, `batched` or `grouped`?

`python -m benchmarks.convergence [--rounds R] [--out FILE]` writes the numbers and, beside them, a
plot. The digits transformer is adapted to turned digits, N = 4, p = 0.5, batches of 32.

Noise: the variance that the draw of masks alone gives the gradient of one batch (the trace of its
covariance, over the squared norm of its mean), and that variance times the seconds of a step: what
a given precision costs. Learning: training loss of the mean network against seconds, which are
steps times the median step, all ways timed in turn.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.report import origin, spread, synchronize, write
from benchmarks.turns import time_in_turn
from lora_dropout import FitConfig, LoRADropoutConfig, adapt, fit, sample_masks
from lora_dropout.data import Data
from lora_dropout.tasks.digits import digits_target, pretrain_digits
from lora_dropout.training.objective import InstanceMode, instance_losses

BATCH, LEARNING_RATE = 32, 0.01
WAYS: dict[str, tuple[int, InstanceMode]] = {
    "N = 1": (1, "batched"),
    "N = 4, loop": (4, "loop"),
    "N = 4, batched": (4, "batched"),
    "N = 4, grouped": (4, "grouped"),
}


def start() -> tuple[nn.Module, Data, Data]:
    """The pretrained, adapted model; the data to learn, and to test on."""
    config = LoRADropoutConfig(rank=8, alpha=16.0, dropout=0.5, target_modules=r"blocks\..*")
    model = pretrain_digits(epochs=10, progress=False)
    adapt(model, config, generator=torch.Generator().manual_seed(0))
    task = digits_target(seed=0)
    return model, task.train, task.test


def settings(way: str, epochs: int, seed: int) -> FitConfig:
    """How a way trains."""
    instances, mode = WAYS[way]
    return FitConfig(
        epochs=epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, schedule="constant",
        n_instances=instances, mode=mode, inference="mean", seed=seed,
    )  # fmt: skip


def gradient(
    model: nn.Module, data: Data, way: str, draws: torch.Generator
) -> Callable[[], Tensor]:
    """A function that draws masks and returns the gradient of the first batch, as a vector."""
    instances, mode = WAYS[way]
    images, labels = data[0][:BATCH], data[1][:BATCH]  # type: ignore[index]
    parameters = [p for p in model.parameters() if p.requires_grad]

    def once() -> Tensor:
        model.zero_grad(set_to_none=True)
        masks = sample_masks(model, n_instances=instances, generator=draws)
        for loss in instance_losses(model, images, labels, masks=masks, mode=mode):
            loss.backward()
        return torch.cat([p.grad.flatten().double() for p in parameters if p.grad is not None])

    return once


def noise(once: Callable[[], Tensor], draws: int) -> dict[str, float]:
    """Relative variance of a gradient over draws of masks, in two passes; and its mean's norm."""
    found = torch.stack([once() for _ in range(draws)])
    mean = found.mean(dim=0)
    variance = float((found - mean).square().sum() / (draws - 1))
    # The mean's own noise is in its square: taken off, the estimate of the norm is unbiased.
    square = float(mean.square().sum()) - variance / draws
    return {"relative_variance": variance / square, "squared_norm": square}


def learn(way: str, start_from: nn.Module, train: Data, epochs: int, seeds: int) -> dict[str, Any]:
    """Training losses after each epoch, mean over seeds, and the steps made until then."""
    losses, steps = [], []
    for seed in range(seeds):
        model = copy.deepcopy(start_from)
        result = fit(model, train, config=settings(way, epochs, seed), progress=False)
        losses.append([record["train_loss"] for record in result.history])
        steps = [int(record["step"]) for record in result.history]
    return {"steps": steps, "train_loss": np.mean(losses, axis=0).round(4).tolist()}


def seconds_to(loss: float, row: dict[str, Any]) -> float | None:
    """Seconds until the loss was first reached; None if it was not."""
    step = row["seconds_a_step"]["median"]
    for steps, value in zip(row["steps"], row["train_loss"], strict=True):
        if value <= loss:
            return float(steps * step)
    return None


def measure(
    device: torch.device, *, rounds: int, draws: int, epochs: int, seeds: int
) -> dict[str, Any]:
    """All numbers."""
    model, train, _ = start()
    # Away from the start, where B is zero and so is half of the gradient.
    warm = copy.deepcopy(model)
    fit(warm, train, config=settings("N = 1", 3, 9), progress=False)
    warm.to(device).train()
    images, labels = (part.to(device) for part in train)  # type: ignore[union-attr]
    ways = {
        way: gradient(warm, (images, labels), way, torch.Generator().manual_seed(1)) for way in WAYS
    }
    seen = time_in_turn(ways, rounds=rounds, settle=lambda: synchronize(device), title="step")
    rows: dict[str, Any] = {}
    for way in tqdm(WAYS, desc="noise and learning"):
        rows[way] = {
            **noise(ways[way], draws),
            "seconds_a_step": spread(seen[way]),
            **learn(way, model, train, epochs, seeds),
        }
    means = [row["squared_norm"] for row in rows.values()]
    # The same expectation: were one way's another, the comparison would be void.
    assert max(means) < 1.5 * min(means), f"squared norms of the mean gradients differ: {means}"
    goal = float(
        np.sqrt(rows["N = 4, loop"]["train_loss"][0] * rows["N = 4, loop"]["train_loss"][-1])
    )
    reference = rows["N = 4, loop"]
    cost = reference["relative_variance"] * reference["seconds_a_step"]["median"]
    for row in rows.values():
        own = row["relative_variance"] * row["seconds_a_step"]["median"]
        row["variance_times_seconds_over_loop"] = float(f"{own / cost:.3g}")
        reached, want = seconds_to(goal, row), seconds_to(goal, reference)
        row["seconds_to_goal_over_loop"] = (
            float(f"{reached / want:.3g}") if reached is not None and want else None
        )
    return {"goal_train_loss": goal, "draws": draws, "epochs": epochs, "seeds": seeds, "rows": rows}


def plot(rows: dict[str, Any], path: Path) -> None:
    """Training loss against seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for (way, row), color in zip(
        rows.items(), ("#999999", "#0072B2", "#009E73", "#D55E00"), strict=True
    ):
        seconds = np.array(row["steps"]) * row["seconds_a_step"]["median"]
        axes.semilogy(seconds, row["train_loss"], color=color, label=way)
    axes.set_xlabel("seconds of training steps")
    axes.set_ylabel("training loss, mean network")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/convergence.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = origin()
    size = {"draws": 200, "epochs": 40, "seeds": 5}
    if options.rounds < 10:
        size = {"draws": 40, "epochs": 3, "seeds": 1}
    found = measure(device, rounds=options.rounds, **size)
    write(options.out, {"provenance": source, "device": device.type, **found})
    plot(found["rows"], options.out.with_suffix(".png"))
    for way, row in found["rows"].items():
        print(
            f"{way:15} variance {row['relative_variance']:.3g}, "
            f"{1000 * row['seconds_a_step']['median']:.1f} ms a step, variance x time "
            f"{row['variance_times_seconds_over_loop']} of the loop's, time to a loss of "
            f"{found['goal_train_loss']:.2g}: {row['seconds_to_goal_over_loop']} of the loop's"
        )


if __name__ == "__main__":
    main()
