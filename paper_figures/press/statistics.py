"""Means over seeds with their uncertainty; what a figure's comparisons say together."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special

from lora_bounds.trial.familywise import each_level

FAMILY = 0.05  # chance that any comparison of a figure errs, whatever the truth
Word = Literal["better", "WORSE", "not resolved"]
Verdict = Literal[
    "reproduced", "weakened", "contradicted", "not resolved", "not in the paper", "illustration"
]


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
    quantile = special.stdtrit(len(sample) - 1, 0.5 + confidence / 2)  # Student's t
    return float(sample.mean()), float(quantile * sample.std(ddof=1) / np.sqrt(len(sample)))


def compared(values: Sequence[float], *, better: int, tests: int) -> tuple[str, Word]:
    """Words for a mean difference, one of several comparisons of a figure.

    Args:
        values: One a seed.
        better: Sign of an improvement.
        tests: How many comparisons the figure makes, fixed before the data were seen. All their
            intervals together cover with probability 1 - `FAMILY` at least (Bonferroni).

    Returns:
        (text with the interval, word).

    Raises:
        ValueError: If there are fewer than two values.
    """
    mean, half = mean_interval(values, confidence=1 - each_level(FAMILY, tests))
    word: Word = "not resolved"
    if abs(mean) > half:
        word = "better" if better * mean > 0 else "WORSE"
    return f"{mean:+.3f} ± {half:.3f} ({word})", word


def judge(words: Sequence[Word]) -> Verdict:
    """The verdict on a claim that several comparisons have to bear out.

    Args:
        words: From `compared`.

    Returns:
        `reproduced` if all are better, `weakened` if some are, `contradicted` if none is and one
        is worse, else `not resolved`. With no effect at all it is the last but for `FAMILY` of the
        cases; a claim that fails in one comparison is `reproduced` in `FAMILY` of them at most.
    """
    if "better" in words:
        return "reproduced" if set(words) == {"better"} else "weakened"
    return "contradicted" if "WORSE" in words else "not resolved"


def together(tests: int) -> str:
    """What the intervals of the comparisons hold for, in a caption.

    Args:
        tests: How many there are.

    Returns:
        A sentence without its full stop.
    """
    return (
        f"Intervals of differences hold for all {tests} of them together at "
        f"{100 * (1 - FAMILY):.0f} % (Bonferroni), over training sets drawn from one pool and "
        "seeds, for these test images and this pretrained model"
    )
