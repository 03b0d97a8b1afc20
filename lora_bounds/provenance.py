"""Where a result comes from: command, commit, versions, hardware."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def provenance(libraries: Sequence[str] = ("numpy", "scipy")) -> dict[str, Any]:
    """Describe the running process.

    Args:
        libraries: Distributions whose versions matter.

    Returns:
        Command line, commit (with `+changes` if the tree differs from it; None outside a
        checkout), Python and library versions, processor.
    """
    return {
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in libraries},
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
