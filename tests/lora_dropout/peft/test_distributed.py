"""Two processes: independent masks a rank, reproducible, the single process's gradients."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lora_dropout import ensemble_predict, sample_masks, use_masks
from lora_dropout.peft import attach
from lora_dropout.peft.trainer import step_seeds
from lora_dropout.seeds import derived_generator
from tests.lora_dropout.peft.models import batch, peft_model
from tests.lora_dropout.peft.test_trainer import ROUTE, counted, gradients, reference, same
from tests.lora_dropout.peft.two_ranks import CASES, FSDP_SEEDS, RUNS
from tests.lora_dropout.strategies import close
from tests.lora_dropout.tasks.tiny import save_tiny_bert

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
ROOT = Path(__file__).parents[3]
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node=2"],
    "accelerate": [
        "accelerate.commands.launch", "--multi_gpu", "--num_processes=2",
        "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0",
    ],
}  # fmt: skip
# Torchrun's `--standalone`, which accelerate does not have: it looks for a free port, closes it,
# and finds it taken a little later when others are at work.
STANDALONE = {"PET_STANDALONE": "1"}


# accelerate's launcher hands over to torchrun's: once more the same, for `make thorough`.
PARAMS = ["torchrun", pytest.param("accelerate", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=PARAMS)
def folder(request: pytest.FixtureRequest, made_once: Callable[..., Path]) -> Path:
    """What the ranks left on disk."""
    return made_once(f"two-ranks-{request.param}", partial(launch, request.param))


def launch(launcher: str, folder: Path) -> None:
    save_tiny_bert(folder / "bert")
    for name, size in (("train", 16), ("dev", 4)):
        lines = [f"{name} {number}\t{number % 2}" for number in range(size)]
        text = "\n".join(["sentence\tlabel", *lines]) + "\n"
        (folder / f"{name}.tsv").write_text(text)
    command = [sys.executable, "-m", *LAUNCHERS[launcher], f"--max_restarts={len(CASES)}"]
    command.append(f"--log_dir={folder / 'logs'}")  # else it stays behind in /tmp
    command += [str(ROOT / "tests" / "lora_dropout" / "peft" / "two_ranks.py"), str(folder)]
    environment = {**os.environ, **STANDALONE, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (
        open(folder / "output", "w") as output,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            process.wait(timeout=240)
        except subprocess.TimeoutExpired:
            process.terminate()  # not killed: it stops its ranks
    assert process.returncode == 0, (folder / "output").read_text()[-4000:]


def check_case(folder: Path, name: str) -> None:
    """Fails with the traceback of the case's ranks, if there is one."""
    tracebacks = [path.read_text() for path in sorted(folder.glob(f"{name}.failed-*"))]
    assert not tracebacks, "\n".join(tracebacks)


@pytest.mark.parametrize(("shape", "mode"), RUNS)
def test_ranks(folder: Path, shape: str, mode: str) -> None:
    check_case(folder, f"{shape}-{mode}")
    ranks = [torch.load(folder / f"{shape}-{mode}-{rank}.pt", weights_only=True) for rank in (0, 1)]
    model = attach(peft_model(shape), n_instances=2).train()
    first = min(layer for layer in sample_masks(model).layers)
    parts, seeds = [], []
    for rank, state in enumerate(ranks):
        assert len(state["seen"]) == 2
        for micro, part in enumerate(state["seen"]):
            drawn = step_seeds(2, seed=7, rank=rank, step=0, micro_step=micro)
            masks = sample_masks(model, seeds=drawn)
            assert torch.equal(masks.layers[first].rows, state["rows"][micro])
            parts.append(part)
            seeds.append(drawn)
    drawn_rows = torch.cat([rows for state in ranks for rows in state["rows"]])
    assert len(drawn_rows.unique(dim=0)) == len(drawn_rows) == 8
    # Every rank ends with the step along the gradient of the mean over all labels (of the batches'
    # means, with BERT, which here is the same).
    items = sum(map(counted, parts)) if shape == "llama" else None
    _, gradients = reference(model, parts, seeds, mode, items)
    start = dict(model.named_parameters())
    for state in ranks:
        assert state["weights"].keys() == gradients.keys()
        for name, weight in state["weights"].items():
            close(weight, start[name].detach() - gradients[name], ROUTE)


@pytest.mark.parametrize(("shape", "mode"), RUNS)
def test_ranks_predict_as_one_ensemble(folder: Path, shape: str, mode: str) -> None:
    check_case(folder, f"{shape}-{mode}")
    state = torch.load(folder / f"{shape}-{mode}-0.pt", weights_only=True)
    model = attach(peft_model(shape), n_instances=2).eval()
    model.load_state_dict(state["weights"], strict=False)
    inputs = {k: v for k, v in batch(shape, 16, seed=3).items() if k != "labels"}
    masks = sample_masks(model, n_instances=2, generator=derived_generator(7, "evaluation"))
    expected = ensemble_predict(model, inputs, masks=masks)
    found = torch.load(folder / f"{shape}-{mode}-0-predictions.pt", weights_only=True)
    assert found.shape == expected.shape
    close(found, expected, ROUTE)


def test_the_command_shares_its_data_among_ranks(folder: Path) -> None:
    check_case(folder, "command")
    found = json.loads((folder / "command" / "run.json").read_text())
    assert found["n_train"] == 16 and found["steps"] == 2  # batches of 4, two at a time
    assert {"loss", "accuracy"} < set(found["results"]["dev"])


def test_sharded_ranks(folder: Path) -> None:
    """FSDP: the gradients of the mean over both ranks' losses, each under its own masks."""
    check_case(folder, "fsdp")
    model = attach(peft_model("llama"), n_instances=2).train()
    parts = [batch("llama", 4, seed=rank) for rank in (0, 1)]
    losses = [run_masked(model, part, seeds) for part, seeds in zip(parts, FSDP_SEEDS, strict=True)]
    torch.stack(losses).mean().backward()
    same(torch.load(folder / "fsdp.pt", weights_only=True), gradients(model))


def run_masked(model: nn.Module, part: dict[str, Tensor], seeds: Tensor) -> Tensor:
    masks = sample_masks(model, seeds=seeds)
    halves = [{k: v[2 * i : 2 * i + 2] for k, v in part.items()} for i in (0, 1)]
    total, count = torch.zeros(()), counted(part)
    for index, half in enumerate(halves):
        with use_masks(model, masks.select(index)):
            total = total + model(**half).loss * counted(half) / count
    return total
