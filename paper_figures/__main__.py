"""Command line: `python -m paper_figures [list | run NAME... | run all]`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lora_dropout.engines import ENGINES
from paper_figures import fig1_losses

FIGURES: dict[str, Callable[..., list[Path]]] = {"fig1": fig1_losses.run}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command-line arguments; None takes the process's.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m paper_figures",
        description="Regenerate figures and tables. Finished runs are kept: a killed command goes "
        "on where it was, and a second one only redraws.",
    )
    parser.add_argument("action", nargs="?", choices=["run", "list"], default="run")
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures (default: all)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder (%(default)s)")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: all processors)")
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default="local",
        help="where: worker processes here, or a Ray cluster (RAY_ADDRESS, else one on this "
        "machine) (%(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.action == "list":
        for name, figure in FIGURES.items():
            print(f"{name}\t{(sys.modules[figure.__module__].__doc__ or '').splitlines()[0]}")
        return 0
    names = list(FIGURES) if options.names in ([], ["all"]) else options.names
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        parser.error(f"no figure named {', '.join(unknown)}; there are: {', '.join(FIGURES)}")
    if options.jobs is not None and options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    written: list[Path] = []
    try:
        for name in names:
            written += FIGURES[name](options.out, jobs=options.jobs, engine=options.engine)
    except KeyboardInterrupt:
        print("\nstopped; finished runs are kept, the same command goes on", file=sys.stderr)
        return 130
    print("wrote:")
    for path in written:
        print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
