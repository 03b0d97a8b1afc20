"""EQUATIONS.md is current, every row of it resolves, and no public function is missing."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from lora_bounds import ledger
from lora_bounds.commands import reference
from lora_bounds.trial.claim import Claim

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = ledger.all_claims()
FORMULA_MODULES = (
    *("sparsity", "stability", "generalization", "uniform_risk", "pac_bayes", "held_out"),
    *("ensemble", "linear", "ridge", "logistic", "compare"),
    *("spectra", "regimes", "regime_grid", "dropout_regimes"),
)


def test_the_file_is_current() -> None:
    written = (ROOT / "EQUATIONS.md").read_text()
    assert written == reference.equations(CLAIMS), "run: lora-bounds equations > EQUATIONS.md"


def test_verdicts_in_the_file_are_those_of_the_ledger() -> None:
    """Read the table as a reader does, not through the code that wrote it."""
    lines = (ROOT / "EQUATIONS.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert len(rows) == len(CLAIMS)
    for row, claim in zip(rows, CLAIMS, strict=True):
        assert row[1] == claim.id
        assert row[-1].split(":")[0] == claim.recorded


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_functions_resolve(claim: Claim) -> None:
    for name in claim.functions:
        assert inspect.isfunction(reference.resolve(name)), name


def _tests_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_tests_resolve(claim: Claim) -> None:
    for name in claim.tests:
        file, _, test = name.partition("::")
        assert test in _tests_in(ROOT / reference.TESTS / file), name


@pytest.mark.parametrize("module_name", FORMULA_MODULES)
def test_no_public_function_is_missing(module_name: str) -> None:
    module = importlib.import_module(f"lora_bounds.{module_name}")
    listed = {reference.resolve(name) for claim in CLAIMS for name in claim.functions}
    own = {
        function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == module.__name__
    }
    assert own
    missing = {f"{module_name}.{function.__name__}" for function in own - listed}
    assert not missing
