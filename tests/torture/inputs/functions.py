"""Public functions and commands under wild arguments: documented result, clear error, or fault."""

import sys
from collections.abc import Iterable, Sequence

from tests.torture.inputs import bounds_cases, command_cases, dropout_cases, probe_cases
from tests.torture.inputs.wild import Case, Tally, attack, lines, total
from tests.torture.report import Row, Section

SEED = 20240415
# What is attacked, and how often each of it in the long version (times its `share`).
ATTACKED: dict[str, tuple[str, Sequence[Case], int]] = {
    "bounds": ("lora_bounds", bounds_cases.CASES, 2000),
    "adapters": ("lora_dropout", dropout_cases.CASES, 800),
    "probes": ("lora_dropout: probes, audit, hf, tasks, sweeps", probe_cases.CASES, 800),
    "commands": ("commands lora-bounds, lora-dropout", command_cases.CASES, 800),
}


def tried(cases: Sequence[Case], examples: int) -> dict[str, Tally]:
    """Attack each case; what is mishandled goes to stderr, with its arguments."""
    found = {}
    for number, case in enumerate(cases):
        found[case.name] = attack(case, examples, number=SEED + number)
        print(f"{case.name}: {found[case.name].tried} tried", file=sys.stderr)
    for line in lines(total(found), most=1000):
        print(line, file=sys.stderr)
    return found


def row(what: str, found: dict[str, Tally], of: str = "functions") -> Row:
    everything = total(found)
    note = (
        f"{len(found)} {of}; {everything.returned:,} results as documented, "
        f"{everything.refused:,} clear errors"
    )
    if everything.mishandled:
        note += "; mishandled: " + "; ".join([*everything.mishandled][:5])
    return Row(what, everything.tried, everything.held, note=note)


def _section(name: str) -> Section:
    def run(long: bool) -> Iterable[Row]:
        what, cases, examples = ATTACKED[name]
        yield row(f"wild arguments: {what}", tried(cases, examples if long else 10))

    return run


bounds, adapters, probes, commands = map(_section, ATTACKED)
