"""Throughput of `fit_replicas` against a loop of `fit` and against joblib processes.

`python -m benchmarks.replicas [--rounds R] [--out FILE]`

All ways of a problem are timed in one process, in turn, so that a busy machine slows them alike;
ratios are taken round by round, medians with quartiles. A throughput is replicas trained a second.
All replicas are trained at once in every round; the loop and joblib train a part of them, a
different part each round (`timed_in_a_round`), and their throughput is that part's: it does not
depend on how many follow, since runs share nothing (joblib's workers are started before). Before
that the factors that each way ends with are compared on the same runs.

`fit_replicas` and the loop run on one core; joblib has a process of one thread for each core, and
`fit_replicas` is timed with as many threads too. `fit` evaluates twice (before and after training,
mask-free), the least it can. Processor seconds are beside the times of what runs on one core, as
others' load lengthens these less.
"""

import argparse
import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import joblib
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.report import origin, spread, synchronize, write
from lora_dropout import FitConfig, LoRADropoutConfig, adapt, fit, trainable_parameters
from lora_dropout.data import Data, LossFn
from lora_dropout.replicas import Replica, fit_replicas
from lora_dropout.tasks.digits import digits_pool
from lora_dropout.tasks.vit import VisionTransformer

EXAMPLES = 32
ALL_CORES = "fit_replicas, all cores"


@dataclass(frozen=True)
class Problem:
    """Something to train many times.

    Attributes:
        model: Adapted model.
        data: Shared training set.
        config: Settings.
        loss_fn: Loss.
        replicas: How many.
        timed: How many of them the loop trains in a round.
        tolerance: Largest allowed difference of a final factor from `fit`'s, over its largest entry
            (float32; rounding grows along a trajectory).
    """

    model: nn.Module
    data: Data
    config: FitConfig
    loss_fn: LossFn
    replicas: int
    timed: int
    tolerance: float = 1e-3


def problems() -> dict[str, Problem]:
    """A linear layer, two layers, and the digits transformer (with weights as initialised)."""
    config = FitConfig(
        epochs=20,
        batch_size=16,
        learning_rate=0.01,
        n_instances=4,
        evaluate_every=20,
        inference="mean",
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, 16, generator=generator)
    y = torch.randn(EXAMPLES, 8, generator=generator)
    labels = y[:, :4].argmax(dim=1)
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(16, 8))
    two = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    images, digits = (part[:64] for part in digits_pool()[0])

    def digits_problem(**changes: Any) -> Problem:
        model = _adapted(VisionTransformer(), rank=8, target_modules=r"blocks\..*")
        own = attrs.evolve(config, **{"epochs": 5, "batch_size": 32, **changes})
        return Problem(model, (images, digits), own, F.cross_entropy, 32, 4)

    return {
        "linear layer, 16 -> 8": Problem(_adapted(linear), (x, y), config, F.mse_loss, 512, 32),
        "two layers, 16 -> 32 -> 4": Problem(
            _adapted(two), (x, labels), config, F.cross_entropy, 512, 32
        ),
        "digits transformer, batches of 32, each under 4 masks": digits_problem(),
        "digits transformer, batches of 32 dealt to 4 masks": digits_problem(mode="grouped"),
        "digits transformer, batches of 8 dealt to 4 masks": digits_problem(
            mode="grouped", batch_size=8, epochs=2
        ),
    }


def _adapted(model: nn.Module, rank: int = 4, **more: Any) -> nn.Module:
    config = LoRADropoutConfig(rank=rank, alpha=2.0 * rank, dropout=0.5, **more)
    return adapt(model, config, generator=torch.Generator().manual_seed(1))


def runs(problem: Problem) -> list[Replica]:
    """Leave-one-out runs under many seeds: different data and different masks."""
    n = len(problem.data[1])
    subsets = [tuple(j for j in range(n) if j != i) for i in range(n)]
    return [Replica(seed=k, examples=subsets[k % n]) for k in range(problem.replicas)]


def alone(problem: Problem, run: Replica, device: str) -> dict[str, Tensor]:
    """One run of `fit`, on a copy of the model; its factors."""
    torch.set_num_threads(1)
    model = copy.deepcopy(problem.model)
    chosen = torch.tensor(run.examples)
    inputs, targets = problem.data
    assert isinstance(inputs, Tensor)
    fit(
        model,
        (inputs[chosen], targets[chosen]),
        config=attrs.evolve(problem.config, seed=run.seed),
        loss_fn=problem.loss_fn,
        device=device,
        progress=False,
    )
    return {name: p.detach().cpu() for name, p in trainable_parameters(model).items()}


def together(
    problem: Problem, chosen: Sequence[Replica], device: str, threads: int
) -> dict[str, Tensor]:
    """All runs by `fit_replicas`; their factors, stacked."""
    torch.set_num_threads(threads)
    trained = fit_replicas(
        problem.model,
        problem.data,
        chosen,
        config=problem.config,
        loss_fn=problem.loss_fn,
        device=device,
        progress=False,
    )
    assert not trained.diverged
    return dict(trained.parameters)


def check(problem: Problem, ways: dict[str, Callable[[Sequence[Replica]], Any]]) -> float:
    """Largest relative difference between the final factors of all ways, on `timed` runs.

    Raises:
        AssertionError: If it is above the problem's tolerance, or the masks made no difference.
    """
    chosen = runs(problem)[: problem.timed]
    found = {name: way(chosen) for name, way in ways.items()}
    worst = 0.0
    for name, values in found["fit_replicas"].items():
        assert not torch.equal(values[0], values[1]), f"{name}: two seeds ended alike"
        worst = max(worst, float((values - found[ALL_CORES][name]).abs().max()))
        for other in ("loop", "joblib"):
            for value, want in zip(values, found[other], strict=True):
                scale = float(want[name].abs().max())
                worst = max(worst, float((value - want[name]).abs().max()) / scale)
    assert worst < problem.tolerance, f"final factors differ by {worst:g} of their scale"
    return worst


def measure(name: str, problem: Problem, *, device: str, rounds: int) -> dict[str, Any]:
    """All numbers of one problem."""
    jobs = os.cpu_count() or 1
    everything = runs(problem)
    with joblib.Parallel(n_jobs=jobs) as pool:
        task = joblib.delayed(alone)

        ways: dict[str, Callable[[Sequence[Replica]], Any]] = {
            "fit_replicas": lambda chosen: together(problem, chosen, device, 1),
            ALL_CORES: lambda chosen: together(problem, chosen, device, jobs),
            "loop": lambda chosen: [alone(problem, run, device) for run in chosen],
            "joblib": lambda chosen: pool(task(problem, run, device) for run in chosen),
        }
        difference = check(problem, ways)  # which also starts the workers and warms up
        sizes = {
            "fit_replicas": problem.replicas,
            ALL_CORES: problem.replicas,
            "loop": problem.timed,
            "joblib": jobs * problem.timed,
        }
        wall: dict[str, list[float]] = {way: [] for way in ways}
        processor: dict[str, list[float]] = {way: [] for way in ways}
        for number in tqdm(range(rounds), desc=name):
            for way, train in ways.items():
                size = sizes[way]
                start = number * size % problem.replicas
                chosen = (everything + everything)[start : start + size]
                synchronize(torch.device(device))
                begun, used = time.perf_counter(), time.process_time()
                train(chosen)
                synchronize(torch.device(device))
                wall[way].append((time.perf_counter() - begun) / size)
                processor[way].append((time.process_time() - used) / size)
    seconds = {way: np.array(values) for way, values in wall.items()}
    used_seconds = {way: np.array(processor[way]) for way in ("fit_replicas", "loop")}
    return {
        "replicas": problem.replicas,
        "steps_a_replica": -(-(len(problem.data[1]) - 1) // problem.config.batch_size)
        * problem.config.epochs,
        "trained_parameters": sum(p.numel() for p in trainable_parameters(problem.model).values()),
        "timed_in_a_round": sizes,
        "joblib_processes": jobs,
        "largest_relative_difference_of_factors": float(f"{difference:.2g}"),
        "milliseconds_a_replica": {way: spread(1000 * s) for way, s in seconds.items()},
        "processor_milliseconds_a_replica": {w: spread(1000 * s) for w, s in used_seconds.items()},
        "throughput_over_loop": spread(seconds["loop"] / seconds["fit_replicas"]),
        "throughput_over_joblib": spread(seconds["joblib"] / seconds["fit_replicas"]),
        "throughput_over_loop_all_cores": spread(seconds["loop"] / seconds[ALL_CORES]),
        "throughput_over_joblib_all_cores": spread(seconds["joblib"] / seconds[ALL_CORES]),
        "throughput_over_loop_by_processor_time": spread(
            used_seconds["loop"] / used_seconds["fit_replicas"]
        ),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/replicas.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = origin()
    found: dict[str, Any] = {}
    for name, problem in problems().items():
        found[name] = measure(name, problem, device=device, rounds=options.rounds)
        load = os.getloadavg()[0]
        found[name]["load_of_the_machine_at_the_end"] = round(load, 1)
        write(options.out, {"provenance": before, "device": device, "problems": found})
        ratios = [found[name][f"throughput_over_{way}"]["median"] for way in ("loop", "joblib")]
        print(f"{name}: {ratios[0]:.1f} times the loop, {ratios[1]:.1f} times joblib")


if __name__ == "__main__":
    main()
