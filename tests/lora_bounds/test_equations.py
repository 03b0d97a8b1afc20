"""EQUATIONS.md is current, every row of it resolves, and no public function is missing."""

import importlib
import inspect
from pathlib import Path

import pytest

from lora_bounds import claims
from lora_bounds.commands import reference
from lora_bounds.trial.claim import Claim

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = claims.all_claims()
FORMULA_MODULES = (
    *("bounds.sparsity", "bounds.stability", "bounds.risk"),
    *("bounds.pac_bayes", "bounds.held_out", "bounds.ensemble_risk", "bounds.compare"),
    *("exact.linear", "exact.ridge", "exact.logistic", "exact.spectra", "exact.ridge_regimes"),
    *("exact.regime_grid", "exact.dropout_regimes"),
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


def test_marks_name_claims() -> None:
    assert set(reference.marked_tests()) == {claim.id for claim in CLAIMS}


def test_marks_are_read_as_pytest_reads_them(request: pytest.FixtureRequest) -> None:
    """On this file's neighbours that pytest collected: their marks, against the text's."""
    folder = ROOT / reference.TESTS
    read = {(name, claim) for claim, names in reference.marked_tests().items() for name in names}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path.is_relative_to(folder):
            name = f"{item.path.relative_to(folder).as_posix()}::{item.originalname}"
            marked = {claim for mark in item.iter_markers("claim") for claim in mark.args}
            assert marked == {claim for test, claim in read if test == name}


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
