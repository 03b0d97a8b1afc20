"""`lora-dropout evaluate`."""

import argparse
from pathlib import Path
from typing import Any

from lora_dropout.commands.options import add_options, read_settings
from lora_dropout.commands.settings import EvaluateSettings

EXAMPLES = """examples:
  lora-dropout evaluate runs/mrpc                             as in training: dev, ensemble
  lora-dropout evaluate runs/mrpc --data glue/ --inference mean       one pass, no masks
  lora-dropout evaluate runs/mrpc --eval-instances 32 --seed 1        another, larger ensemble
  lora-dropout evaluate runs/alpaca --task mmlu               0-shot, after instruction tuning

ensemble: mean over masked networks (Eq. 8); mean: masks off, update at the masks' mean, what plain
PEFT computes; raw: masks off, update unscaled (the paper's Drop_train).
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: What `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = commands.add_parser(
        "evaluate",
        help="measure what train wrote",
        description="Measure a trained adapter by the benchmark's own metrics.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the --output of train")
    add_options(parser, EvaluateSettings)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and write JSON.

    Args:
        arguments: The parsed options.

    Returns:
        Exit status 0.

    Raises:
        ValueError: If the split is not there or not labelled, the run's local data was not given
            again, or `--json` is one of the run's own files.
    """
    settings = read_settings(EvaluateSettings, arguments)
    from lora_dropout.commands import paths
    from lora_dropout.commands.card import describe_process, write_json
    from lora_dropout.commands.loading import using
    from lora_dropout.commands.measuring import measure, splits_to_measure
    from lora_dropout.commands.train import saved_run

    run_record = saved_run(arguments.folder)
    trained_on = run_record["settings"]
    target = settings.json or arguments.folder / "evaluation.json"
    paths.check_new_file("--json", target)
    paths.check_not_of_run("--json", target, arguments.folder)
    if settings.data is None and trained_on["data"] and settings.task in (None, trained_on["task"]):
        # A path in a downloaded file is not followed.
        raise ValueError(f"--data: the run used local data ({trained_on['data']}); name the folder")
    task = using.chosen_task(run_record, settings)
    splits = task.load(settings.data)
    if settings.split is None:
        names = splits_to_measure(task, list(splits))
    elif settings.split in splits:
        names = [settings.split]
    else:
        raise ValueError(f"--split must be one of {', '.join(splits)}, got {settings.split!r}")
    for name in names:
        task.check_labels(splits[name], task.source(settings.data, name))
    trained = using.load(arguments.folder, settings)
    results = {}
    for name in names:
        rows = splits[name]
        tokens = trained.task.encode(
            rows, trained.tokenizer, max_length=trained.max_length, order=trained.order
        )
        results[name] = measure(
            trained.model, trained.task, trained.tokenizer, tokens, rows, **trained.options
        )
        results[name]["share_truncated"] = tokens.share_truncated
        print(f"{name} ({trained.options['inference']}), {len(rows)} examples")
        for metric, value in results[name].items():
            print(f"  {metric:<20} {value:.4f}")
    used = {k: v for k, v in trained.options.items() if k != "progress"}
    content = {"task": trained.task.name, "results": results, **used}
    content |= {"max_length": trained.max_length, "provenance": describe_process()}
    write_json(target, content)
    return 0
