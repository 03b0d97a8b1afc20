"""The searches that found the stored counterexamples.

Run one with ``python -m lora_bounds.counterexamples.hunts ID``. Each hunt is a false claim on trial
(`trial.search.Inequality`), on the page of its claim; its shrunk violation was stored in `data`.
"""

import argparse
import json
from fractions import Fraction
from math import inf
from typing import Any

from lora_bounds.claims import all_evidence
from lora_bounds.trial.search import Inequality, search


def hunts() -> dict[str, Inequality]:
    """Every search, by the id of what it found.

    Returns:
        The false claims on trial.
    """
    pieces = all_evidence("counterexample").items()
    return {name: piece.hunt for name, piece in pieces if piece.hunt is not None}


def _plain(value: Any) -> Any:
    """Turn fractions into strings, for JSON.

    Returns:
        The same structure, ready for json.dumps.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Fraction) else value


def main() -> None:
    """Run one hunt and print what it found as JSON."""
    parser = argparse.ArgumentParser(description="Search for one of the stored counterexamples.")
    known = hunts()
    parser.add_argument("id", choices=sorted(known))
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = search(known[options.id], trials=options.trials, seed=options.seed)
    report = {
        "refuted": result.refuted,
        "violations": result.violations,
        "data": _plain(result.problem),
        "lhs": result.lhs,
        "rhs": result.rhs,
        "margin": result.margin if abs(result.margin) < inf else None,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
