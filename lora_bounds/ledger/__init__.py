"""The ledger: every claim on trial, by theme, in the order of the paper."""

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module

from lora_bounds.ledger.tested_by import TESTED_BY
from lora_bounds.trial.claim import Claim

THEMES = (
    *("sparsity", "stability", "generalization", "ensemble", "linear", "other_bounds", "trends"),
    "measured",
)


def all_claims() -> tuple[Claim, ...]:
    """Every claim.

    Returns:
        The claims, theme by theme.
    """
    modules = [import_module(f"lora_bounds.ledger.{theme}") for theme in THEMES]
    claims = [claim for module in modules for claim in module.CLAIMS]
    return tuple(replace(claim, tests=TESTED_BY.get(claim.id, ())) for claim in claims)


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def find_claims(query: str, claims: Iterable[Claim] | None = None) -> tuple[Claim, ...]:
    """The claim of an id or, failing that, all the claims of a paper item.

    Args:
        query: an id such as ``"Thm 4.4"`` or a paper item; case, blanks and dots do not matter.
        claims: where to look; the whole ledger unless given.

    Returns:
        At least one claim.

    Raises:
        ValueError: if there is none; the message has the closest ids.
    """
    known = all_claims() if claims is None else tuple(claims)
    key = _plain(query)
    for name in (lambda c: [c.id], lambda c: c.paper_item.split(", ")):
        found = tuple(c for c in known if key in map(_plain, name(c)))
        if found:
            return found
    ids = {_plain(c.id): c.id for c in known}
    inside = [ids[name] for name in ids if key and key in name]
    near = inside[:5] or [ids[name] for name in get_close_matches(key, list(ids), 5, 0.4)]
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"no claim {query!r}{hint} ('lora-bounds show' lists them all)")


def related_claims(claim: Claim) -> tuple[Claim, ...]:
    """The other claims about the same item of the paper.

    Args:
        claim: a claim.

    Returns:
        Those that share a part of its ``paper_item``, or whose id is one.
    """
    parts = {_plain(claim.id), *map(_plain, claim.paper_item.split(", "))}
    return tuple(
        other
        for other in all_claims()
        if other.id != claim.id
        and parts & {_plain(other.id), *map(_plain, other.paper_item.split(", "))}
    )
