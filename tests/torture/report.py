"""What a section of the torture found: rows of things tried and things that held."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from lora_dropout.safe_files import atomic_path


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was attacked, and how.
        tried: Faults injected, inputs tried, mutants made, ...
        held: How many of them ended as documented.
        least: How many of `tried` must hold; all of them unless said.
        note: What the reader must know to read the numbers (which did not hold, and why).
    """

    what: str
    tried: int
    held: int
    least: int | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether as many held as must; nothing tried is a failure."""
        return self.tried > 0 and self.held >= (self.tried if self.least is None else self.least)


Section: TypeAlias = Callable[[bool], Iterable[Row]]


def run_section(
    name: str, section: Section, *, long: bool, folder: Path | None, made: dict[str, Any]
) -> Iterator[Row]:
    """Run a section; yield its rows as they come and, if a folder is given, keep them there.

    `made` is the provenance, taken before results make the tree differ from its commit.
    """
    rows = []
    for row in section(long):
        rows.append(row)
        yield row
    if folder is not None:
        with atomic_path(folder / f"{name}.json") as path:
            found = {
                "provenance": made,
                "long": long,
                "rows": [asdict(row) for row in rows],
            }
            path.write_text(json.dumps(found, indent=1) + "\n")


def kept(folder: Path, name: str) -> tuple[str, list[Row]]:
    """Read the rows that a section left earlier, and at which commit; none if it never ended."""
    path = folder / f"{name}.json"
    if not path.exists():
        return name, []
    found = json.loads(path.read_text())
    commit = (found["provenance"]["commit"] or "no commit")[:9]
    return f"{name} ({commit})", [Row(**row) for row in found["rows"]]


def table(sections: dict[str, list[Row]]) -> str:
    """Lay out rows as a Markdown table."""
    lines = ["| section | what | tried | held | |", "|---|---|--:|--:|---|"]
    for name, rows in sections.items():
        for row in rows:
            verdict = "" if row.passed else "**FAILED** "
            cells = (name, row.what, f"{row.tried:,}", f"{row.held:,}", verdict + row.note)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
