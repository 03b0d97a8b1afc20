"""T1: the expected gap shrinks as p grows; for ridge it does where noise dominates."""

from typing import Any

import numpy as np

from lora_bounds.claims.one_parameter import exact_drop_probability, ridge_gap
from lora_bounds.claims.regimes.gaussian_inputs import gap_over_weights, shapes
from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import Sweep, counterexample, sweep, unseen
from lora_bounds.trial.search import Inequality, Problem

NOISE = "isotropic Gaussian inputs, noise variance at least 2/3 of the signal power norm(theta*)^2"


def gap_when_noise_dominates() -> Sweep:
    """Returns how much the exact gap falls at each step of w, at noise variance 2/3 of signal."""
    slacks: list[float] = []
    for n, d in shapes(31, 300):
        slacks += list(-np.diff(gap_over_weights(n, d, 2 / 3)))
    return Sweep(
        "300 random n and d up to 64, w = 2 lambda q from 1e-4 to 1e4", slacks, unseen(300)
    )


def _gap_draw(rng: np.random.Generator) -> Problem:
    x = rng.uniform(0.2, 2, rng.integers(2, 5)) * rng.choice([-1, 1])
    y = x + rng.choice([0.1, 0.3, 1.0]) * rng.normal(0, 1, len(x))
    return {
        "atoms": list(zip(x.tolist(), y.tolist(), strict=True)),
        "n": 2,
        "regularization": 10 ** rng.uniform(-1, 1),
        "p": tuple(sorted(rng.uniform(0, 1, 3).tolist())),
    }


def gap_sides(problem: Problem) -> tuple[Any, Any]:
    """Exact mean gap at the highest and at the middle of three dropout rates."""
    _, middle, high = problem["p"]
    return tuple(
        ridge_gap(
            problem["atoms"], problem["n"], problem["regularization"] * exact_drop_probability(p)
        )
        for p in (high, middle)
    )


def _gap_domain(problem: Problem) -> bool:
    low, middle, high = problem["p"]
    atoms, lam = problem["atoms"], problem["regularization"]
    if not (problem["n"] >= 2 and len(atoms) >= 2 and lam > 0 and 0 <= low < middle < high <= 1):
        return False
    if any(x == 0 for x, _ in atoms):
        return False
    first, second = (
        ridge_gap(atoms, problem["n"], lam * exact_drop_probability(p)) for p in (low, middle)
    )
    return bool(first > second > 0)  # it falls first: the turn is the point


def replay_gap_turns_up(data: Data) -> Replay:
    """Replay the gap at three rates, every sample enumerated."""
    gaps = [
        ridge_gap(data["atoms"], data["n"], data["regularization"] * exact_drop_probability(p))
        for p in data["p"]
    ]
    atoms = ", ".join(f"({x}, {y})" for x, y in data["atoms"])
    steps = [
        f"n = {data['n']} draws from the equally likely points {atoms}, lambda = "
        f"{data['regularization']}; every sample enumerated",
        *(f"p = {p}: E[R - Rhat] = {gap}" for p, gap in zip(data["p"], gaps, strict=True)),
    ]
    high, middle = gap_sides(data)
    return replayed(high, middle, steps, bool(gaps[0] > middle and high > middle))


GAP_TURNS_UP = counterexample(
    replay_gap_turns_up,
    hunt=Inequality(
        "gap-turns-up",
        "once it falls with p, the exact ridge gap keeps falling",
        _gap_draw,
        gap_sides,
        _gap_domain,
    ),
)


CLAIMS = (
    Claim(
        id="T1",
        paper_item="T1",
        statement="The expected generalization gap shrinks as p grows.",
        assumptions=("ridge regression with one lambda: Eq. 11 exactly",),
        evidence=(GAP_TURNS_UP, sweep(gap_when_noise_dominates, assuming=NOISE)),
        recorded=Verdict.HOLDS_UNDER,
        formula="E[R - Rhat] non-increasing in p",
        functions=("exact.ridge.expected_risks",),
    ),
)
