"""Means over seeds with their uncertainty."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of Student's t interval.

    Args:
        values: One value a seed, at least two.
        confidence: Coverage under normal, independent values.

    Returns:
        (mean, half-width).

    Raises:
        ValueError: If there are fewer than two values.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        raise ValueError(f"values must hold at least two numbers, got {len(sample)}")
    quantile = stats.t.ppf(0.5 + confidence / 2, len(sample) - 1)
    return float(sample.mean()), float(quantile * sample.std(ddof=1) / np.sqrt(len(sample)))
