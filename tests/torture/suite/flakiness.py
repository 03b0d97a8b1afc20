"""The suite again and again, in random order: a test that fails now and then is a failure."""

import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lora_dropout.safe_files import atomic_path
from tests.torture import ROOT
from tests.torture.report import Row
from tests.torture.suite.pytest_runs import copy_project, failed_tests, run_pytest

RUNS = 20
KEPT = ROOT / "build" / "flakiness"


def run(long: bool) -> Iterable[Row]:
    """Run it `RUNS` times (short: the tests of the bounds, twice); go on where it was stopped."""
    counts = ["-n", "auto", "--dist", "worksteal"] if long else ["tests/lora_bounds", "-x"]
    found, commit = {}, _commit()  # of the copy, whatever becomes of the tree meanwhile
    with tempfile.TemporaryDirectory() as folder:
        root = copy_project(Path(folder) / "project")
        for seed in range(RUNS if long else 2):
            kept = KEPT / f"{commit}-{seed}.json"
            if long and kept.is_file():
                found[seed] = json.loads(kept.read_text())
                continue
            order = ["--random-order-bucket=module", f"--random-order-seed={seed}"]
            ended = run_pytest(root, ["-rfE", *order, *counts])
            failed = failed_tests(ended.stdout)
            if ended.returncode and not failed:
                failed = [ended.stdout[-300:] + ended.stderr[-300:]]
            found[seed] = failed
            if long:
                KEPT.mkdir(parents=True, exist_ok=True)
                with atomic_path(kept) as path:
                    path.write_text(json.dumps(failed))
    bad = {seed: failed for seed, failed in found.items() if failed}
    note = "; ".join(f"seed {seed}: {', '.join(failed)}" for seed, failed in bad.items())
    yield Row("runs of the suite, in random order", len(found), len(found) - len(bad), note=note)


def _commit() -> str:
    # Runs of other code do not count: changed files make a name of their own.
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD").strip() + ("-changed" if changed else "")
