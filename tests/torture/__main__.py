"""The long torture: `python -m tests.torture [SECTION ...]` prints the table of what held."""

import argparse
import sys
from importlib import import_module

from lora_dropout.runs.torch_provenance import provenance
from tests.torture import RESULTS
from tests.torture.report import Row, kept, run_section, table

# A section's name, and the module below `tests.torture` and the function in it that runs it.
SECTIONS = {
    "kills": "faults.kills:run",
    "ray_kills": "faults.ray_kills:run",
    "files": "faults.files:run",
    "writers": "faults.writers:run",
    "inputs_bounds": "inputs.functions:bounds",
    "inputs_adapters": "inputs.functions:adapters",
    "inputs_probes": "inputs.functions:probes",
    "inputs_commands": "inputs.functions:commands",
    "readers": "inputs.readers:run",
    "numbers": "numbers:run",
    "reproduction": "reproduction.ways:run",
    "trust": "trust.attacks:run",
    "planted": "suite.planted:run",
    "coverage": "suite.coverage:run",
    "mutants": "suite.mutants:run",
    "flakiness": "suite.flakiness:run",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all unless given")
    parser.add_argument("--short", action="store_true", help="a few of each; keeps no results")
    parser.add_argument("--table", action="store_true", help="print what the last runs left")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"SECTION must be one of {', '.join(SECTIONS)}, got {unknown[0]!r}")
    names = options.sections or SECTIONS
    if options.table:
        print(table(dict(kept(RESULTS, name) for name in names)))
        return 0
    found: dict[str, list[Row]] = {}
    made = provenance()
    for name in names:
        module, function = SECTIONS[name].split(":")
        section = getattr(import_module(f"tests.torture.{module}"), function)
        found[name] = []
        folder = None if options.short else RESULTS
        for row in run_section(name, section, long=not options.short, folder=folder, made=made):
            found[name].append(row)
            mark = "ok" if row.passed else "FAILED"
            print(
                f"{name}: {row.what}: {row.held} of {row.tried} {mark} {row.note}", file=sys.stderr
            )
    print(table(found))
    return 0 if all(row.passed for rows in found.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
