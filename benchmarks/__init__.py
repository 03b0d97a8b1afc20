"""Measurements of cost, kept with their provenance in `results/`: `python -m benchmarks.NAME`."""
