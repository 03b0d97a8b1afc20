"""Ten faults of the kind that a careless change would make, planted one at a time."""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.torture import ROOT
from tests.torture.report import Row
from tests.torture.suite.pytest_runs import copy_project, failed_tests, run_pytest


@dataclass(frozen=True)
class Fault:
    """A change of one place in the code.

    Attributes:
        what: What goes wrong.
        file: Where.
        before: The text there, found once.
        after: What it becomes.
        tests: Tests of which at least one must fail.
    """

    what: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def plant(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text()
        if text.count(self.before) != 1:
            raise ValueError(f"{self.file} must hold {self.before!r} once, got {self.what!r}")
        path.write_text(text.replace(self.before, self.after))

    def heal(self, root: Path) -> None:
        (root / self.file).write_text((ROOT / self.file).read_text())


FAULTS = (
    Fault(
        "the mean of row and column masks scales by 1-p instead of (1-p)^2",
        "lora_bounds/bounds/laws.py", "(1.0 - p) ** self.bits", "(1.0 - p)",
        ("tests/lora_bounds/bounds/test_laws.py",),
    ),
    Fault(
        "all draws of a mask share the first draw's bits",
        "lora_dropout/masks/draw.py", "mix(mix(seeds)[:, None] + layer_keys)",
        "mix(mix(seeds[:1].expand(n_draws))[:, None] + layer_keys)",
        ("tests/lora_dropout/masks/test_draw.py",),
    ),
    Fault(
        "rows of B are masked by the columns' complement: rows keep what is dropped",
        "lora_dropout/adapters/update.py", "B * mask.rows[:, :, None]",
        "B * ~mask.rows[:, :, None]",
        ("tests/lora_dropout/adapters/test_update.py",),
    ),
    Fault(
        "examples are dealt to one block too few when N does not divide the batch",
        "lora_dropout/adapters/update.py", "block = -(-rows // n)", "block = max(1, rows // n)",
        (
            "tests/lora_dropout/adapters/test_update.py",
            "tests/lora_dropout/training/test_objective.py",
        ),
    ),
    Fault(
        "Eq. 7 in passes sums the instances instead of averaging them",
        "lora_dropout/training/objective.py",
        "call_loss(loss_fn, call_model(model, inputs), targets) / masks.n_instances",
        "call_loss(loss_fn, call_model(model, inputs), targets)",
        ("tests/lora_dropout/training/test_objective.py",),
    ),
    Fault(
        "the ensemble of probabilities averages logarithms",
        "lora_dropout/prediction/averaging.py", "_move(mean, part, self._log_mean(mean, part))",
        "_move(mean, part, self._weighted(mean, part))",
        ("tests/lora_dropout/prediction/test_ensemble.py",),
    ),
    Fault(
        "the sparsity is p instead of 2p - p^2",
        "lora_bounds/bounds/laws.py", "p, p * (2.0 - p))[self.bits]", "p, p)[self.bits]",
        ("tests/lora_bounds/bounds/test_sparsity.py",),
    ),
    Fault(
        "Hoeffding's bound loses its factor 2",
        "lora_bounds/bounds/risk.py", "ratio * (ratio / size) / 2.0", "ratio * (ratio / size)",
        ("tests/lora_bounds/bounds/test_risk.py",),
    ),
    Fault(
        "the exact ensemble error forgets that members share their mean",
        "lora_bounds/bounds/ensemble_risk.py", "return plain(np.asarray(spread / members))",
        "return plain(np.asarray(spread / np.sqrt(members)))",
        ("tests/lora_bounds/bounds/test_ensemble_risk.py",),
    ),
    Fault(
        "a bound that the data exceed counts as holding",
        "lora_bounds/bounds/judge.py", "if low > bound:", "if low > 2.0 * bound:",
        ("tests/lora_bounds/bounds/test_judge.py",),
    ),
)  # fmt: skip


def run(long: bool) -> Iterable[Row]:
    """Plant each (short: the first two) in a copy of the project and run the tests against it."""
    yield caught(FAULTS if long else FAULTS[:2])


def caught(faults: Sequence[Fault]) -> Row:
    """Count the faults that a test notices; a copy without any must pass first."""
    missed, named = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = copy_project(Path(folder) / "project")
        tests = sorted({test for fault in faults for test in fault.tests})
        sound = run_pytest(root, tests)
        if sound.returncode:
            raise RuntimeError(f"the tests fail without a fault: {sound.stdout[-1000:]}")
        for fault in faults:
            fault.plant(root)
            ended = run_pytest(root, ["-rfE", "-x", *fault.tests])
            failed = failed_tests(ended.stdout)
            fault.heal(root)
            print(f"{fault.what}: {failed[:1] or 'NOT CAUGHT'}", file=sys.stderr)
            (named if ended.returncode == 1 and failed else missed).append(fault.what)
    note = f"not caught: {'; '.join(missed)}" if missed else "; ".join(named)
    return Row("planted faults caught", len(faults), len(named), note=note)
