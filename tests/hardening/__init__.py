"""Attacks on the toolkit: `make test` tries a few of each kind, `make hardening` many."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
