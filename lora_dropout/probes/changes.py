"""Changes of a loss at m examples over S seeds, and their means."""

from dataclasses import dataclass

import numpy as np

from lora_dropout.checks import check_array
from lora_dropout.probes.intervals import Array, Interval, t_interval


@dataclass(frozen=True, eq=False)
class Changes:
    """Signed changes with their means; t intervals, asymptotic.

    Attributes:
        values: Signed changes, shape (S, m).
        absolute: Mean of |values|: pointwise hypothesis stability, where values come from removal.
        absolute_interval: Of that mean, over examples (each averaged over the seeds).
        signed: Mean of values.
        signed_interval: Of that mean, over examples.
        absolute_seed_interval: Of the mean of |values|, over seeds: the mean over runs for these
            very examples. None for one seed.
        signed_seed_interval: The same for the signed mean.
    """

    values: Array
    absolute: float
    absolute_interval: Interval
    signed: float
    signed_interval: Interval
    absolute_seed_interval: Interval | None
    signed_seed_interval: Interval | None


def summarize(values: Array, confidence: float) -> Changes:
    """Take the means.

    Args:
        values: Signed changes, shape (S, m), m at least 2.
        confidence: Of the intervals.

    Returns:
        Means and intervals.
    """
    values = check_array("values", values, dims=2)
    size = np.abs(values)
    several = len(values) > 1
    return Changes(
        values=values,
        absolute=float(size.mean()),
        absolute_interval=t_interval(size.mean(axis=0), confidence=confidence),
        signed=float(values.mean()),
        signed_interval=t_interval(values.mean(axis=0), confidence=confidence),
        absolute_seed_interval=(
            t_interval(size.mean(axis=1), confidence=confidence) if several else None
        ),
        signed_seed_interval=(
            t_interval(values.mean(axis=1), confidence=confidence) if several else None
        ),
    )
