"""The suite, or a part of it, run by a pytest of its own in a copy of the project."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.torture import ROOT


def copy_project(target: Path) -> Path:
    """Copy what git tracks, as it stands in the working tree.

    Args:
        target: A folder that is not there yet.

    Returns:
        The copy's root.
    """
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):  # a copy can be copied
        subprocess.run(command, cwd=target, check=True)
    return target


def run_pytest(
    root: Path, arguments: Sequence[str], timeout: float = 3600
) -> subprocess.CompletedProcess[str]:
    """Run pytest on the project in `root`, whatever is installed."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=root, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def failed_tests(output: str) -> list[str]:
    """The tests that pytest's summary says failed or broke."""
    lines = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return [line.split()[1] for line in lines]
