"""The claims on trial, one page an item of the paper, in its order.

A page holds, in reading order, what speaks for or against its claims (a proof, a sweep, a
counterexample, the two sides of a negative control), and last its `CLAIMS`: statement, recorded
verdict, and which of these is evidence. Files without `CLAIMS` are what several pages share.
"""

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib import import_module

from lora_bounds.trial.claim import Claim, Evidence
from lora_bounds.trial.control import Control

CONTENTS = (
    *("masks.eq_2", "masks.eq_9_and_10", "masks.eq_11", "masks.remark_p_to_1", "masks.t5"),
    *("stability.def_4_1", "stability.lemma_a1", "stability.prop_4_2"),
    *("stability.lemma_a1_constants", "stability.lipschitz_constant"),
    *("stability.prop_4_2_repaired", "stability.curvature_in_factors", "stability.trend_over_p"),
    *("generalization.lemma_4_3", "generalization.thm_4_4", "generalization.thm_4_4_floor"),
    *("ensemble.eq_8", "ensemble.thm_4_5", "ensemble.a_3", "ensemble.thm_4_5_beyond"),
    "ensemble.t4",
    *("linear_layer.mask_moments", "linear_layer.induced_penalty", "linear_layer.dropout_at_q"),
    *("linear_layer.closed_form", "linear_layer.fig_4"),
    *("other_bounds.uniform_stability_bounds", "other_bounds.pac_bayes_dropout"),
    *("other_bounds.held_out_sample", "other_bounds.lemma_7"),
    *("regimes.t1", "regimes.critical_ratio", "regimes.t1_limits", "regimes.t1_lora_dropout"),
    *("regimes.t2", "regimes.t3"),
    "measured.on_digits",
)


@cache
def all_claims() -> tuple[Claim, ...]:
    """Every claim.

    Returns:
        The claims, page by page, each with the name of its page.
    """
    pages = [import_module(f"lora_bounds.claims.{name}") for name in CONTENTS]
    return tuple(
        replace(claim, page=page.__name__.removeprefix("lora_bounds."))
        for page in pages
        for claim in page.CLAIMS
    )


def all_controls() -> tuple[Control, ...]:
    """Every negative control.

    Returns:
        The controls, in the order of the claims that they corrupt.
    """
    return tuple(control for claim in all_claims() for control in claim.controls)


def all_evidence(kind: str) -> dict[str, Evidence]:
    """The evidence of one kind, each piece once.

    Args:
        kind: ``"proof"``, ``"sweep"``, ``"counterexample"`` or ``"measurement"``.

    Returns:
        Map from its name.
    """
    return {
        piece.name: piece
        for claim in all_claims()
        for piece in claim.evidence
        if piece.kind == kind
    }


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def find_claims(query: str, claims: Iterable[Claim] | None = None) -> tuple[Claim, ...]:
    """The claim of an id or, failing that, all the claims of a paper item.

    Args:
        query: an id such as ``"Thm 4.4"`` or a paper item; case, blanks and dots do not matter.
        claims: where to look; all of them unless given.

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
