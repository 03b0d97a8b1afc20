"""What Thm 4.5 does not say: against the network without masks, and for the 0-1 error."""

from fractions import Fraction
from typing import Any

import numpy as np

from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import pair
from lora_bounds.trial.evidence import counterexample
from lora_bounds.trial.search import Inequality, Problem


def _mask_free_draw(rng: np.random.Generator) -> Problem:
    return {"update": rng.normal(), "target": rng.normal(), "p": rng.uniform(0.1, 0.9)}


def mask_free_sides(problem: Problem) -> tuple[Any, Any]:
    """Loss of the infinite ensemble and of the mask-free network, input 1 and W0 = 0."""
    update, y, p = problem["update"], problem["target"], problem["p"]
    return (y - (1 - p) ** 2 * update) ** 2 / 2, (y - update) ** 2 / 2


def replay_ensemble_vs_mask_free(data: Data) -> Replay:
    """Replay a layer that is trained right, whose masks shrink it."""
    ensemble, plain = mask_free_sides(data)
    update, target, p = data["update"], data["target"], data["p"]
    kept = (1 - p) ** 2
    opposite = {"update": update, "target": kept * update, "p": p}
    better, worse = mask_free_sides(opposite)
    steps = [
        f"input 1, W0 = 0, BA = {update}, y = {target}, p = {p}; the masks keep an entry with "
        f"probability {kept}",
        f"E xy = {target}, E x^2 = 1: BA = {update} is the trained optimum "
        f"G (k Sigma + p diag Sigma)^-1 = {target / ((1 - p) + p)}",
        f"infinite ensemble: (1/2)({target} - {kept * update})^2 = {ensemble}",
        f"mask-free network: (1/2)({target} - {update})^2 = {plain}",
        f"no order the other way either: with y = {kept * update} the ensemble has {better}, the "
        f"mask-free network {worse}",
    ]
    return replayed(ensemble, plain, steps, bool(ensemble > plain and better < worse))


ENSEMBLE_VS_MASK_FREE = counterexample(
    replay_ensemble_vs_mask_free,
    hunt=Inequality(
        "ensemble-vs-mask-free",
        "the ensemble is no worse than the mask-free network (squared loss)",
        _mask_free_draw,
        mask_free_sides,
        lambda s: 0 < s["p"] < 1,
    ),
)


def _control_draw(rng: np.random.Generator) -> Problem:
    return {"update": rng.normal(), "target": rng.normal(), "p": rng.uniform(0.05, 0.95)}


def _mask_free_true(problem: Problem) -> tuple[Any, Any]:
    kept, y, update = (1 - problem["p"]) ** 2, problem["target"], problem["update"]
    member = kept * (y - update) ** 2 + (1 - kept) * y**2
    return (y - kept * update) ** 2, member


def _zero_one_draw(rng: np.random.Generator) -> Problem:
    return {"base": rng.normal(0, 3), "update": rng.normal(0, 3), "p": rng.uniform(0.1, 0.9)}


def zero_one_sides(problem: Problem) -> tuple[Any, Any]:
    """0-1 error of the infinite ensemble and of the mean member; output = base + masked update."""
    kept = (1 - problem["p"]) ** 2
    base, update = problem["base"], problem["update"]
    ensemble = int(base + kept * update < 0)
    return ensemble, kept * int(base + update < 0) + (1 - kept) * int(base < 0)


def _zero_one_domain(problem: Problem) -> bool:
    # Only the striking case: most members are right, and no output is a tie.
    outputs = (problem["base"], problem["base"] + problem["update"])
    return 0 < problem["p"] < 1 and 0 not in outputs and zero_one_sides(problem)[1] < 0.5


def replay_ensemble_zero_one(data: Data) -> Replay:
    """Replay an average that a minority of wrong members pulls below zero."""
    ensemble, members = zero_one_sides(data)
    base, update, p = data["base"], data["update"], data["p"]
    kept = (1 - p) ** 2
    steps = [
        f"label +1, wrong when the output is negative; W0 x = {base}, BA x = {update}, p = {p}",
        f"a member keeps the update with probability {kept}: output {base + update}, else {base}",
        f"mean member error {members}",
        f"ensemble output {base + kept * update}, error {ensemble}",
    ]
    return replayed(Fraction(ensemble), members, steps)


ENSEMBLE_ZERO_ONE = counterexample(
    replay_ensemble_zero_one,
    hunt=Inequality(
        "ensemble-zero-one",
        "the ensemble's 0-1 error is at most the mean member's",
        _zero_one_draw,
        zero_one_sides,
        _zero_one_domain,
    ),
)


CLAIMS = (
    Claim(
        id="Audit 10, mask-free network",
        paper_item="Thm 4.5, against the mask-free network",
        statement="The ensemble is no worse than the network without masks.",
        assumptions=("squared loss",),
        evidence=(ENSEMBLE_VS_MASK_FREE,),
        recorded=Verdict.REFUTED,
        formula="loss(E_theta M(x; theta)) <= loss(M(x; theta without masks))",
        functions=("bounds.ensemble_risk.squared_losses",),
        controls=(
            pair(
                "ensemble against the mask-free network",
                "the ensemble is no worse than the mask-free network",
                _control_draw,
                lambda s: 0 < s["p"] < 1,
                false=mask_free_sides,
                true=_mask_free_true,
            ),
        ),
    ),
    Claim(
        id="Audit 10, 0-1 error",
        paper_item="Thm 4.5, 0-1 error",
        statement="The 0-1 error of the ensemble is at most that of the mean member.",
        assumptions=(),
        evidence=(ENSEMBLE_ZERO_ONE,),
        recorded=Verdict.REFUTED,
        formula="error(E_theta M(x; theta)) <= E_theta error(M(x; theta))",
    ),
)
