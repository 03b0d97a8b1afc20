"""What `test_distributed.py` starts twice: one optimiser step, and what each rank saw, on disk."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from lora_dropout import cli
from lora_dropout.hf import LoRADropoutTrainer, attach
from lora_dropout.model_masks import Masks, sample_masks, use_masks
from tests.lora_dropout.hf.models import batch, peft_model
from tests.lora_dropout.hf.test_trainer import Rows, arguments

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


def main(folder: Path) -> None:
    for shape, mode in RUNS:
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
    rank, mesh = distributed.get_rank(), init_device_mesh("cpu", (2,))
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


if __name__ == "__main__":
    command(Path(sys.argv[1]))  # first: nobody has told torch that there are two of us
    main(Path(sys.argv[1]))
    sharded(Path(sys.argv[1]))
    distributed.destroy_process_group()
