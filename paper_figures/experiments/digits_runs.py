"""Fine-tuning runs on the digits task: the settings that figures share, and one run as a cell."""

import hashlib
from typing import Any

import attrs
import torch
from safetensors.torch import load, save
from torch import nn

from lora_dropout import (
    FitConfig,
    LoRADropoutConfig,
    RankBudget,
    adapt,
    evaluate,
    fit,
)
from lora_dropout.adapters.layer import need_masked_layers
from lora_dropout.prediction.ensemble import Prediction
from lora_dropout.runs.store import Cell, Store
from lora_dropout.safe_files import atomic_path
from lora_dropout.seeds import derived_generator
from lora_dropout.tasks.digits import digits_target, pretrain_digits
from lora_dropout.tasks.vit import VisionTransformer


def pretrained(store: Store, *, epochs: int) -> bytes:
    """Pretrain the base model once.

    Args:
        store: Where it is kept.
        epochs: Length of the pretraining.

    Returns:
        Its weights, in the format of safetensors.

    Raises:
        ValueError: If the file is damaged.
    """
    cell = {"base": "digits", "epochs": epochs}
    path = store.path(cell).with_suffix(".safetensors")
    digest = store.get(cell)
    if digest is None or not path.is_file():
        model = pretrain_digits(seed=0, epochs=epochs)
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(model.state_dict()))
        digest = _digest(path.read_bytes())
        store.put(cell, digest)  # after the file: what has a digest is whole
    base = path.read_bytes()
    if digest != _digest(base):
        raise ValueError(f"{path} is damaged, remove it to train it again")
    return base


def _digest(base: bytes) -> str:
    return hashlib.blake2b(base, digest_size=12).hexdigest()


def make_cell(
    *,
    base: bytes,
    adapter: str,
    dropout: float,
    learning_rate: float,
    seed: int,
    epochs: int,
    tuning: bool,
    nudge: float = 0.0,
) -> Cell:
    """Describe one run.

    Args:
        base: Weights of the pretrained model.
        adapter: `lora` or `adalora`.
        dropout: Rate p of LoRA Dropout; 0 is the plain method.
        learning_rate: Peak learning rate.
        seed: Seed of target set, initial factors, data order and masks.
        epochs: Length of the run.
        tuning: Whether to measure on the validation set, at the end only; else on the test set.
        nudge: Relative size of a random change of the pretrained weights, to see what hangs on
            their last bits; measured at the end only.

    Returns:
        The cell.
    """
    return {
        "base": _digest(base),
        "adapter": adapter,
        "dropout": dropout,
        "learning_rate": learning_rate,
        "seed": seed,
        "epochs": epochs,
        "tuning": tuning,
        "nudge": nudge,
    }


def run_cell(cell: Cell, *, base: bytes) -> dict[str, Any]:
    """Fine-tune once.

    Args:
        cell: From `make_cell`.
        base: Weights of the pretrained model; they travel with the task, to any machine.

    Returns:
        `history` (see `FitResult`; when tuning, a loss of None for a run that diverged), and
        `final`: test metrics by inference mode (validation
        metrics when tuning). A model trained without masks is also measured with masks put on
        afterwards at p = 0.5, `masks at test` (the paper's Drop_test).

    Raises:
        FloatingPointError: If a run that is not for tuning diverged.
    """
    torch.set_num_threads(1)  # one run a core
    seed, epochs, dropout = cell["seed"], cell["epochs"], cell["dropout"]
    target = digits_target(seed=seed)
    model = based(base, nudge=cell["nudge"])
    adapt(
        model,
        LoRADropoutConfig(
            rank=8,
            alpha=16,
            dropout=dropout,
            adapter=cell["adapter"],
            target_modules=r"blocks\..*",
        ),
        generator=torch.Generator().manual_seed(seed),
    )
    steps = epochs * -(-len(target.train[1]) // 32)
    config = FitConfig(
        epochs=epochs,
        batch_size=32,
        learning_rate=cell["learning_rate"],
        schedule="constant",
        n_instances=4,
        inference="ensemble" if dropout else "mean",
        eval_instances=4,
        rank_budget=_budget(steps) if cell["adapter"] == "adalora" else None,
        evaluate_every=epochs if cell["tuning"] or cell["nudge"] else max(1, epochs // 15),
        seed=seed,
    )
    held_out = target.validation if cell["tuning"] else target.test
    try:
        result = fit(model, target.train, held_out=held_out, config=config, progress=False)
    except FloatingPointError:
        if not cell["tuning"]:
            raise
        return {"history": [{"held_out_loss": None}], "final": {}}
    return {"history": result.history, "final": _final(model, held_out, dropout, seed)}


def based(base: bytes, *, nudge: float = 0.0) -> VisionTransformer:
    """The pretrained model.

    Args:
        base: Its weights.
        nudge: Relative size of a random change of them.

    Returns:
        The model.
    """
    model = VisionTransformer()
    model.load_state_dict(load(base))
    if nudge:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weights in model.parameters():
                weights.mul_(1 + nudge * torch.randn(weights.shape, generator=generator))
    return model


def _budget(steps: int) -> RankBudget:
    return RankBudget(
        target_rank=4, warmup_steps=steps // 10, final_steps=3 * steps // 10, interval=5
    )


def _final(model: nn.Module, data: Any, dropout: float, seed: int) -> dict[str, dict[str, float]]:
    def measured(mode: Prediction) -> dict[str, float]:
        generator = derived_generator(seed, "evaluation")
        return evaluate(
            model,
            data,
            inference=mode,
            n_instances=4,
            generator=generator,
            average="probabilities",
        )

    if dropout:
        modes: tuple[Prediction, ...] = ("ensemble", "mean", "raw")
        return {mode: measured(mode) for mode in modes}
    found = {"mean": measured("mean")}
    for layer in need_masked_layers(model).values():
        layer.config = attrs.evolve(layer.config, dropout=0.5)
    return found | {"masks at test": measured("ensemble")}
