"""`lora-dropout compare`."""

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_dropout.commands import paths
from lora_dropout.commands.options import add_options, read_settings
from lora_dropout.commands.replaying import add_replay, read_recorded, recorded_settings
from lora_dropout.commands.settings import CompareSettings
from lora_dropout.runs.differences import report

_REPLAY_OPTIONS = ("model", "data", "trust_remote_code", "output")
_TUNING_SEED = 10_000  # seeds of the tuning runs begin here: no reported run has one of them

EXAMPLES = """examples:
  lora-dropout compare --model bert-base-uncased --task rte --output runs/rte
  lora-dropout compare --model sentence-transformers/all-MiniLM-L6-v2 --task sst2 --n-train 500 \\
      --seeds 5 --max-length 64 --mode grouped --output runs/sst2          minutes on a CPU
  lora-dropout compare --config rte.yaml --dropout 0.3 0.5 0.7 --ordinary-dropout 0.05 0.1 0.3
  lora-dropout compare --config rte.yaml --engine ray --jobs 16 --gpus-per-run 1
  lora-dropout compare --replay runs/rte --output runs/again     does it come out the same?

Plain LoRA, PEFT's own lora_dropout, and LoRA Dropout (predicting as ensemble, mean and raw). Each
method's learning rate, and its dropout rate where several are given, is the best on a validation
set cut from the training data; nothing is chosen on the dev set that the table reports. A stopped
comparison goes on where it was: start the same command again.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: What `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = commands.add_parser(
        "compare",
        help="LoRA, ordinary dropout and LoRA Dropout side by side",
        description="Does LoRA Dropout help here? Methods side by side over seeds, each tuned.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, CompareSettings)
    add_replay(parser, "compare.json", _REPLAY_OPTIONS)


def run(arguments: argparse.Namespace) -> int:
    """Run what is missing, print and write the table; or compare with an earlier table.

    Args:
        arguments: The parsed options.

    Returns:
        Exit status: 0, or 1 if runs failed (the others are kept) or `--replay` found a difference.
    """
    if arguments.replay is not None:
        return _replay(arguments)
    table = _compare(read_settings(CompareSettings, arguments))
    if table is not None:
        print(table)
    return int(table is None)


def _replay(arguments: argparse.Namespace) -> int:
    path, recorded = read_recorded(arguments.replay, "compare.json")
    with tempfile.TemporaryDirectory() as folder:
        # Where runs are computed changes nothing of them.
        changed = {"output": Path(folder), "engine": "local", "gpus_per_run": 0.0}
        settings = recorded_settings(
            CompareSettings, arguments, path, recorded, allowed=_REPLAY_OPTIONS, **changed
        )
        if settings.output.resolve() == path.parent.resolve():
            raise ValueError(
                f"--output must be another folder than the record's, got {path.parent}"
            )
        if _compare(settings) is None:
            return 1
        repeated = json.loads((settings.output / "compare.json").read_text(encoding="utf-8"))
    return report(path, recorded, repeated)


def _compare(settings: CompareSettings) -> str | None:
    from lora_dropout.commands.comparison import conclusions as compare_report
    from lora_dropout.commands.comparison.cells import check_runs, make_cell, run_cell
    from lora_dropout.runs.store import Store, run_cells

    names = (f"compare.{end}" for end in ("json", "csv", "md"))
    paths.check_new_folder("--output", settings.output, *names)
    paths.check_new_folder("--output", settings.output / "runs")
    inputs = check_runs(settings)
    store = Store(settings.output / "runs")

    def compute(cells: list[dict[str, Any]], title: str) -> list[Any]:
        return run_cells(
            run_cell,
            cells,
            store=store,
            jobs=settings.jobs,
            engine=settings.engine,  # type: ignore[arg-type]
            gpus_per_cell=settings.gpus_per_run,
            title=title,
        )

    try:
        tried = [
            (candidate, make_cell(settings, **candidate, tuning=True, seed=seed, inputs=inputs))
            for candidate in candidates(settings)
            for seed in range(_TUNING_SEED, _TUNING_SEED + settings.tune_seeds)
        ]
        tuning = list(
            zip([c for c, _ in tried], compute([cell for _, cell in tried], "tuning"), strict=True)
        )
        chosen = compare_report.choose(settings, tuning)
        final = [
            (method, make_cell(settings, **candidate, tuning=False, seed=seed, inputs=inputs))
            for method, candidate in chosen.items()
            for seed in range(settings.seeds)
        ]
        values = compute([cell for _, cell in final], "runs")
    except RuntimeError as error:  # of a cell
        print(f"lora-dropout: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        return None
    runs = [
        {"method": method, "seed": cell["seed"], **value}
        for (method, cell), value in zip(final, values, strict=True)
    ]
    return compare_report.write(settings, tuning, chosen, runs)


def candidates(settings: CompareSettings) -> Iterator[dict[str, Any]]:
    """The settings that are tried.

    Args:
        settings: Of the comparison.

    Yields:
        `method`, `rate`, `learning_rate`.
    """
    rates = {"lora": (0.0,), "dropout": settings.ordinary_dropout, "lora_dropout": settings.dropout}
    for method, tried in rates.items():
        for rate, learning_rate in itertools.product(tried, settings.learning_rates):
            yield {"method": method, "rate": rate, "learning_rate": learning_rate}
