"""Put a claim about a probability on trial, with a stated error probability.

`RandomClaim` says that an event has probability at most delta. `check_frequency` runs a number of
trials fixed in advance and rejects when the Clopper-Pearson lower limit on the frequency is above
delta; a true claim is rejected with at most the stated error probability. Not being rejected
proves nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lora_bounds.bounds.held_out import clopper_pearson
from lora_bounds.domains import Is, Real, Whole
from lora_bounds.results import Direction

_SIDES: tuple[Direction, Direction] = ("lower", "upper")


@dataclass(frozen=True)
class RandomClaim:
    """The claim that a random event happens with probability at most `probability`.

    Attributes:
        name: Short name.
        statement: The claim in words.
        fails: One independent trial; True when the bad event happens.
        probability: The claimed upper bound on its probability.
    """

    name: str
    statement: str
    fails: Callable[[np.random.Generator], bool]
    probability: float


@dataclass(frozen=True)
class FrequencyResult:
    """What a frequency check saw.

    Attributes:
        name: The claim's name.
        trials: Independent trials (fixed in advance).
        failures: How often the bad event happened.
        lower: Clopper-Pearson lower limit of its probability, one-sided.
        upper: Clopper-Pearson upper limit, one-sided.
        rejected: lower > claimed probability.
        error_probability: A true claim is rejected with at most this probability; each limit
            is wrong with at most this probability.
    """

    name: str
    trials: int
    failures: int
    lower: float
    upper: float
    rejected: bool
    error_probability: float


def check_frequency(
    claim: RandomClaim, *, trials: int, seed: int, error_probability: float = 1e-6
) -> FrequencyResult:
    """Run a fixed number of independent trials and reject a claim that fails too often.

    Args:
        claim: The claim on trial.
        trials: Number of independent trials.
        seed: Seed of the numpy generator.
        error_probability: Largest probability of rejecting a true claim, in (0, 1).

    Returns:
        The result; not rejected means not rejected, nothing more.

    Raises:
        ValueError: `trials` or `error_probability` is out of range.
    """
    _check_trials(trials, error_probability)
    rng = np.random.default_rng(seed)
    failures = sum(bool(claim.fails(rng)) for _ in range(trials))
    return judge_frequency(
        name=claim.name,
        failures=failures,
        trials=trials,
        probability=claim.probability,
        error_probability=error_probability,
    )


def _check_trials(trials: int, error_probability: float) -> None:
    Whole(1, 2**53 - 1)("trials", trials)
    Real("(0, 1)")("error_probability", error_probability)


def judge_frequency(
    *,
    name: str,
    failures: int,
    trials: int,
    probability: float,
    error_probability: float = 1e-6,
) -> FrequencyResult:
    """Judge a claim about a probability by a count of independent trials that have been run.

    Args:
        name: The claim's name.
        failures: How often the bad event happened.
        trials: Number of independent trials, fixed in advance.
        probability: The claimed upper bound on the bad event's probability.
        error_probability: Largest probability of rejecting a true claim, in (0, 1).

    Returns:
        The result; not rejected means not rejected, nothing more.

    Raises:
        ValueError: an argument is out of range.
    """
    _check_trials(trials, error_probability)
    Is(str, "a text")("name", name)
    Whole(0, trials)("failures", failures)
    Real("[0, 1]")("probability", probability)
    lower, upper = (
        float(
            np.asarray(
                clopper_pearson(
                    n=trials, delta=error_probability, errors=failures, direction=side
                ).value
            )
        )
        for side in _SIDES
    )
    rejected = lower > probability
    return FrequencyResult(name, trials, failures, lower, upper, rejected, error_probability)
