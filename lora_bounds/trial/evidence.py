"""The four kinds of evidence, as constructors for the pages of claims."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds.counterexamples import Data, Replay, load
from lora_bounds.measurements import Measurement
from lora_bounds.measurements import load as load_measurement
from lora_bounds.trial.claim import Effect, Evidence, Finding
from lora_bounds.trial.proof import Proof
from lora_bounds.trial.search import Inequality

# A random sweep is asked to notice violations that fill at least this share of its range.
NOTICEABLE_SHARE = 0.01
IDENTITY, ALGEBRA, QUADRATURE = 1e-12, 1e-10, 1e-4


@dataclass(frozen=True)
class Sweep:
    """What a numeric sweep saw.

    Attributes:
        scope: the range that was swept, in words.
        slacks: what is left of the claimed inequality in each trial; negative: a violation.
        error_probability: None for a grid. For trials drawn at random, the probability that a
            violation on `NOTICEABLE_SHARE` of the range goes unseen (`unseen`); for Monte Carlo,
            the probability that noise alone pushes any trial past its slack.
    """

    scope: str
    slacks: ArrayLike
    error_probability: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a measurement says of an effect that the claim holds to be positive.

    Attributes:
        summary: what was estimated, from how much, with the number.
        low: lower end of its interval.
        high: upper end.
        error_probability: that of the interval: each end is wrong with at most this probability.
        trials: number of independent runs behind it.
    """

    summary: str
    low: float
    high: float
    error_probability: float
    trials: int


def unseen(trials: int) -> float:
    """Probability that independent random trials all miss the noticeable share of the range.

    Args:
        trials: number of trials.

    Returns:
        (1 - share)^trials.

    >>> unseen(1000) < 5e-5
    True
    """
    return float((1.0 - NOTICEABLE_SHARE) ** trials)


def agreement(value: ArrayLike, expected: ArrayLike, tolerance: float) -> float:
    """Slack of the claim that two numbers or arrays are equal.

    Args:
        value: one route to the number.
        expected: another.
        tolerance: the tier, relative to the larger of 1 and the expected size.

    Returns:
        ``tolerance`` minus the largest error; negative, or NaN, where they disagree.
    """
    left, right = np.asarray(value, float), np.asarray(expected, float)
    scale = max(1.0, float(np.max(np.abs(right))))
    return tolerance - float(np.max(np.abs(left - right))) / scale


def _named(function: Callable[..., Any], prefix: str) -> str:
    name = function.__name__
    if not name.startswith(prefix):
        raise ValueError(f"the name of {name!r} must start with {prefix!r}")
    return name.removeprefix(prefix).replace("_", "-")


def proof(
    prove: Callable[[], Proof], *, assuming: str | None = None, of_the_contrary: bool = False
) -> Evidence:
    """Evidence by a proof.

    Args:
        prove: runs it; ``prove_lemma_a1`` is named ``"lemma-a1"``.
        assuming: the extra assumption under which it speaks.
        of_the_contrary: what it proves contradicts the claim.

    Returns:
        The evidence.
    """

    def run() -> Finding:
        result = prove()
        summary = f"{result.method}: {len(result.steps)} steps"
        argued = sum(step.startswith("[argued]") for step in result.steps)
        if argued:
            summary += f", {argued} of them argued in words"
        effect: Effect = "refutes" if of_the_contrary else "proves"
        if not result.holds:
            effect = "fails"
        return Finding(effect, summary, details=(result.statement, *result.steps))

    return Evidence("proof", _named(prove, "prove_"), run, assuming, prove)


def sweep(function: Callable[[], Sweep], *, assuming: str | None = None) -> Evidence:
    """Evidence by a numeric sweep: it refutes where one slack is negative.

    Args:
        function: runs the sweep.
        assuming: the extra assumption under which it speaks.

    Returns:
        The evidence. A slack that is NaN, or no trial at all, makes it fail.
    """

    def run() -> Finding:
        seen = function()
        slacks = np.ravel(np.asarray(seen.slacks, float))
        if slacks.size == 0 or np.isnan(slacks).any():
            return Finding("fails", f"{seen.scope}: no trial, or NaN among the slacks")
        least = float(slacks.min())
        violations = int((slacks < 0).sum())
        return Finding(
            "refutes" if violations else "supports",
            f"{seen.scope}: {violations} violations in {slacks.size} trials",
            margin=least,
            trials=slacks.size,
            error_probability=seen.error_probability,
        )

    module = function.__module__.removeprefix("lora_bounds.")
    return Evidence("sweep", f"{module}.{function.__name__}", run, assuming, function)


def counterexample(
    replay: Callable[[Data], Replay], *, assuming: str | None = None, hunt: Inequality | None = None
) -> Evidence:
    """Evidence by replaying one of `lora_bounds.counterexamples` in exact arithmetic.

    Args:
        replay: recomputes both sides; ``replay_a3_parameters`` is of ``"a3-parameters"``.
        assuming: the extra assumption under which it speaks.
        hunt: the search that found it, if one did.

    Returns:
        The evidence; it fails where the replay does not refute.
    """
    example_id = _named(replay, "replay_")

    def run() -> Finding:
        example = load(example_id)
        result = replay(example.data)
        return Finding(
            "refutes" if result.refutes else "fails",
            "replayed in exact arithmetic, the claim fails"
            if result.refutes
            else "the replay shows no violation",
            margin=-abs(float(result.margin)) if result.refutes else float(result.margin),
            trials=1,
            details=(f"against: {example.statement}", *result.steps, example.remark),
        )

    return Evidence("counterexample", example_id, run, assuming, replay, hunt)


def measurement(
    measurement_id: str, estimate: Callable[[Measurement], Estimate], *, assuming: str | None = None
) -> Evidence:
    """Evidence by numbers on file, measured on trained adapters.

    The unfavourable end of the interval decides: all of it above zero supports the claim, all of
    it below refutes it, and anything else establishes nothing.

    Args:
        measurement_id: one of `lora_bounds.measurements.ids`.
        estimate: the statistic, computed anew each time.
        assuming: the extra assumption under which it speaks.

    Returns:
        The evidence.
    """

    def run() -> Finding:
        seen = load_measurement(measurement_id)
        found = estimate(seen)
        effect: Effect = "fails"
        if found.low > 0:
            effect = "supports"
        elif found.high < 0:
            effect = "refutes"
        made = seen.provenance
        return Finding(
            effect,
            found.summary,
            margin=found.high if effect == "refutes" else found.low,
            trials=found.trials,
            error_probability=found.error_probability,
            details=(
                seen.question,
                f"interval [{found.low:.4g}, {found.high:.4g}]",
                f"measured by: {made['command']}, commit {made['commit']}",
            ),
        )

    return Evidence(
        "measurement", f"{measurement_id}: {estimate.__name__}", run, assuming, estimate
    )
