"""Fine-tune a PEFT model by the Trainer, with masks or without."""

import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lora_dropout.commands.settings import RunSettings
from lora_dropout.peft import LoRADropoutTrainer
from lora_dropout.peft.rank_allocation import allocate_ranks
from lora_dropout.tasks.text import TextTask


class _Bar(ProgressCallback):
    """Shows the loss beside the bar; standard output is for results."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.4g}")


def total_steps(settings: RunSettings, rows: int, processes: int = 1) -> int:
    """Optimiser steps of a run.

    Args:
        settings: Its settings.
        rows: Encoded training rows.
        processes: Processes that share them.

    Returns:
        The number, at least 1.
    """
    per_epoch = math.ceil(math.ceil(rows / processes) / settings.batch_size)
    return max(1, math.ceil(per_epoch * settings.epochs))


def check_reporting(report_to: Sequence[str]) -> None:
    """Find out now, not after the model is loaded, whether results can be reported there.

    Args:
        report_to: Names that transformers knows.

    Raises:
        ValueError: If one is unknown or its package is missing.
    """
    for name in report_to:
        if name not in ("none", "all"):
            try:
                for callback in get_reporting_integration_callbacks([name]):
                    callback()
            except (ValueError, ImportError, RuntimeError) as error:
                raise ValueError(f"--report-to {name}: {error}") from error


def make_trainer(
    model: nn.Module,
    task: TextTask,
    tokenizer: Any,
    rows: Dataset,
    settings: RunSettings,
    *,
    masked: bool,
    learning_rate: float,
    seed: int,
    output: Path,
    progress: bool,
    **arguments: Any,
) -> Trainer:
    """The Trainer of a run.

    Args:
        model: A PEFT model, with masks if `masked`.
        task: The task.
        tokenizer: Of the model.
        rows: Encoded training rows.
        settings: Of the run.
        masked: Whether to train by the N-instance loss.
        learning_rate: Peak rate.
        seed: Of data order and masks.
        output: For checkpoints.
        progress: Whether to show a progress bar.
        **arguments: Further `TrainingArguments`.

    Returns:
        The trainer, ready to `train`.
    """
    args = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup,  # below 1: a share
        lr_scheduler_type="linear",
        bf16=settings.precision == "bf16",
        gradient_checkpointing=settings.gradient_checkpointing,
        seed=seed,
        remove_unused_columns=False,
        eval_strategy="no",
        # Said outright: else processes on CPUs would each train alone, and write over each other.
        use_cpu=not torch.accelerator.is_available(),
        disable_tqdm=not progress,
        dataloader_pin_memory=torch.cuda.is_available(),
        **arguments,
    )
    common: dict[str, Any] = {
        "model": model,
        "args": args,
        "train_dataset": rows,
        "data_collator": task.collator(tokenizer),
        "processing_class": tokenizer,
    }
    if masked:
        trainer: Trainer = LoRADropoutTrainer(mode=settings.mode, **common)  # type: ignore[arg-type]
    else:
        trainer = Trainer(**common)
        allocate_ranks(trainer)
    trainer.remove_callback(ProgressCallback if progress else PrinterCallback)
    if progress:
        trainer.add_callback(_Bar)
    return trainer


def resume(trainer: Trainer, checkpoint: str | None) -> None:
    """Train, from a checkpoint if there is one; nothing in it is executed.

    Args:
        trainer: The trainer.
        checkpoint: A folder of its own, whose tensors and numbers are read by `weights_only`.

    Raises:
        ValueError: If the checkpoint is damaged or holds more than tensors and numbers, or if it
            is FSDP's or DeepSpeed's, whose formats are pickles.
    """
    if checkpoint is not None and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        raise ValueError(
            "--resume: checkpoints of FSDP and DeepSpeed are pickles, which may run code"
        )
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except (pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).partition(".")[0][:200]
        raise ValueError(
            f"--resume: {checkpoint} is damaged or holds more than tensors and numbers: {reason}"
        ) from error
