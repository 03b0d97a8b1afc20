"""Attacks on the toolkit, counted: `make torture` runs them at length, the tests in short."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
