"""Cells for the tests of sweeps; worker processes import them from here."""

import os
import signal
import time
from pathlib import Path

import torch

from lora_dropout.safe_files import atomic_path


def train_a_little(cell):
    """A seeded computation whose last bits would show any difference."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(cell["seed"])
    x, w = torch.randn(2, 40, 40, generator=generator)
    for _ in range(20):
        w = w - 0.01 * torch.tanh(x @ w).T
    return {"weights": w.sum().item(), "seed": cell["seed"]}


def act(cell):
    """Write a line to `cell['log']`, do what `cell['does']` says, then train a little."""
    log, seed, does = Path(cell["log"]), cell["seed"], cell.get("does")
    # Appends of a few bytes are atomic: one line for each try, whoever makes it.
    with open(log, "a") as file:
        file.write(f"{seed}\n")
    if does == "fail":
        raise RuntimeError("planted failure")
    if does == "die once" and log.read_text().splitlines().count(str(seed)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "tell":
        with atomic_path(log.with_name("told")) as path:
            path.write_text(str(os.getpid()))
    if does == "wait":
        while not log.with_name("gate").exists():
            time.sleep(0.02)
    if does == "doze":
        time.sleep(0.02)
    if does == "return a set":
        return {1, 2}
    if does == "raise what does not travel":

        class LocalError(Exception):
            def __init__(self, one, two):
                super().__init__(one)

        raise LocalError("odd", "error")
    return train_a_little(cell)


def visible_gpus(cell):
    return os.environ.get("CUDA_VISIBLE_DEVICES")
