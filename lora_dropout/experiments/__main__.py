"""Run experiments: `python -m lora_dropout.experiments --out FOLDER NAME...`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from lora_dropout.files import atomic_path, json_digest
from lora_dropout.provenance import provenance

NAMES = ("digits_rates", "digits_sizes", "digits_stability", "digits_ensemble", "digits_bounds")


def measure(
    name: str, *, out: Path, work: Path, settings: Any = None, made: dict[str, Any] | None = None
) -> Path:
    """Run one experiment and write what it measured.

    Args:
        name: One of `NAMES`.
        out: Folder of the result, `<name>.json`.
        work: Folder of unfinished runs.
        settings: The experiment's `Settings`; None is the default ones.
        made: Provenance; None is the present one.

    Returns:
        The file.
    """
    module = import_module(f"lora_dropout.experiments.{name}")
    chosen = settings or module.Settings()
    made = made or provenance()
    values = module.run(chosen, folder=work / name)
    content = {
        "question": module.QUESTION,
        "settings": asdict(chosen),
        "values": values,
        "provenance": made,
    }
    content["digest"] = json_digest(content)
    path = out / f"{name}.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; those of the process unless given.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lora_dropout.experiments",
        description="Train and measure; unfinished runs resume.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument(
        "--work", type=Path, default=Path("results/experiments"), help="folder of unfinished runs"
    )
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"no experiment {unknown}; known: {', '.join(NAMES)}")
    made = provenance()  # before the results of the first make the tree of a clone differ
    for name in arguments.names or NAMES:
        path = measure(name, out=arguments.out, work=arguments.work, made=made)
        print(f"{name}: {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
