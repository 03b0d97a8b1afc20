"""`lora-dropout train`."""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from lora_dropout.commands.options import add_options, read_settings
from lora_dropout.commands.replaying import add_replay, read_recorded, recorded_settings
from lora_dropout.commands.settings import TrainSettings
from lora_dropout.replay import recorded_threads, report

_REPLAY_OPTIONS = ("model", "data", "trust_remote_code")
EXAMPLES = """examples:
  lora-dropout train --model microsoft/deberta-v3-base --task mrpc --output runs/mrpc
  lora-dropout train --model bert-base-uncased --task rte --data glue/ --output runs/rte \\
      --dropout 0.5 --instances 4 --learning-rate 1e-3 --epochs 10
  lora-dropout train --config mrpc.yaml --seed 3 --dry-run     what would be trained, and memory
  lora-dropout train --model meta-llama/Llama-2-7b-hf --task instructions --output runs/alpaca \\
      --precision bf16 --gradient-checkpointing --mode grouped --report-to tensorboard
  accelerate launch -m lora_dropout.cli train --config mrpc.yaml          several GPUs
  lora-dropout train --replay runs/mrpc                 does it come out the same, bit by bit?

--output gets an ordinary PEFT adapter (plain PEFT computes the mean network from it), run.json
with settings and results, README.md, and checkpoints for --resume.
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
        ValueError: If the folder holds another run, or there is no checkpoint to resume from.
    """
    import torch
    from transformers.trainer_utils import get_last_checkpoint

    from lora_dropout.checkpoint import tensors_digest
    from lora_dropout.commands import models
    from lora_dropout.commands.card import write_run
    from lora_dropout.commands.data import draw, load_run
    from lora_dropout.commands.measuring import measure
    from lora_dropout.commands.training import check_reporting, make_trainer, resume, total_steps
    from lora_dropout.commands.trust import check_checkpoint, check_output
    from lora_dropout.config import MaskConfig
    from lora_dropout.hf import detach
    from lora_dropout.tasks.catalogue import find_task

    if (settings.output / "run.json").exists():
        raise ValueError(f"--output: {settings.output} holds a finished run; choose another folder")
    check_output(settings.output)
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
    check_reporting(settings.report_to)
    task = find_task(settings.task)
    data = load_run(task, settings.data, keep_overlap=settings.keep_overlap)
    rows = draw(data.train, settings.n_train, seed=settings.seed)
    base, tokenizer, order = load(settings, task)
    length = models.choose_length(settings.max_length, task, base, tokenizer)
    encoded = task.encode(rows, tokenizer, max_length=length, order=order)
    model = models.add_adapter(
        base,
        task,
        adapter=settings.adapter,
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=settings.target_modules,
        total_steps=total_steps(settings, len(encoded.rows), _processes()),
        seed=settings.seed,
    )
    masks = MaskConfig(
        dropout=settings.dropout,
        mask=settings.mask,  # type: ignore[arg-type]
        rescale=settings.rescale,
    )
    models.put_masks(model, masks, n_instances=settings.instances)
    report_to = list(settings.report_to)
    saving: dict[str, Any] = {"save_strategy": "epoch"}
    if settings.save_every is not None:
        saving = {"save_strategy": "steps", "save_steps": settings.save_every}
    if settings.adapter == "adalora":
        saving = {"save_strategy": "no"}  # see TrainSettings
    trainer = make_trainer(
        model,
        task,
        tokenizer,
        encoded.rows,
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
    results, truncated = {}, {"train": encoded.share_truncated}
    options: dict[str, Any] = {
        "inference": settings.inference,
        "n_instances": settings.eval_instances,
        "seed": settings.seed,
        "batch_size": settings.eval_batch_size,
        "precision": settings.precision,
        "progress": True,
    }
    model = trainer.accelerator.unwrap_model(trainer.model)
    for name, split in data.dev.items():
        tokens = task.encode(split, tokenizer, max_length=length, order=order)
        truncated[name] = tokens.share_truncated
        results[name] = measure(model, task, tokenizer, tokens, split, **options)
    parameters = models.trainable_report(model)
    digest = tensors_digest({name: p for name, p in model.named_parameters() if p.requires_grad})
    detach(model, fold=True)
    if settings.adapter == "adalora":
        # Pruned triplets stay as zeros: cut to their ranks, PEFT loads them at another scale.
        model.peft_config["default"].rank_pattern = None
    model.save_pretrained(str(settings.output))
    tokenizer.save_pretrained(str(settings.output))
    return write_run(
        settings,
        {
            "results": results,
            "local_model": Path(settings.model).is_dir(),
            "inference": settings.inference,
            "max_length": length,
            "n_train": len(rows),
            "overlap_left_out": data.overlap,
            "share_truncated": truncated,
            # A resumed Trainer divides the losses since by all steps: no train_loss is better.
            **({} if checkpoint else {"train_loss": trainer.state.log_history[-1]["train_loss"]}),
            "steps": trainer.state.global_step,
            "seconds": seconds,
            "trainable": parameters["trainable"],
            "total": parameters["total"],
            "adapter_digest": digest,
            "processes": _processes(),
            "device": str(next(model.parameters()).device),
            "peak_gpu_bytes": (
                torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
            ),
        },
    )


def load(settings: TrainSettings, task: Any, *, empty: bool = False) -> tuple[Any, Any, Any]:
    """The base model of the settings.

    Args:
        settings: Of the run.
        task: The task.
        empty: Without weights.

    Returns:
        (model, tokenizer, order of classes).
    """
    from lora_dropout.commands.models import load_base

    return load_base(
        settings.model,
        task,
        seed=settings.seed,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
        precision=settings.precision,
        empty=empty,
    )


def dry_run(settings: TrainSettings) -> str:
    """What would be trained; needs the model's settings, not its weights, and no data.

    Args:
        settings: Of the run.

    Returns:
        Several lines.
    """
    from lora_dropout.commands import models
    from lora_dropout.tasks.catalogue import find_task

    task = find_task(settings.task)
    base, tokenizer, _ = load(settings, task, empty=True)
    length = models.choose_length(settings.max_length, task, base, tokenizer)
    model = models.add_adapter(
        base,
        task,
        adapter=settings.adapter,
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=settings.target_modules,
    )
    found = models.trainable_report(model)
    copies = settings.instances if settings.mode == "batched" else 1
    activations = models.activation_bytes(
        base.config,
        rows=settings.batch_size * copies,
        tokens=length,
        checkpointing=settings.gradient_checkpointing,
        precision=settings.precision,
    )
    lines = [f"{name:<60} {count:>12,}" for name, count in found["layers"].items()]
    lines += [
        "",
        f"task {task.name} ({task.head} head), at most {length} tokens",
        f"{settings.adapter}, rank {settings.rank}, alpha {settings.alpha:g}, "
        f"mask {settings.mask} at p = {settings.dropout:g}, N = {settings.instances} "
        f"({settings.mode}), rescale {'on' if settings.rescale else 'off'}",
        f"trainable parameters {found['trainable']:,} of {found['total']:,} ({found['share']:.2%})",
        f"memory, GiB: weights {_gib(found['weights'])}, gradients {_gib(found['gradients'])}, "
        f"optimizer {_gib(found['optimizer'])}",
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
        return record
    except OSError as error:
        raise ValueError(f"{folder} holds no finished run of `lora-dropout train`") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def _gib(size: int) -> str:
    return f"{size / 2**30:.3f}"


def _processes() -> int:
    import os

    return int(os.environ.get("WORLD_SIZE", "1"))
