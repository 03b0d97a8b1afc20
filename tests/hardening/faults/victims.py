"""Programs to kill: `python -m tests.hardening.faults.victims NAME FOLDER LOG`.

Each keeps its work in the folder, writes a line to the log for each unit of work that it begins,
and prints what it found, to the last bit.
"""

import hashlib
import io
import json
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

UNITS = 24  # epochs of `fit`

Log = Callable[[str], None]


def _log(path: Path, unit: str) -> None:
    with open(path, "a") as file:
        file.write(f"{unit}\n")


def _model_and_data() -> tuple[Any, Any, Any]:
    import torch
    from torch import nn

    from lora_dropout import LoRADropoutConfig, adapt

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    adapt(model, LoRADropoutConfig(rank=2, alpha=4, dropout=0.5), generator=generator)
    inputs = torch.randn(96, 6, generator=generator)
    labels = torch.randint(3, (96,), generator=generator)
    return model, (inputs[:64], labels[:64]), (inputs[64:], labels[64:])


def fit(folder: Path, log: Log) -> None:
    """`fit` with a checkpoint an epoch; a unit is an epoch."""
    from lora_dropout import FitConfig

    training = import_module("lora_dropout.training.fit")  # the package's `fit` is the function
    train_epoch = training._Run.train_epoch

    def logged(run: Any) -> None:
        log(str(run.epoch + 1))
        train_epoch(run)

    training._Run.train_epoch = logged  # type: ignore[method-assign]
    model, train, held_out = _model_and_data()
    config = FitConfig(epochs=UNITS, batch_size=16, patience=UNITS, seed=3)
    result = training.fit(
        model,
        train,
        held_out=held_out,
        config=config,
        checkpoint_folder=folder,
        progress=False,
        device="cpu",
    )
    digest = hashlib.blake2b()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    print(digest.hexdigest(), json.dumps([result.history, result.best_epoch]))


def replicas(folder: Path, log: Log) -> None:
    """Stability by the replica engine, saved each epoch; a unit is an epoch of a chunk."""
    from lora_dropout import FitConfig
    from lora_dropout.probes.retraining import leave_one_out
    from lora_dropout.replicas import chunk, fitting

    train_chunk, train_epoch = fitting._train, chunk.Chunk.train_epoch
    now = [""]

    def named(a_chunk: Any, place: Path, *others: Any) -> None:
        now[0] = place.name
        train_chunk(a_chunk, place, *others)

    def logged(self: chunk.Chunk) -> None:
        log(f"{now[0]}:{self.epoch + 1}")
        train_epoch(self)

    fitting._SAVE_SECONDS = 0.0
    fitting._train = named
    chunk.Chunk.train_epoch = logged  # type: ignore[method-assign]
    model, (inputs, labels), _ = _model_and_data()
    found = leave_one_out(
        model,
        (inputs[:16], labels[:16]),
        config=FitConfig(epochs=6, batch_size=8),
        chunk_size=6,
        checkpoint_folder=folder,
        progress=False,
        device="cpu",
    )
    digest = hashlib.blake2b()
    for array in (found.solutions, found.full, found.distances):
        digest.update(array.tobytes())
    print(digest.hexdigest(), found.loss, found.noise)


def figures(folder: Path, log: Log) -> None:
    """`python -m paper_figures run fig1_losses`, little trained; a unit is a cell."""
    from paper_figures import __main__ as command
    from paper_figures.experiments import digits_runs, tuned_runs
    from paper_figures.press import style
    from paper_figures.press.figure import Context, Training

    tiny = Training(
        learning_rates=(1e-2,),
        tuning_seeds=(100,),
        seeds=(0, 1),
        epochs=1,
        pretraining_epochs=1,
    )
    store = Context(folder).store
    pretrain, run_cell = digits_runs.pretrain_digits, digits_runs.run_cell

    def logged_base(**options: Any) -> Any:
        log("base")
        return pretrain(**options)

    def logged(cell: Any, *, base: bytes) -> Any:
        log(store.path(cell).name)
        return run_cell(cell, base=base)

    command.Training = lambda: tiny  # type: ignore[assignment,misc]
    digits_runs.pretrain_digits = logged_base
    tuned_runs.run_cell = logged
    style.SAVE_DPI = 40
    with redirect_stdout(sys.stderr):  # it names the folder
        status = command.main(["run", "fig1_losses", "--jobs", "1", "--out", str(folder)])
    for path in sorted(folder.rglob("*.*")):
        content = path.read_bytes()
        if path.parent == folder and path.suffix == ".json":  # commit and command may differ
            content = json.dumps(json.loads(content) | {"provenance": None}).encode()
        if path.suffix != ".html":
            print(path.relative_to(folder), hashlib.blake2b(content, digest_size=16).hexdigest())
    sys.exit(status)


def ray_cell(cell: dict[str, int], *, log: str) -> list[float]:
    """A cell that notes who computes it."""
    with open(log + ".pids", "a") as file:
        file.write(f"{os.getpid()}\n")
    _log(Path(log), str(cell["seed"]))
    rng = random.Random(cell["seed"])
    time.sleep(0.15)
    return [rng.random() for _ in range(1000)]


def ray(folder: Path, log: Log) -> None:
    """The driver of a sweep on the cluster that `RAY_ADDRESS` names; a unit is a cell."""
    from lora_dropout.runs.store import Store, run_cells
    from tests.hardening.faults import victims

    compute = partial(victims.ray_cell, log=sys.argv[3])
    cells = [{"seed": seed} for seed in range(12)]
    values = run_cells(compute, cells, store=Store(folder), jobs=2, engine="ray")
    print(hashlib.blake2b(json.dumps(values).encode()).hexdigest())


def kept_results(folder: Path) -> set[str]:
    """Cells in the store of a sweep."""
    return {str(json.loads(path.read_text())["cell"]["seed"]) for path in folder.glob("*.json")}


def kept_epochs(folder: Path) -> set[str]:
    """Epochs in a checkpoint of `fit`."""
    return {str(k + 1) for k in range(_epoch(folder))}


def kept_chunks(folder: Path) -> set[str]:
    """Epochs in the checkpoints of the chunks."""
    chunks = folder.glob("chunk-*")
    return {f"{chunk.name}:{k + 1}" for chunk in chunks for k in range(_epoch(chunk))}


def kept_cells(folder: Path) -> set[str]:
    """Cells in the store of the figures, the base model among them."""
    cells = {path.name for path in folder.glob("cells/*.json")}
    bases = [path.with_suffix(".json").name for path in folder.glob("cells/*.safetensors")]
    return cells | ({"base"} if cells.intersection(bases) else set())


def _epoch(folder: Path) -> int:
    import torch

    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    return torch.load(io.BytesIO(path.read_bytes()[16:]), weights_only=True)["epoch"]


# What is killed, and what of its work is kept in its folder.
VICTIMS: dict[str, tuple[Callable[[Path, Log], None], Callable[[Path], set[str]]]] = {
    "fit": (fit, kept_epochs),
    "replicas": (replicas, kept_chunks),
    "figures": (figures, kept_cells),
    "ray": (ray, kept_results),
}

if __name__ == "__main__":
    name, where, log_path = sys.argv[1:]
    VICTIMS[name][0](Path(where), partial(_log, Path(log_path)))
