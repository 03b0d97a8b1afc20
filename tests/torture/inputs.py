"""Every public function under wild arguments: a documented result, a clear error, or mishandled."""

import sys
from collections.abc import Iterable, Sequence

from tests.torture.bounds_cases import CASES as BOUNDS
from tests.torture.report import Row
from tests.torture.wild import Case, Tally, attack, lines, total

SEED = 20240415


def tried(cases: Sequence[Case], examples: int) -> dict[str, Tally]:
    """Attack each case; what is mishandled goes to stderr, with its arguments."""
    found = {}
    for number, case in enumerate(cases):
        found[case.name] = attack(case, examples, number=SEED + number)
    for line in lines(total(found), most=1000):
        print(line, file=sys.stderr)
    return found


def row(what: str, found: dict[str, Tally]) -> Row:
    everything = total(found)
    note = (
        f"{len(found)} functions; {everything.returned:,} results as documented, "
        f"{everything.refused:,} clear errors"
    )
    if everything.mishandled:
        note += "; mishandled: " + "; ".join([*everything.mishandled][:5])
    return Row(what, everything.tried, everything.held, note=note)


def run(long: bool) -> Iterable[Row]:
    yield row("wild arguments: lora_bounds", tried(BOUNDS, 2500 if long else 10))
