"""`lora-dropout train`."""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from lora_dropout.commands.options import add_options, read_settings
from lora_dropout.commands.replaying import add_replay, read_recorded, recorded_settings
from lora_dropout.commands.settings import TrainSettings
from lora_dropout.runs.differences import recorded_threads, report

_REPLAY_OPTIONS = ("model", "data", "trust_remote_code")
EXAMPLES = """examples:
  lora-dropout train --model microsoft/deberta-v3-base --task mrpc --output runs/mrpc
  lora-dropout train --model bert-base-uncased --task rte --data glue/ --output runs/rte \\
      --dropout 0.5 --instances 4 --learning-rate 1e-3 --epochs 10
  lora-dropout train --config mrpc.yaml --seed 3 --dry-run     what would be trained, and memory
  lora-dropout train --model meta-llama/Llama-2-7b-hf --task instructions --output runs/alpaca \\
      --precision bf16 --gradient-checkpointing --mode grouped --report-to tensorboard
  accelerate launch -m lora_dropout.__main__ train --config mrpc.yaml          several GPUs
  lora-dropout train --replay runs/mrpc                 does it come out the same, bit by bit?

--output gets an ordinary PEFT adapter (plain PEFT computes the mean network from it), run.json
with settings and results, README.md, checkpoints for --resume, and started.json: a run goes on only
by the settings and data it began with. What the model's files lack, as a new head or pooler, is
trained whole and saved with the adapter.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: What `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = commands.add_parser(
        "train",
        help="fine-tune a model with LoRA Dropout",
        description="Fine-tune a Hugging Face model by a PEFT adapter with LoRA Dropout.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, TrainSettings)
    add_replay(parser, "run.json", _REPLAY_OPTIONS)


def run(arguments: argparse.Namespace) -> int:
    """Train, or say what would be trained, or train again.

    Args:
        arguments: The parsed options.

    Returns:
        Exit status: 0, or 1 if `--replay` found a difference.
    """
    if arguments.replay is not None:
        return _replay(arguments)
    settings = read_settings(TrainSettings, arguments)
    if settings.dry_run:
        print(dry_run(settings))
        return 0
    record = train(settings)
    if record is not None:
        for split, metrics in record["results"].items():
            shown = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if v is not None)
            print(f"{split} ({record['inference']}): {shown}")
        print(f"adapter, run.json and README.md are in {settings.output}")
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    path, recorded = read_recorded(arguments.replay, "run.json")
    with tempfile.TemporaryDirectory() as folder, recorded_threads(recorded):
        settings = recorded_settings(
            TrainSettings,
            arguments,
            path,
            recorded,
            allowed=_REPLAY_OPTIONS,
            output=Path(folder),
            resume=False,
            report_to=("none",),
            dry_run=False,
        )
        repeated = train(settings)
    return 0 if repeated is None else report(path, recorded, repeated)


def train(settings: TrainSettings) -> dict[str, Any] | None:
    """Fine-tune a model and save what came out.

    Args:
        settings: Of the run.

    Returns:
        What `run.json` holds; None in all processes but the first.

    Raises:
        ValueError: If the folder holds another run, or there is no checkpoint to resume from, or
            the run began otherwise, or the trained adapter, saved by then, could not be measured.
    """
    from transformers.trainer_utils import get_last_checkpoint

    from lora_dropout.commands import paths
    from lora_dropout.commands.card import write_run
    from lora_dropout.commands.fine_tuning import check_reporting, make_trainer, resume, total_steps
    from lora_dropout.commands.loading import base_model as models
    from lora_dropout.commands.loading.trust import check_checkpoint, check_output
    from lora_dropout.commands.measuring import measure
    from lora_dropout.commands.run_identity import (
        begin,
        check_started,
        model_identity,
        rows_identity,
    )
    from lora_dropout.commands.splits import draw, load_run
    from lora_dropout.masks.config import MaskConfig
    from lora_dropout.tasks.catalogue import find_task

    paths.check_new_folder("--output", settings.output, *paths.OF_RUN)
    check_output(settings.output)
    _check_unfinished(settings)
    checkpoint = get_last_checkpoint(str(settings.output)) if settings.output.is_dir() else None
    if settings.resume and checkpoint is None:
        raise ValueError(f"--resume: there is no checkpoint in {settings.output}")
    if checkpoint is not None and not settings.resume:
        raise ValueError(
            f"--output: {settings.output} holds checkpoints of a stopped run; add --resume to go "
            "on with it, or choose another folder"
        )
    if checkpoint is not None:
        check_checkpoint(Path(checkpoint))
        check_started(settings)
    check_reporting(settings.report_to)
    task = find_task(settings.task)
    found = find(settings, task)
    data = load_run(task, settings.data, keep_overlap=settings.keep_overlap)
    rows = draw(data.train, settings.n_train, seed=settings.seed)
    length = models.choose_length(settings.max_length, task, found)
    splits = {"train": rows, **data.dev}
    encoded = {
        name: task.encode(split, found.tokenizer, max_length=length, order=found.order)
        for name, split in splits.items()
    }
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    inputs = {
        "model": model_identity(settings.model, found.common["revision"]),
        "data": rows_identity(splits),
    }
    base = models.load_base(found, task, seed=settings.seed, precision=settings.precision)
    steps = total_steps(settings, len(encoded["train"].rows), processes)
    model = models.add_adapter(
        base,
        task,
        adapter=settings.adapter,
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=settings.target_modules,
        modules_to_save=settings.modules_to_save,
        total_steps=steps,
        seed=settings.seed,
    )
    masks = MaskConfig(
        dropout=settings.dropout,
        mask=settings.mask,  # type: ignore[arg-type]
        rescale=settings.rescale,
    )
    models.put_masks(model, masks, n_instances=settings.instances)
    begin(
        settings,
        {**inputs, "processes": processes},
        first_process=os.environ.get("RANK", "0") == "0",
    )
    report_to = list(settings.report_to)
    saving: dict[str, Any] = {"save_strategy": "epoch"}
    if settings.save_every is not None:
        saving = {"save_strategy": "steps", "save_steps": settings.save_every}
    if settings.adapter == "adalora":
        saving = {"save_strategy": "no"}  # see TrainSettings
    trainer = make_trainer(
        model,
        task,
        found.tokenizer,
        encoded["train"].rows,
        settings,
        masked=True,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        output=settings.output,
        report_to=report_to[0] if len(report_to) == 1 else report_to,
        save_total_limit=1,
        logging_steps=0.05,
        progress=True,
        **saving,
    )
    start = time.perf_counter()
    resume(trainer, checkpoint)
    seconds = time.perf_counter() - start
    if not trainer.is_world_process_zero():
        return None
    model = trainer.accelerator.unwrap_model(trainer.model)
    outcome = {
        "local_model": Path(settings.model).is_dir(),
        "inputs": inputs,
        "plain": models.plain_arguments(found, task, settings.precision),
        "classes": found.order,
        "trained_whole": models.saved_modules(model),
        "inference": settings.inference,
        "max_length": length,
        "n_train": len(rows),
        "overlap_left_out": data.overlap,
        "share_truncated": {name: tokens.share_truncated for name, tokens in encoded.items()},
        # A resumed Trainer divides the losses since by all steps: no train_loss is better.
        **({} if checkpoint else {"train_loss": trainer.state.log_history[-1]["train_loss"]}),
        "steps": trainer.state.global_step,
        "seconds": seconds,
        **_sizes(model),
        "processes": processes,
    }
    # Saved before it is measured: what was trained must not be lost to what goes wrong there.
    models.save_folded(model, settings.output)
    found.tokenizer.save_pretrained(str(settings.output))
    resumed_at = None if checkpoint is None else _step_of(checkpoint)
    write_run(settings, outcome, results={}, not_measured=list(data.dev), resumed_at=resumed_at)
    results = {}
    for name, split in data.dev.items():
        try:
            results[name] = measure(
                model,
                task,
                found.tokenizer,
                encoded[name],
                split,
                inference=settings.inference,
                n_instances=settings.eval_instances,
                seed=settings.seed,
                batch_size=settings.eval_batch_size,
                precision=settings.precision,
                progress=True,
            )
        except Exception as error:  # whatever it is: nobody is left without the adapter
            missing = [other for other in data.dev if other not in results]
            write_run(
                settings, outcome, results=results, not_measured=missing, resumed_at=resumed_at
            )
            raise ValueError(
                f"the trained adapter is saved in {settings.output}, but measuring it on {name} "
                f"failed ({type(error).__name__}: {error}); `lora-dropout evaluate "
                f"{settings.output}` measures it"
            ) from error
    return write_run(settings, outcome, results=results, not_measured=[], resumed_at=resumed_at)


def find(settings: TrainSettings, task: Any) -> Any:
    """The base model of the settings, without its weights.

    Args:
        settings: Of the run.
        task: The task.

    Returns:
        From `models.find_base`.
    """
    from lora_dropout.commands.loading.base_model import find_base

    return find_base(
        settings.model,
        task,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
    )


def dry_run(settings: TrainSettings) -> str:
    """What would be trained; needs the model's settings, not its weights, and no data.

    Args:
        settings: Of the run.

    Returns:
        Several lines.
    """
    from lora_dropout.commands.loading import base_model as models
    from lora_dropout.tasks.catalogue import find_task

    task = find_task(settings.task)
    found = find(settings, task)
    length = models.choose_length(settings.max_length, task, found)
    base = models.load_base(found, task, precision=settings.precision, empty=True)
    model = models.add_adapter(
        base,
        task,
        adapter=settings.adapter,
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=settings.target_modules,
        modules_to_save=settings.modules_to_save,
    )
    sizes = models.trainable_report(model)
    copies = settings.instances if settings.mode == "batched" else 1
    activations = models.activation_bytes(
        found.config,
        rows=settings.batch_size * copies,
        tokens=length,
        checkpointing=settings.gradient_checkpointing,
        precision=settings.precision,
    )
    lines = [f"{name:<60} {count:>12,}" for name, count in sizes["layers"].items()]
    lines += [
        "",
        f"task {task.name} ({task.head} head), at most {length} tokens",
        f"{settings.adapter}, rank {settings.rank}, alpha {settings.alpha:g}, "
        f"mask {settings.mask} at p = {settings.dropout:g}, N = {settings.instances} "
        f"({settings.mode}), rescale {'on' if settings.rescale else 'off'}",
        f"trainable parameters {sizes['trainable']:,} of {sizes['total']:,} ({sizes['share']:.2%})",
        f"memory, GiB: weights {_gib(sizes['weights'])}, gradients {_gib(sizes['gradients'])}, "
        f"optimizer {_gib(sizes['optimizer'])}",
        "memory, GiB: activations "
        + (f"up to about {_gib(activations)}" if activations else "unknown for this architecture")
        + " in a step with all texts of full length (an estimate for a standard transformer)",
    ]
    return "\n".join(lines)


def saved_run(folder: Path) -> dict[str, Any]:
    """What `train` wrote about a run.

    Args:
        folder: Of the run.

    Returns:
        The content of its `run.json`.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text())
        settings = record["settings"]
        for name in ("model", "task", "dropout", "mask", "rescale"):
            settings[name]
        # What an older record lacks; where it is there, it must be such.
        dict(record.get("inputs", {})), dict(dict(record.get("plain", {})).get("arguments", {}))
        return record
    except OSError as error:
        raise ValueError(f"{folder} holds no finished run of `lora-dropout train`") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def _gib(size: int) -> str:
    return f"{size / 2**30:.3f}"


def _check_unfinished(settings: TrainSettings) -> None:
    folder = settings.output
    if not (folder / "run.json").exists():
        return
    if not saved_run(folder).get("not_measured"):
        raise ValueError(f"--output: {folder} holds a finished run; choose another folder")
    if not settings.resume:
        raise ValueError(
            f"--output: {folder} holds a trained adapter that is not measured: `lora-dropout "
            f"evaluate {folder}` measures it, --resume completes the run"
        )


def _sizes(model: Any) -> dict[str, Any]:
    import torch

    from lora_dropout.commands.loading.base_model import trainable_report
    from lora_dropout.training.checkpoint import tensors_digest

    counts = trainable_report(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {
        "trainable": counts["trainable"],
        "total": counts["total"],
        "adapter_digest": tensors_digest(trained),
        "device": str(next(model.parameters()).device),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


def _step_of(checkpoint: str) -> int:
    return int(Path(checkpoint).name.rpartition("-")[2])
