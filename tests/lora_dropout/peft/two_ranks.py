"""What `test_distributed.py` launches: its cases in turn, and on disk what each rank saw.

A case that fails leaves its traceback and ends the process; the launcher then starts both ranks
again, for the cases that have not begun yet.
"""

import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from lora_dropout import __main__ as cli
from lora_dropout.adapters.use_masks import Masks, sample_masks, use_masks
from lora_dropout.peft import LoRADropoutTrainer, attach
from tests.lora_dropout.peft.models import batch, peft_model
from tests.lora_dropout.peft.test_trainer import Rows, arguments

# BERT's classifier does not divide its loss by the number of labels, llama's language model does.
RUNS = (("llama", "loop"), ("llama", "batched"), ("llama", "grouped"), ("bert", "loop"))

FSDP_SEEDS = (torch.tensor([1, 2]), torch.tensor([3, 4]))


class Recorder(LoRADropoutTrainer):
    """Keeps the batches and the masks of this rank."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[dict[str, Any]] = []
        self.rows: list[torch.Tensor] = []

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *more: Any) -> torch.Tensor:
        self.seen.append({k: v.clone() for k, v in inputs.items()})
        return super().training_step(model, inputs, *more)

    def _next_masks(self) -> Masks:
        masks = super()._next_masks()
        first = min(masks.layers)
        rows = masks.layers[first].rows
        assert rows is not None
        self.rows.append(rows)
        return masks


def step(folder: Path, shape: str, mode: str) -> None:
    model = attach(peft_model(shape), n_instances=2)
    data = Rows(shape, 16)
    if shape == "llama":
        data.data["labels"][::3, 2:] = -100  # ranks count unequal numbers of labels
    run = Recorder(
        model,
        arguments(
            folder / "run", max_steps=1, gradient_accumulation_steps=2, optim="sgd",
            learning_rate=1.0, lr_scheduler_type="constant", ddp_backend="gloo",
            per_device_train_batch_size=2,
        ),
        train_dataset=data,
        mode=mode,
    )  # fmt: skip
    run.train()
    rank = run.args.process_index
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    state = {"seen": run.seen, "rows": run.rows, "weights": weights}
    torch.save(state, folder / f"{shape}-{mode}-{rank}.pt")
    scores = run.predict(data).predictions  # type: ignore[arg-type]
    torch.save(torch.from_numpy(scores), folder / f"{shape}-{mode}-{rank}-predictions.pt")


def sharded(folder: Path) -> None:
    """A pass under PyTorch's FSDP, each rank with its masks and its batch; no Trainer."""
    mesh = init_device_mesh("cpu", (2,))
    rank = distributed.get_rank()
    model = attach(peft_model("llama"), n_instances=2).train()
    for module in model.modules():
        if isinstance(module, LlamaDecoderLayer):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    with use_masks(model, sample_masks(model, seeds=FSDP_SEEDS[rank]), rows=4):
        model(**batch("llama", 4, seed=rank)).loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor)
        if parameter.grad is not None:
            gradients[name] = parameter.grad.full_tensor()
    if rank == 0:
        torch.save(gradients, folder / "fsdp.pt")


def command(folder: Path) -> None:
    options = ["train", "--model", str(folder / "bert"), "--task", "sst2", "--data", str(folder)]
    options += ["--output", str(folder / "command"), "--epochs", "1", "--batch-size", "4"]
    assert cli.main([*options, "--instances", "2", "--eval-instances", "2"]) == 0


CASES: dict[str, Callable[[Path], None]] = {
    "command": command,  # first: nobody has told torch that there are two of us
    **{f"{shape}-{mode}": partial(step, shape=shape, mode=mode) for shape, mode in RUNS},
    "fsdp": sharded,
}


def main(folder: Path) -> None:
    rank, start = os.environ["RANK"], int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    for name, case in CASES.items():
        if any((folder / f"{name}.begun-{earlier}").exists() for earlier in range(start)):
            continue  # done, or failed: no case has a second try
        (folder / f"{name}.begun-{start}").touch()
        try:
            case(folder)
        except BaseException:
            (folder / f"{name}.failed-{rank}").write_text(traceback.format_exc())
            raise
        distributed.barrier()  # a rank that ran ahead would be stopped in the next case
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
