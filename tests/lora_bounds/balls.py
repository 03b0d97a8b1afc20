"""The oracle for bounds: the same formula in ball arithmetic, from the exact floats."""

from typing import Any

import numpy as np
from flint import arb, ctx

ctx.prec = 2500  # 1 - (1-p)² at p = 1e-300 loses 1000 bits


def ball(value: float) -> arb:
    """The exact value of a float."""
    return arb(float(value))


def assert_just_above(value: Any, exact: arb, slack: float = 1e-12) -> None:
    """`value` is at least every point of the ball, and not above it by more than the slack."""
    if np.isinf(value):
        assert exact > ball(1e308) or not exact.is_finite(), exact
        return
    assert exact <= ball(value), (float(value), exact)
    assert ball(value) <= exact * (1 + ball(slack)) + ball(1e-305), (float(value), exact)


def assert_just_below(value: Any, exact: arb, slack: float = 1e-12) -> None:
    """`value` is at most every point of the ball, and not below it by more than the slack."""
    assert ball(value) <= exact, (float(value), exact)
    assert exact * (1 - ball(slack)) - ball(1e-305) <= ball(value), (float(value), exact)


def q_of(p: float) -> arb:
    """1 - (1-p)², as the text before Eq. 9 has it."""
    return 1 - (1 - ball(p)) ** 2
