"""Licences of the pinned packages: `python -m tests.torture.trust.licences` prints the table."""

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata

from tests.torture import RESULTS, ROOT

PINS = ROOT / "constraints.txt"
KEPT = RESULTS / "licences.md"
UNKNOWN = "unknown"
# Licences that ask for something of works built on a package, or of changes to it.
_STRONG = re.compile(r"(?<!L)\bA?GPL|affero", re.IGNORECASE)
_WEAK = re.compile(r"LGPL|MPL|mozilla|lesser|EUPL|EPL|CDDL", re.IGNORECASE)


@dataclass(frozen=True)
class Package:
    """A distribution that is installed here.

    Attributes:
        name: Its name.
        version: Its version.
        licence: As its metadata say: the SPDX expression, else the classifiers, else the field.
    """

    name: str
    version: str
    licence: str

    @property
    def copyleft(self) -> str:
        """`strong` (GPL, AGPL), `weak` (LGPL, MPL, ...) or nothing."""
        if _STRONG.search(self.licence):
            return "strong"
        return "weak" if _WEAK.search(self.licence) else ""


def pinned() -> dict[str, str]:
    """Name -> version of the tested set."""
    lines = [line.strip() for line in PINS.read_text().splitlines()]
    return dict(line.split("==", 1) for line in lines if line and not line.startswith("#"))


def licence_of(name: str) -> str:
    """What a distribution's metadata say."""
    found = metadata(name)
    if found.get("License-Expression"):
        return found["License-Expression"]
    classifiers = [c.split(" :: ") for c in found.get_all("Classifier", [])]
    named = [c[-1] for c in classifiers if c[0] == "License" and c[-1] != "OSI Approved"]
    if named:
        return "; ".join(named)
    field = (found.get("License") or "").strip()
    return field if field and len(field) < 80 and "\n" not in field else UNKNOWN


def packages() -> list[Package]:
    """Those of the tested set that are installed here."""
    found = []
    for name, version in pinned().items():
        try:
            found.append(Package(name, version, licence_of(name)))
        except PackageNotFoundError:
            continue
    return found


def table(found: list[Package]) -> str:
    """As Markdown, what is not permissive first."""
    order = {"strong": 0, "weak": 1, "": 2}
    rows = sorted(
        found, key=lambda p: (p.licence != UNKNOWN, order[p.copyleft], p.licence, p.name.lower())
    )
    lines = ["| package | version | licence | copyleft |", "|---|---|---|---|"]
    lines += [f"| {p.name} | {p.version} | {p.licence} | {p.copyleft} |" for p in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(packages()))
