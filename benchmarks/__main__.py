"""All benchmarks one after the other: `python -m benchmarks [--quick] [--out FOLDER]`."""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.table import all_lines, table

NAMES = ("core", "replicas", "hf_step", "growth", "convergence", "adapter_path")


def main() -> int:
    """Run them, each in a process of its own, and print one table.

    Returns:
        Exit status: that of the first that failed, else 0.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--quick", action="store_true", help="two rounds each: a trial, no result")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {unknown}; known: {', '.join(NAMES)}")
    for name in options.names or NAMES:
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{name}",
            "--out",
            options.out / f"{name}.json",
        ]
        if options.quick:
            command += ["--rounds", "2"]
        print(f"== {name}", flush=True)
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    print(table(all_lines(options.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
