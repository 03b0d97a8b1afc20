"""The runs of `compare`: one cell, one fine-tuning, measured in every way that applies."""

import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers.utils.logging import disable_progress_bar

from lora_dropout.commands.card import plain
from lora_dropout.commands.fine_tuning import make_trainer, total_steps
from lora_dropout.commands.loading import base_model as models
from lora_dropout.commands.measuring import measure
from lora_dropout.commands.quiet import ignore_library_warnings
from lora_dropout.commands.run_identity import model_identity, rows_identity
from lora_dropout.commands.settings import CompareSettings
from lora_dropout.commands.splits import RunData, draw, load_run
from lora_dropout.masks.config import MaskConfig
from lora_dropout.tasks.catalogue import find_task
from lora_dropout.tasks.data_warning import DataWarning
from lora_dropout.tasks.text import without_overlap
from lora_dropout.training.checkpoint import tensors_digest

METHODS = ("lora", "dropout", "lora_dropout")
# Settings that change how runs are scheduled, not what comes out.
_SCHEDULING = ("output", "jobs", "engine", "gpus_per_run", "seeds", "tune_seeds")
_GRIDS = ("dropout", "ordinary_dropout", "learning_rates")
_TRAIN_MEASURED = 1000  # examples behind the training loss of the gap


def make_cell(
    settings: CompareSettings,
    *,
    method: str,
    rate: float,
    learning_rate: float,
    seed: int,
    tuning: bool,
    inputs: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe one run.

    Args:
        settings: Of the comparison.
        method: One of `METHODS`.
        rate: Dropout rate of the method.
        learning_rate: Peak rate.
        seed: Of the examples drawn, the new weights, the order and the masks.
        tuning: Measure on the validation set, else on the dev sets.
        inputs: From `check_runs`.

    Returns:
        The cell, representable in JSON.
    """
    left_out = (*_SCHEDULING, *_GRIDS)
    common = {k: v for k, v in plain(asdict(settings)).items() if k not in left_out}
    if method != "lora_dropout":  # what only masks know changes nothing here
        common |= dict.fromkeys(("instances", "mode", "mask", "rescale", "eval_instances"))
    return {
        **common,
        "revision": inputs["revision"],
        "method": method,
        "rate": rate,
        "learning_rate": learning_rate,
        "seed": seed,
        "tuning": tuning,
        # A tuning run knows nothing of the dev sets.
        "inputs": {k: inputs[k] for k in ("model", "train", *(() if tuning else ("dev",)))},
    }


def check_runs(settings: CompareSettings) -> dict[str, Any]:
    """Look at data and model once before the runs, each of which would fail by itself.

    Args:
        settings: Of the comparison.

    Returns:
        For `make_cell`: `train`, `dev` and `model`, what they are, whatever their places; and
        `revision`, the commit of a model on the hub, the same for all runs.
    """
    task = find_task(settings.task)
    found = _find(settings)
    data = load_run(task, settings.data, keep_overlap=settings.keep_overlap)
    pool, validation = _set_aside(data.train, settings, task.name)
    rows = draw(pool, settings.n_train, seed=0)
    length = models.choose_length(settings.max_length, task, found)
    for split in (rows, validation, *data.dev.values()):
        task.encode(split, found.tokenizer, max_length=length, order=found.order)
    base = models.load_base(found, task, precision=settings.precision, empty=True)
    _add_adapter(base, settings, rows=len(rows))
    revision = found.common["revision"]
    model = model_identity(settings.model, revision)
    return {**_identities(data), "model": model, "revision": revision}


def run_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Fine-tune once and measure.

    Args:
        cell: From `make_cell`.

    Returns:
        `results`: way to predict -> split -> metrics, `train` among the splits; `seconds` of the
        training; `peak_bytes`, on a GPU the most allocated, else the most resident memory of the
        process (Linux; None elsewhere); `n_train`, `steps`, `share_truncated`, `overlap_left_out`;
        `adapter_digest` of the trained weights.
    """
    with warnings.catch_warnings():
        ignore_library_warnings()
        warnings.simplefilter("ignore", DataWarning)  # the report tells of both kinds
        disable_progress_bar()
        return _run(cell)


def _run(cell: Mapping[str, Any]) -> dict[str, Any]:
    if not torch.cuda.is_available():
        # The number of threads decides a sum's last bits: one run, one core, whoever runs it.
        torch.set_num_threads(1)
    settings = _settings(cell)
    task = find_task(settings.task)
    data = load_run(task, settings.data, keep_overlap=settings.keep_overlap)
    now = _identities(data)
    if any(cell["inputs"].get(name, same) != same for name, same in now.items()):
        raise ValueError(f"--data: {settings.data} is not what the comparison began with")
    pool, validation = _set_aside(data.train, settings, task.name)
    rows = draw(pool, settings.n_train, seed=cell["seed"])
    where = _find(settings)
    tokenizer = where.tokenizer
    length = models.choose_length(settings.max_length, task, where)
    encoded = task.encode(rows, tokenizer, max_length=length, order=where.order)
    base = models.load_base(where, task, seed=cell["seed"], precision=settings.precision)
    masked = cell["method"] == "lora_dropout"
    model = _add_adapter(
        base,
        settings,
        rows=len(encoded.rows),
        lora_dropout=cell["rate"] if cell["method"] == "dropout" else 0.0,
        seed=cell["seed"],
    )
    if masked:
        masks = MaskConfig(dropout=cell["rate"], mask=cell["mask"], rescale=cell["rescale"])
        models.put_masks(model, masks, n_instances=settings.instances)
    _reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            model,
            task,
            tokenizer,
            encoded.rows,
            settings,
            masked=masked,
            learning_rate=cell["learning_rate"],
            seed=cell["seed"],
            output=Path(folder),
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            progress=False,
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    peak = _peak()
    digest = tensors_digest({name: p for name, p in model.named_parameters() if p.requires_grad})
    measured = {"validation": validation} if cell["tuning"] else data.dev
    # The ensemble is what the method is: settings are chosen by it alone.
    ways = ["ensemble"] if cell["tuning"] else ["ensemble", "mean"]
    if not (cell["tuning"] or settings.rescale):  # else raw is the mean network
        ways.append("raw")
    results: dict[str, dict[str, Any]] = {way: {} for way in (ways if masked else ("plain",))}
    truncated = {"train": encoded.share_truncated}
    splits = dict(measured)
    if not cell["tuning"]:
        splits["train"] = rows.select(range(min(_TRAIN_MEASURED, len(rows))))
    for name, split in splits.items():
        tokens = task.encode(split, tokenizer, max_length=length, order=where.order)
        truncated[name] = tokens.share_truncated
        for way, found in results.items():
            found[name] = measure(
                model,
                task,
                tokenizer,
                tokens,
                split,
                inference=way,
                n_instances=settings.eval_instances,
                seed=cell["seed"],
                batch_size=settings.eval_batch_size,
                precision=settings.precision,
            )
            found[name]["examples"] = len(split)
    return plain(
        {
            "results": results,
            "seconds": seconds,
            "peak_bytes": peak,
            "n_train": len(rows),
            "steps": trainer.state.global_step,
            "share_truncated": truncated,
            "overlap_left_out": data.overlap,
            "adapter_digest": digest,
        }
    )


def _settings(cell: Mapping[str, Any]) -> CompareSettings:
    names = {field.name for field in fields(CompareSettings)}
    # None stands for the default: a setting that this method does not know.
    kept = {k: v for k, v in cell.items() if k in names and v is not None}
    for name in ("target_modules", "modules_to_save"):
        kept[name] = tuple(kept[name])
    if kept.get("data"):
        kept["data"] = Path(kept["data"])
    return CompareSettings(output=Path(), **kept)


def _find(settings: CompareSettings) -> models.Found:
    return models.find_base(
        settings.model,
        find_task(settings.task),
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
    )


def _add_adapter(base: models.Base, settings: CompareSettings, *, rows: int, **more: Any) -> Any:
    return models.add_adapter(
        base,
        find_task(settings.task),
        adapter=settings.adapter,
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=settings.target_modules,
        modules_to_save=settings.modules_to_save,
        total_steps=total_steps(settings, rows),
        **more,
    )


def _identities(data: RunData) -> dict[str, str]:
    return {"train": rows_identity({"train": data.train}), "dev": rows_identity(data.dev)}


def _set_aside(train: Dataset, settings: CompareSettings, name: str) -> tuple[Dataset, Dataset]:
    size = settings.n_validation
    if size >= len(train):
        raise ValueError(f"--n-validation must be below {len(train)}, got {size}")
    mixed = train.shuffle(seed=0)  # the same for all runs
    validation = mixed.select(range(size))
    pool = mixed.select(range(size, len(mixed)))
    return without_overlap(pool, {"the validation set": validation}, name=name), validation


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        # Linux: writing 5 sets the highest resident size back to the present one.
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # some containers forbid it; the peak is then that of the process
            return


def _peak() -> int | None:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return None
