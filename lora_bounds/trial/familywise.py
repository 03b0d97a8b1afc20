"""One level for many verdicts: the chance that any of them is wrong (Bonferroni).

Needs nothing of how the verdicts depend on one another; that they come of the same runs is allowed.
"""

from typing import Annotated

from lora_bounds.domains import Real, Repetitions, checked


@checked
def each_level(family: Annotated[float, Real("(0, 1)")], tests: Repetitions) -> float:
    """Level at which each of several tests may err so that all together err with at most `family`.

    Args:
        family: chance that any of them errs, in (0, 1).
        tests: how many there are, fixed before the data were seen.

    Returns:
        family / tests.

    >>> each_level(0.05, 20)
    0.0025
    """
    return family / tests
