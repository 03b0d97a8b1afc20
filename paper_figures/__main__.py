"""Command line: `python -m paper_figures [list | run NAME... | run all]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_dropout.runs.engines import ENGINES
from lora_dropout.runs.store import DamagedError
from paper_figures.press.figure import Context, Missing, Training, render
from paper_figures.press.index import write_index
from paper_figures.press.redraw import replay
from paper_figures.press.registry import figures

PROFILES = {
    "quick": "a small transformer on digits, and exact results: minutes on two cores",
    "lm": "a pretrained encoder, from the results of `lora-dropout compare` on file",
    "paper": "the paper's models and tasks, from such results",
}

_OUT = Path("results")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command-line arguments; None takes the process's.

    Returns:
        Exit status.
    """
    known = figures()
    options = _parser().parse_args(arguments)
    if options.action == "list":
        for name, figure in known.items():
            print(f"{name:24} {figure.title}  [{', '.join(figure.profiles)}]")
        return 0
    if options.jobs is not None and options.jobs < 1:
        _parser().error(f"--jobs must be at least 1, got {options.jobs}")
    if options.seeds is not None and options.seeds < 2:
        _parser().error(f"--seeds must be at least 2, got {options.seeds}")
    if options.replay is not None:
        return _replay(options)
    names = options.names if options.names not in ([], ["all"]) else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        _parser().error(f"no figure named {', '.join(unknown)}; there are: {', '.join(known)}")
    training = Training()
    if options.seeds is not None:
        training = training._replace(seeds=tuple(range(options.seeds)))
    context = Context(
        options.out or _OUT, options.profile or "quick", training, options.jobs, options.engine
    )
    return _run(names, context)


def _run(names: Sequence[str], context: Context) -> int:
    known, missing, status = figures(), {}, 0
    try:
        for name in names:
            if context.profile not in known[name].profiles:
                continue
            print(f"{name}: {known[name].title}", file=sys.stderr)
            try:
                render(known[name], context)
            except Missing as reason:
                missing[name] = str(reason)
                print(f"{name}: skipped: {reason}", file=sys.stderr)
            except (DamagedError, OSError) as reason:  # the other figures are not to suffer
                missing[name], status = str(reason), 1
                print(f"{name}: not drawn: {reason}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nstopped; finished runs are kept, the same command goes on", file=sys.stderr)
        return 130
    try:
        print(f"report: {write_index(known, context.out, missing=missing)}")
    except OSError as error:
        print(f"paper_figures: no report: {error}", file=sys.stderr)
        return 2
    return status


def _replay(options: argparse.Namespace) -> int:
    if options.names or options.seeds is not None or options.profile is not None:
        _parser().error("--replay: figure, --seeds and --profile are the record's, leave them out")
    try:
        return replay(options.replay, out=options.out, jobs=options.jobs, engine=options.engine)
    except ValueError as error:
        print(f"paper_figures: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; with --out, the same command goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paper_figures",
        description="Regenerate figures and tables. Finished runs are kept: a killed command goes "
        "on where it was, and a second one only redraws.",
    )
    parser.add_argument("action", nargs="?", choices=["run", "list"], default="run")
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures (default: all)")
    parser.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        help="; ".join(f"{name}: {text}" for name, text in PROFILES.items()) + " (quick)",
    )
    parser.add_argument("--seeds", type=int, help="training seeds (default: 6)")
    parser.add_argument("--out", type=Path, help=f"folder ({_OUT})")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: all processors)")
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default="local",
        help="where: worker processes here, or a Ray cluster (RAY_ADDRESS, else one on this "
        "machine) (%(default)s)",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="RESULT",
        help="train and draw the figure of this JSON file again (in --out, or a temporary folder), "
        "and compare all numbers; exit status 1 if one differs",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
