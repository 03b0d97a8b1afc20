"""Mutation testing of masks, objective, ensemble, bounds and ledger, by mutmut."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.torture.report import Row
from tests.torture.suite.pytest_runs import copy_project

LEAST = 0.90
# What mutmut says of a mutant that no test noticed.
UNNOTICED = ("survived", "no tests", "suspicious", "skipped")


def run(long: bool) -> Iterable[Row]:
    """Mutate the modules that pyproject.toml names (short: the first alone)."""
    which = [] if long else ["lora_bounds.bounds.sparsity*"]
    with tempfile.TemporaryDirectory() as folder:
        root = copy_project(Path(folder) / "project")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        for arguments in (["run", *which], ["export-cicd-stats"]):
            ended = subprocess.run(
                [sys.executable, "-m", "mutmut", *arguments],
                cwd=root, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if ended.returncode:
                raise RuntimeError(
                    f"mutmut {arguments[0]}: {(ended.stdout + ended.stderr)[-2000:]}"
                )
        results = subprocess.run(
            [sys.executable, "-m", "mutmut", "results"],
            cwd=root, env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        stats = json.loads((root / "mutants" / "mutmut-cicd-stats.json").read_text())
        print(results, file=sys.stderr)
    yield row(stats)


def row(stats: dict[str, int]) -> Row:
    """Mutants made and those that a test noticed (one that hangs is noticed too)."""
    missed = sum(stats[name.replace(" ", "_")] for name in UNNOTICED)
    tried = stats["total"] - stats.get("not_checked", 0)
    held = tried - missed
    note = f"{100 * held / max(tried, 1):.1f} %, target {100 * LEAST:.0f} %; "
    note += "survivors.md, beside the results, explains those that are left"
    return Row("mutants killed", tried, held, math.ceil(LEAST * tried), note)
