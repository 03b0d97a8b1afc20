"""Run experiments: `python -m paper_figures.experiments --out FOLDER NAME...`."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from lora_dropout.runs.differences import read_result, recorded_threads, report
from lora_dropout.runs.torch_provenance import provenance
from lora_dropout.safe_files import atomic_path, json_digest

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
    module = import_module(f"paper_figures.experiments.{name}")
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


def replay(path: Path, *, work: Path) -> int:
    """Run the experiment of a result again and print what differs.

    Args:
        path: `<name>.json` of an earlier `measure`.
        work: Folder of unfinished runs; a stopped repetition goes on.

    Returns:
        Exit status: 0 if all values are the same to the last bit, else 1.

    Raises:
        ValueError: If the file is missing or damaged, or is of no experiment that there is.
    """
    name = path.stem
    if name not in NAMES:
        raise ValueError(f"--replay: {path} is named after no experiment of {', '.join(NAMES)}")
    recorded = read_result(path, "settings", "values")
    digest = recorded.get("digest")
    if digest != json_digest({k: v for k, v in recorded.items() if k != "digest"}):
        raise ValueError(f"--replay: {path} is damaged: its content is not that of its digest")
    settings = recorded["settings"]
    try:
        chosen = import_module(f"paper_figures.experiments.{name}").Settings(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        )
    except TypeError as error:
        raise ValueError(f"--replay: {path} is of other settings: {str(error)[:200]}") from error
    again = work / "replay"
    with tempfile.TemporaryDirectory() as folder, recorded_threads(recorded):
        found = measure(name, out=Path(folder), work=again, settings=chosen)
        repeated = json.loads(found.read_text())
    shutil.rmtree(again / name, ignore_errors=True)  # else the next one would only read it
    return report(path, recorded, repeated)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; those of the process unless given.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m paper_figures.experiments",
        description="Train and measure; unfinished runs resume.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--out", type=Path, help="folder of the JSON files")
    parser.add_argument(
        "--work", type=Path, default=Path("results/experiments"), help="folder of unfinished runs"
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="RESULT",
        help="run the experiment of this JSON file again and compare; exit status 1 if a value "
        "differs",
    )
    arguments = parser.parse_args(argv)
    if (arguments.out is None) == (arguments.replay is None):
        parser.error("give --out, a folder, or --replay, a result")
    if arguments.replay is not None:
        if arguments.names:
            parser.error("--replay names its experiment, leave NAME out")
        try:
            return replay(arguments.replay, work=arguments.work)
        except ValueError as error:
            print(f"paper_figures.experiments: {error}", file=sys.stderr)
            return 2
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
