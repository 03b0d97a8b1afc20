"""Outward rounding: a bound computed in floating point must not fall inside the exact one.

The formulas of this package are sums, products, quotients, square roots and logarithms of
non-negative numbers, arranged so that nothing cancels. Each operation then adds a relative error of
one or two units of rounding, and no formula uses more than sixteen in a row. Widening the result by
`RELATIVE_SLACK` (32 such units) and by the smallest normal number (for underflow) therefore covers
the error; the tests check it against ball arithmetic.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = float | Array

RELATIVE_SLACK = 2.0**-48
ABSOLUTE_SLACK = float(np.finfo(np.float64).tiny)
_SUBNORMAL = float(np.finfo(np.float64).smallest_subnormal)


def quiet() -> np.errstate:
    """Let formulas run into infinity without warnings; `conclude` still rejects NaN.

    Returns:
        A context manager.
    """
    return np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore")


def plain(value: Array) -> Numbers:
    """Turn an array of no dimension into a float.

    Args:
        value: any array.

    Returns:
        A float where ``value`` has shape ``()``, else ``value`` itself.
    """
    return value if isinstance(value, np.ndarray) and value.ndim else float(value)


@np.errstate(over="ignore", under="ignore")
def up(value: Array) -> Array:
    """Round a non-negative number up, past the error of its computation.

    Args:
        value: numbers of at least 0, computed without cancellation; infinity is kept.

    Returns:
        Numbers above ``value``, of the same shape.

    >>> up(np.array(0.5)) > 0.5
    np.True_
    """
    return np.asarray(value * (1.0 + RELATIVE_SLACK) + ABSOLUTE_SLACK)


@np.errstate(under="ignore")
def down(value: Array) -> Array:
    """Round a non-negative number down, past the error of its computation.

    Args:
        value: numbers of at least 0, computed without cancellation.

    Returns:
        Numbers below ``value`` but not below 0, of the same shape.

    >>> down(np.array(0.5)) < 0.5, float(down(np.array(0.0)))
    (np.True_, 0.0)
    """
    return np.asarray(np.maximum(value * (1.0 - RELATIVE_SLACK) - ABSOLUTE_SLACK, 0.0))


@np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore")
def quotient(over: tuple[Numbers, ...], under: tuple[Numbers, ...]) -> Array:
    """Multiply and divide without running out of the floats on the way.

    Args:
        over: factors, at least 0.
        under: divisors, positive.

    Returns:
        Their product over their product: only the result itself may overflow or underflow.

    >>> float(quotient((2.0**-600, 2.0**-600), (2.0**-1000,))) == 2.0**-200
    True
    """
    value, exponent = np.asarray(1.0), np.asarray(0)
    for factors, sign in ((over, 1), (under, -1)):
        for factor in factors:
            mantissa, power = np.frexp(factor)
            value = value * mantissa if sign > 0 else value / mantissa
            exponent = exponent + sign * power
    return np.asarray(np.ldexp(value, exponent))


def lower_root(value: Array) -> Array:
    """Take a computed root for the denominator of an upper bound.

    Args:
        value: non-negative, right to a few units in the last place.

    Returns:
        The value; among subnormal numbers, where such a unit is no longer a relative error of
        1e-16, a little less.
    """
    less = np.maximum(value - 4.0 * _SUBNORMAL, 0.0)
    return np.where(value < ABSOLUTE_SLACK, less, value)
