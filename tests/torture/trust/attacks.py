"""Trust: code in files, names in files that lead elsewhere, other machines, dependencies."""

from collections import Counter
from collections.abc import Iterable, Iterator

from tests.torture.report import Row
from tests.torture.trust import code, licences, network, paths, remote, source
from tests.torture.trust.code import Attack, outcome
from tests.torture.trust.world import fresh

# Of each kind of attack, in the short version.
_SHORT = 12
_FEW = ("lora-bounds show", "figures: list", "train", "evaluate")


def tried(what: str, attacks: list[Attack]) -> Row:
    """Try attacks.

    Args:
        what: What they have in common.
        attacks: The attacks.

    Returns:
        A row; its note counts the ends, and names what went wrong.
    """
    ends, wrong = Counter[str](), []
    for attack in attacks:
        end = outcome(attack)
        if attack.held(end):
            ends[end] += 1
        else:
            wrong.append(f"{attack.place}, {attack.how}: {end}")
    note = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    if wrong:
        note += f"; WRONG: {'; '.join(wrong[:3])}"
    return Row(what, len(attacks), sum(ends.values()), note=note)


def spread(attacks: list[Attack], n: int | None) -> list[Attack]:
    """So many of them, from first to last."""
    if n is None or n >= len(attacks):
        return attacks
    return [attacks[i * len(attacks) // n] for i in range(n)]


def static() -> Iterator[Row]:
    """What the source says."""
    calls = source.scanned()
    found = [f"{name}:{call}" for name, calls_of in calls.items() for call in calls_of]
    clean = sum(not calls_of for calls_of in calls.values())
    yield Row("source files without a call that could execute a file's content or a shell",
              len(calls), clean, note="; ".join(found[:3]))  # fmt: skip
    places = source.defaults()
    wrong = [where for where, off in places.items() if not off]
    yield Row("places that set trust_remote_code: False, or what the user said",
              len(places), len(places) - len(wrong), note="; ".join(wrong[:3]))  # fmt: skip


def machines(long: bool) -> Iterator[Row]:
    """Programs that name only local things."""
    programs = network.programs()
    names = [*programs] if long else [name for name in _FEW if name in programs]
    wrong = []
    for name in names:
        status, printed, seen = network.reached(programs[name], log=fresh() / "log")
        if status or seen:
            wrong.append(f"{name}: {seen[:200] or printed}")
    note = f"WRONG: {'; '.join(wrong)}" if wrong else "with all other machines out of reach"
    yield Row("programs that name only local things", len(names), len(names) - len(wrong),
              note=note)  # fmt: skip
    asked = network.named_hub_model_asks()
    yield Row("a name that is no folder asks the hub", 1, int(asked), note="as it should")
    hosts = network.ray_hosts() if long else None
    if hosts is not None:
        odd = hosts - network.RAYS_OWN - network.nameservers()
        asked = ", ".join(sorted(hosts & network.RAYS_OWN)) or "nobody"
        yield Row(
            "a Ray cluster of one's own sends no usage reports and reaches no other host",
            1,
            int(not odd),
            note=f"Ray's own server asks {asked}" + (f"; WRONG: {sorted(odd)}" if odd else ""),
        )


def dependencies() -> Iterator[Row]:
    """Licences of what is installed."""
    found = licences.packages()
    unknown = [p.name for p in found if p.licence == licences.UNKNOWN]
    strong = [p.name for p in found if p.copyleft == "strong"]
    weak = [p.name for p in found if p.copyleft == "weak"]
    bad = {*unknown, *strong}
    note = f"weak copyleft: {', '.join(weak) or 'none'}"
    if bad:
        note += f"; unknown: {', '.join(unknown)}; GPL: {', '.join(strong)}"
    yield Row("installed packages with a known licence other than GPL", len(found),
              len(found) - len(bad), note=note)  # fmt: skip


def run(long: bool) -> Iterable[Row]:
    """All attacks on trust.

    Args:
        long: Whether at length.

    Yields:
        A row a kind.
    """
    n = None if long else _SHORT
    yield tried("code in files, wherever files are read", spread(code.attacks(), n))
    yield tried("names in files that lead elsewhere, and links", spread(paths.attacks(), n))
    yield tried("code beside a model that nobody asked for", spread(remote.attacks(), n))
    runs = remote.runs_when_asked()
    yield Row("the same code under --trust-remote-code", 1, int(runs), note="runs, as it should")
    yield from static()
    yield from machines(long)
    yield from dependencies()
