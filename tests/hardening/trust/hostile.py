"""One hostile file or name, and how it must end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hardening.trust import world

REFUSED = (ValueError, TypeError, OSError)
LOOKED_AT = ("refused", "not read")


@dataclass(frozen=True)
class Attack:
    """One hostile file.

    Attributes:
        place: Where it lies.
        how: What it is.
        read: Given the mark: plants the file and reads it. It raises one of `REFUSED`, or
            returns the status and text of a command, or anything else if the file does not matter.
        end: How it must end: `refused` or `not read`; either unless given.
        asks_hub: Whether the place may ask the hub, if it were there.
    """

    place: str
    how: Any
    read: Callable[[Path], object]
    end: str = ""
    asks_hub: bool = False

    def outcome(self) -> str:
        """What came of it: `refused`, `not read`, or what is wrong."""
        mark = world.fresh() / "mark"
        with world.forbidden() as reached:
            try:
                found = self.read(mark)
                end = "not read"
                if isinstance(found, tuple) and isinstance(found[0], int) and found[0] != 0:
                    end = "refused" if found[0] == 2 else f"status {found[0]}: {found[1]}"
            except REFUSED:
                end = "refused"
            except Exception as error:
                end = f"{type(error).__name__}: {str(error)[:100]}"
        if mark.exists():
            return "executed"
        return f"reached {reached[0]}" if reached and not self.asks_hub else end


def wrong(attacks: list[Attack], n: int | None = None, *, at: str = "") -> list[str]:
    """What went wrong in so many of the attacks, from first to last, at places that begin so."""
    attacks = [attack for attack in attacks if attack.place.startswith(at)]
    assert attacks, f"no attack at {at!r}"
    if n is not None and n < len(attacks):
        attacks = [attacks[i * len(attacks) // n] for i in range(n)]
    found = []
    for attack in attacks:
        end = attack.outcome()
        if end not in ((attack.end,) if attack.end else LOOKED_AT):
            found.append(f"{attack.place}, {attack.how}: {end}")
    return found
