"""Attacks on the toolkit, counted: `make torture` runs them at length, the tests in short."""
