"""Take up what `train` wrote: for `evaluate` and `predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_dropout.commands.loading import base_model as models
from lora_dropout.commands.run_identity import model_identity
from lora_dropout.commands.settings import UseSettings
from lora_dropout.commands.train import saved_run
from lora_dropout.masks.config import MaskConfig
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


def chosen_task(record: dict[str, Any], settings: UseSettings) -> TextTask:
    """The task to use a finished run for.

    Args:
        record: Its `run.json`.
        settings: How to use it.

    Returns:
        The task.

    Raises:
        ValueError: If the task needs another head.
    """
    own = find_task(record["settings"]["task"])
    task = find_task(settings.task or own.name)
    if task.head != own.head or (task.head == "classification" and task.labels != own.labels):
        raise ValueError(f"--task: a model trained on {own.name!r} does not fit {task.name!r}")
    return task


def load(folder: Path, settings: UseSettings) -> Trained:
    """Load a finished run.

    Args:
        folder: That `train` wrote.
        settings: How to use it. Code in the base model's repository runs only if they say so,
            whatever the folder says.

    Returns:
        The model and all that goes with it.

    Raises:
        ValueError: If the folder holds no run, the task needs another head, the base model is not
            the run's, or it was a folder that is not there now: the hub is not asked for a model of
            that name.
    """
    record = saved_run(folder)
    trained = record["settings"]
    task = chosen_task(record, settings)
    name = settings.base_model or trained["model"]
    if settings.base_model is None and record.get("local_model") and not Path(name).is_dir():
        raise ValueError(
            f"--base-model: the run's was a folder, {name}, which is not there: name it"
        )
    # What the run used, even if the hub has another by now; an older record does not say.
    recorded = record.get("plain", {}).get("arguments", {})
    revision = trained["revision"] if name != trained["model"] else recorded.get("revision")
    flag = "--model" if settings.base_model is None else "--base-model"
    found = models.find_base(
        name,
        task,
        revision=revision or trained["revision"],
        trust_remote_code=settings.trust_remote_code,
        flag=flag,
    )
    _check_same(record, name, found.common["revision"], flag)
    masks = MaskConfig(dropout=trained["dropout"], mask=trained["mask"], rescale=trained["rescale"])
    wanted = settings.max_length
    if wanted is None and task.name == trained["task"]:
        wanted = record["max_length"]
    length = models.choose_length(wanted, task, found)
    base = models.load_base(
        found, task, seed=trained["seed"], precision=trained["precision"], flag=flag
    )
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
    return Trained(model.to(device), found.tokenizer, task, found.order, length, options, record)


def _check_same(record: dict[str, Any], name: str, commit: str | None, flag: str) -> None:
    before = record.get("inputs", {}).get("model")
    if before is None or record.get("local_model") != Path(name).is_dir():
        return  # an older record; or a copy of the hub's model in a folder, or the reverse
    if model_identity(name, commit) != before:
        raise ValueError(f"{flag}: {name} is not the base model that the adapter was trained on")
