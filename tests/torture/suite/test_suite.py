"""The attacks on the suite itself, in short."""

import pytest

from tests.torture.suite import coverage, mutants
from tests.torture.suite.planted import FAULTS, Fault, caught
from tests.torture.suite.pytest_runs import copy_project, failed_tests


def test_ten_faults_can_be_planted(tmp_path):
    root = copy_project(tmp_path / "project")
    assert len({fault.what for fault in FAULTS}) == 10
    for fault in FAULTS:
        fault.plant(root)
        fault.heal(root)


def test_a_planted_fault_is_caught_and_one_that_changes_nothing_is_not():
    plain = next(fault for fault in FAULTS if fault.file == "lora_bounds/bounds/sparsity.py")
    nothing = Fault(
        "nothing", plain.file, plain.before, plain.before + "  # as it was", plain.tests
    )
    row = caught([plain, nothing])
    assert (row.tried, row.held) == (2, 1)
    assert row.note == "not caught: nothing"


def test_a_fault_that_is_not_there_is_refused(tmp_path):
    root = copy_project(tmp_path / "project")
    with pytest.raises(ValueError, match="must hold 'no such text' once"):
        Fault("f", "lora_bounds/bounds/sparsity.py", "no such text", "x", ()).plant(root)


def test_coverage_counts_statements_and_branches():
    def summary(statements, branches, lines, taken):
        return {
            "num_statements": statements, "num_branches": branches, "covered_lines": lines,
            "covered_branches": taken, "percent_covered": 100 * (lines + taken)
            / (statements + branches),
        }  # fmt: skip

    files = {
        "lora_bounds/a.py": {"summary": summary(90, 10, 90, 5)},
        "lora_bounds/b.py": {"summary": summary(100, 0, 100, 0)},
        "lora_dropout/c.py": {"summary": summary(10, 10, 10, 8)},
    }
    bounds, dropout = coverage.rows(files, coverage.PACKAGES, [])
    assert (bounds.tried, bounds.held, bounds.least, bounds.passed) == (200, 195, 190, True)
    assert (dropout.tried, dropout.held, dropout.passed) == (20, 18, False)


def test_mutants_without_a_test_are_not_killed():
    stats = {"total": 100, "killed": 85, "timeout": 3, "survived": 5, "no_tests": 4,
             "suspicious": 1, "skipped": 2, "not_checked": 0}  # fmt: skip
    row = mutants.row(stats)
    assert (row.tried, row.held, row.passed) == (100, 88, False)


def test_failed_tests_are_read_from_the_summary():
    output = "....F\nFAILED tests/a.py::test_b - assert 1 == 2\nERROR tests/c.py\n1 failed in 2s\n"
    assert failed_tests(output) == ["tests/a.py::test_b", "tests/c.py"]
