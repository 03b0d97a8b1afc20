"""`lora-dropout predict`."""

import argparse
import json
from pathlib import Path
from typing import Any

from lora_dropout.commands.options import add_options, read_settings
from lora_dropout.commands.settings import PredictSettings

EXAMPLES = """examples:
  lora-dropout predict runs/mrpc --input pairs.tsv --output answers.jsonl
  lora-dropout predict runs/squad --input dev-v1.1.json --output answers.jsonl --inference mean

GLUE tasks read a TSV file with a header (sentence1, perhaps sentence2; labels are not needed),
SQuAD its official JSON, MMLU a CSV file. Each line of the output is one example: label and
probabilities, an answer, or a value, as the ensemble sees it.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: What `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = commands.add_parser(
        "predict",
        help="predict the examples of a file",
        description="Predict the examples of a file by a trained adapter.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the --output of train")
    add_options(parser, PredictSettings)


def run(arguments: argparse.Namespace) -> int:
    """Predict and write the answers.

    Args:
        arguments: The parsed options.

    Returns:
        Exit status 0.

    Raises:
        ValueError: If the task gives no answers of its own, or `--output` is a file of the run.
    """
    settings = read_settings(PredictSettings, arguments)
    from lora_dropout.commands import paths
    from lora_dropout.commands.card import plain
    from lora_dropout.commands.loading import using
    from lora_dropout.commands.measuring import collect
    from lora_dropout.commands.train import saved_run
    from lora_dropout.safe_files import atomic_path

    paths.check_not_of_run("--output", settings.output, arguments.folder)
    task = using.chosen_task(saved_run(arguments.folder), settings)
    if task.name == "instructions":
        raise ValueError(
            "--task: instructions are answered by text: load the adapter in PEFT, call generate()"
        )
    rows = task.read(settings.input)
    trained = using.load(arguments.folder, settings)
    tokens = task.encode(
        rows, trained.tokenizer, max_length=trained.max_length, order=trained.order
    )
    outputs = collect(trained.model, task, trained.tokenizer, tokens, **trained.options)
    answers = task.answers(outputs, tokens, rows)
    with atomic_path(settings.output) as path, path.open("w", encoding="utf-8") as file:
        for answer in answers:
            file.write(json.dumps(plain(answer), ensure_ascii=False) + "\n")
    print(f"{len(answers)} predictions ({trained.options['inference']}) in {settings.output}")
    return 0
