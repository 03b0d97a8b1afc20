"""How time and peak memory grow: one setting varied at a time, exponents fitted to the upper half.

`python -m benchmarks.growth [--rounds R] [--out FILE]` writes the numbers and, beside them, a plot.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.memory import peak_bytes
from benchmarks.report import origin, spread, synchronize, write
from benchmarks.turns import time_in_turn
from lora_dropout import FitConfig, LoRADropoutConfig, adapt, ensemble_predict, sample_masks
from lora_dropout.replicas import Replica, fit_replicas
from lora_dropout.training.objective import instance_loss

WIDTH, TOKENS, RANK, LAYERS = 128, 512, 8, 4


def _model(width: int, rank: int, layers: int, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    parts = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())]
    config = LoRADropoutConfig(rank=rank, alpha=2.0 * rank, dropout=0.5)
    model = adapt(nn.Sequential(*parts), config, generator=torch.Generator().manual_seed(0))
    return model.to(device)


def _step(
    device: torch.device,
    *,
    tokens: int = TOKENS,
    width: int = WIDTH,
    rank: int = RANK,
    layers: int = LAYERS,
    instances: int = 1,
) -> Callable[[], object]:
    model = _model(width, rank, layers, device).train()
    x = torch.randn(tokens, width, device=device)
    draws = torch.Generator().manual_seed(0)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        masks = sample_masks(model, n_instances=instances, generator=draws)
        instance_loss(model, x, x, masks=masks, mode="batched", loss_fn=F.mse_loss).backward()

    return step


def _ensemble(device: torch.device, members: int) -> Callable[[], object]:
    model = _model(WIDTH, RANK, LAYERS, device)
    x = torch.randn(8, WIDTH, device=device)
    masks = sample_masks(model, n_instances=members, generator=torch.Generator().manual_seed(0))
    return lambda: ensemble_predict(model, x, masks=masks, average="logits")


def _replicas(device: torch.device, count: int) -> Callable[[], object]:
    torch.manual_seed(0)
    config = LoRADropoutConfig(rank=4, alpha=8.0, dropout=0.5)
    model = adapt(
        nn.Sequential(nn.Linear(16, 8)), config, generator=torch.Generator().manual_seed(0)
    )
    data = torch.randn(32, 16), torch.randn(32, 8)
    settings = FitConfig(epochs=5, batch_size=16)
    runs = [Replica(seed=k) for k in range(count)]
    return lambda: fit_replicas(
        model, data, runs, config=settings, loss_fn=F.mse_loss, device=device, progress=False
    )


def sweeps(device: torch.device) -> dict[str, dict[int, Callable[[], object]]]:
    """What is varied: name -> value -> what to time."""
    return {
        "tokens": {v: _step(device, tokens=v) for v in (128, 512, 2048, 8192)},
        "width": {v: _step(device, width=v) for v in (32, 128, 512, 1024)},
        "rank": {v: _step(device, rank=v) for v in (1, 4, 16, 64)},
        "adapted layers": {v: _step(device, layers=v) for v in (1, 4, 16, 32)},
        "instances N, one pass": {v: _step(device, instances=v) for v in (1, 2, 4, 8, 16)},
        "ensemble size N": {v: _ensemble(device, v) for v in (1, 4, 16, 64, 256)},
        "replicas K": {v: _replicas(device, v) for v in (1, 8, 64, 512)},
    }


def exponent(values: list[int], seconds: list[float]) -> float:
    """Slope of log time over log value, upper half of the values."""
    half = len(values) // 2
    return float(np.polyfit(np.log(values[half - 1 :]), np.log(seconds[half - 1 :]), 1)[0])


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw time and peak memory over each varied setting."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    grid = figure.subplots(2, 4)
    for axes, (name, row) in zip(grid.flat, found.items(), strict=False):
        median = [1000 * s["median"] for s in row["seconds"]]
        axes.loglog(row["values"], median, "o-", color="#0072B2")
        axes.set_xlabel(name)
        memory = axes.twinx()
        memory.loglog(row["values"], row["peak_mib"], "s--", color="#D55E00", markersize=4)
        memory.tick_params(labelsize=7, colors="#D55E00")
        axes.set_title(
            f"exponent: time {row['exponent']:.2f}, memory {row['memory_exponent']:.2f}", fontsize=8
        )
        axes.set_ylabel("ms (line); MiB (dashed, right)", fontsize=8)
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/growth.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source, found = origin(), {}
    for name, functions in sweeps(device).items():
        seen = time_in_turn(
            {str(v): f for v, f in functions.items()},
            rounds=options.rounds,
            settle=lambda: synchronize(device),
            title=name,
        )
        medians = [float(np.median(s)) for s in seen.values()]
        peaks = [float(peak_bytes(function, device)) for function in functions.values()]
        found[name] = {
            "values": list(functions),
            "seconds": [spread(s) for s in seen.values()],
            "exponent": round(exponent(list(functions), medians), 3),
            "peak_mib": [round(peak / 2**20, 3) for peak in peaks],
            "memory_exponent": round(exponent(list(functions), peaks), 3),
        }
        print(
            f"{name}: time grows like its power {found[name]['exponent']:.2f}, peak memory like "
            f"{found[name]['memory_exponent']:.2f}"
        )
    write(options.out, {"provenance": source, "device": device.type, "sweeps": found})
    plot(found, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
