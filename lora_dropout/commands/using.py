"""Take up what `train` wrote: for `evaluate` and `predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_dropout.commands import models
from lora_dropout.commands.settings import UseSettings
from lora_dropout.commands.train import saved_run
from lora_dropout.config import MaskConfig
from lora_dropout.tasks.catalogue import find_task
from lora_dropout.tasks.text import TextTask


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to predict.

    Attributes:
        model: With its masks.
        tokenizer: Of the model.
        task: What it is used for.
        order: Class names in the order of the model's outputs.
        max_length: Tokens an example.
        options: For `measuring.collect`.
        record: The run's `run.json`.
    """

    model: Any
    tokenizer: Any
    task: TextTask
    order: tuple[str, ...]
    max_length: int
    options: dict[str, Any]
    record: dict[str, Any]


def load(folder: Path, settings: UseSettings) -> Trained:
    """Load a finished run.

    Args:
        folder: That `train` wrote.
        settings: How to use it. Code in the base model's repository runs only if they say so,
            whatever the folder says.

    Returns:
        The model and all that goes with it.

    Raises:
        ValueError: If the folder holds no run, the task needs another head, or the base model was a
            folder that is not there now: the hub is not asked for a model of that name.
    """
    record = saved_run(folder)
    trained = record["settings"]
    task, own = find_task(settings.task or trained["task"]), find_task(trained["task"])
    if task.head != own.head or (task.head == "classification" and task.labels != own.labels):
        raise ValueError(f"--task: a model trained on {own.name!r} does not fit {task.name!r}")
    name = settings.base_model or trained["model"]
    if settings.base_model is None and record.get("local_model") and not Path(name).is_dir():
        raise ValueError(
            f"--base-model: the run's was a folder, {name}, which is not there: name it"
        )
    base, tokenizer, order = models.load_base(
        name,
        task,
        seed=trained["seed"],
        revision=trained["revision"],
        trust_remote_code=settings.trust_remote_code,
        precision=trained["precision"],
    )
    masks = MaskConfig(dropout=trained["dropout"], mask=trained["mask"], rescale=trained["rescale"])
    wanted = settings.max_length
    if wanted is None and task.name == own.name:
        wanted = record["max_length"]
    length = models.choose_length(wanted, task, base, tokenizer)
    model = models.load_trained(base, folder, masks, n_instances=trained["instances"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = {
        "inference": settings.inference or record["inference"],
        "n_instances": settings.eval_instances or trained["eval_instances"],
        "seed": settings.seed,
        "batch_size": settings.eval_batch_size,
        "precision": trained["precision"],
        "progress": True,
    }
    return Trained(model.to(device), tokenizer, task, order, length, options, record)
