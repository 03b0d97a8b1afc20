"""How much of both packages the suite runs: lines and branches."""

import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.torture.report import Row
from tests.torture.suite.pytest_runs import copy_project, failed_tests, run_pytest

PACKAGES = ("lora_bounds", "lora_dropout")
LEAST = 0.95


def run(long: bool) -> Iterable[Row]:
    """Measure the whole suite (short: the tests of the bounds, for `lora_bounds` alone)."""
    which = ["-n", "auto", "--dist", "worksteal"] if long else ["tests/lora_bounds"]
    with tempfile.TemporaryDirectory() as folder:
        root = copy_project(Path(folder) / "project")
        report = Path(folder) / "coverage.json"
        packages = PACKAGES if long else PACKAGES[:1]
        chosen = [f"--cov={package}" for package in packages]
        ended = run_pytest(
            root, [*which, "-rfE", *chosen, "--cov-branch", f"--cov-report=json:{report}"]
        )
        failed = failed_tests(ended.stdout)
        if not report.is_file():
            raise RuntimeError(f"pytest left no coverage: {ended.stdout[-1000:]}")
        files = json.loads(report.read_text())["files"]
    yield from rows(files, packages, failed)


def rows(
    files: dict[str, dict[str, Any]], packages: Iterable[str], failed: list[str]
) -> Iterable[Row]:
    """One row a package: statements and branches, and those that were run."""
    for package in packages:
        own = {name: file["summary"] for name, file in files.items() if _within(name, package)}
        tried = sum(each["num_statements"] + each["num_branches"] for each in own.values())
        held = sum(each["covered_lines"] + each["covered_branches"] for each in own.values())
        worst = sorted(own, key=lambda name: own[name]["percent_covered"])[:3]
        note = f"{100 * held / max(tried, 1):.1f} %, target {100 * LEAST:.0f} %; least: "
        note += ", ".join(f"{name} {own[name]['percent_covered']:.0f} %" for name in worst)
        if failed:
            note += f"; tests failed: {', '.join(failed)}"
        yield Row(
            f"statements and branches of {package}", tried, held, math.ceil(LEAST * tried), note
        )


def _within(name: str, package: str) -> bool:
    return Path(name).parts[0] == package
