"""Experiments on trained adapters, whose numbers the ledger of `lora_bounds` judges.

`python -m paper_figures.experiments --out FOLDER NAME...` runs them (minutes each, resumable) and
writes one JSON file an experiment: question, settings, values, provenance. Sample sizes are fixed
in the settings before anything runs.
"""
