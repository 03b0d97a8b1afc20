"""Input checks. Every message names the argument and echoes its value."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_bounds.object_checks import (
    broadcasting,
    call,
    choice,
    freeze,
    instance,
    instances,
    representable,
    representing,
    seed,
    short,
    together,
)
from lora_bounds.rounding import Array

__all__ = [
    "at_most",
    "broadcasting",
    "call",
    "choice",
    "count",
    "freeze",
    "instance",
    "instances",
    "matrix",
    "number",
    "numbers",
    "representable",
    "representing",
    "second_moment",
    "seed",
    "short",
    "together",
    "vector",
    "whole_number",
]


_MOST_AXES = 16  # numpy's own limits are 32 in some places and 64 in others


@lru_cache
def _ends(interval: str) -> tuple[float, bool, float, bool]:
    low, high = interval[1:-1].split(",")
    return float(low), interval[0] == "[", float(high), interval[-1] == "]"


def _fail(name: str, what: str, array: Array, bad: NDArray[np.bool_]) -> None:
    worst = array[bad][0] if array.ndim else array[()]
    raise ValueError(f"{name} must be {what}, got {name}={float(worst)!r}")


def numbers(name: str, value: ArrayLike, interval: str = "(-inf, inf)") -> Array:
    """Check that an argument holds real numbers of an interval.

    Args:
        name: the argument's name, for the message.
        value: a number or an array of numbers; anything that broadcasts.
        interval: in the usual notation, such as ``"[0, 1)"``; ``"[0, inf]"`` admits infinity.

    Returns:
        The value as an array of floats. It shares no memory with ``value``.

    Raises:
        TypeError: if ``value`` holds anything but real numbers.
        ValueError: if it is an array of more than 16 axes, or a number is outside.

    >>> numbers("delta", 0.05, "(0, 1)")
    array(0.05)
    >>> numbers("delta", 2, "(0, 1)")
    Traceback (most recent call last):
    ...
    ValueError: delta must be in (0, 1), got delta=2.0
    """
    if isinstance(value, int) and not -(2**63) <= value < 2**64:  # beyond numpy's own integers
        value = _float(value)
    raw = _raw(value)
    if raw is None or raw.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got {name}={short(value)}")
    if raw.ndim > _MOST_AXES:
        raise ValueError(f"{name} must have at most {_MOST_AXES} axes, got {raw.ndim} axes")
    array = _doubles(raw)
    low, closed_low, high, closed_high = _ends(interval)
    inside = (array >= low) if closed_low else (array > low)
    inside &= (array <= high) if closed_high else (array < high)
    if not inside.all():  # NaN is inside no interval
        _fail(name, f"in {interval}", array, ~inside)
    return array


def _doubles(raw: NDArray[np.generic]) -> Array:
    if raw.dtype != np.longdouble:  # this way for speed: it is asked for each argument of each call
        return np.array(raw, dtype=np.float64)
    with np.errstate(over="ignore"):  # a long double may be beyond the largest double
        return np.array(raw, dtype=np.float64)


def _float(value: int) -> float | int:
    try:
        return float(value)
    except OverflowError:
        return value


def _raw(value: ArrayLike) -> NDArray[np.generic] | None:
    # None for lists of uneven lengths or too deep, and for arrays of which a part is masked out.
    try:
        raw: NDArray[np.generic] = np.asarray(value)
    except (ValueError, TypeError):
        return None
    return None if isinstance(value, np.ma.MaskedArray) else raw


def number(name: str, value: ArrayLike, interval: str = "(-inf, inf)") -> float:
    """Check that an argument is one real number of an interval.

    Args:
        name: the argument's name, for the message.
        value: the number.
        interval: as in `numbers`.

    Returns:
        The value as a float.

    Raises:
        ValueError: if it is an array of several numbers, or outside of the interval.

    >>> number("delta", [0.05, 0.1], "(0, 1)")
    Traceback (most recent call last):
    ...
    ValueError: delta must be one number, got delta of shape (2,)
    """
    array = numbers(name, value, interval)
    if array.ndim:
        raise ValueError(f"{name} must be one number, got {name} of shape {array.shape}")
    return float(array)


def whole_number(name: str, value: ArrayLike, least: int = 1, most: int | None = None) -> int:
    """Check that an argument is one whole number, neither too small nor too large.

    Args:
        name: the argument's name, for the message.
        value: the number, as an integer or as a float.
        least: the smallest admitted.
        most: the largest admitted, if any.

    Returns:
        The value as an int.

    Raises:
        ValueError: if it is not such a number.
    """
    found = number(name, value, f"[{least}, inf)" if most is None else f"[{least}, {most}]")
    if found != int(found):
        raise ValueError(f"{name} must be a whole number, got {name}={found!r}")
    return int(found)


def count(name: str, value: ArrayLike, least: int = 1) -> Array:
    """Check that an argument holds whole numbers, not too small.

    Args:
        name: the argument's name, for the message.
        value: whole numbers, as integers or as floats (``1e12`` will do).
        least: the smallest admitted.

    Returns:
        The value as an array of floats.

    >>> count("n", 0)
    Traceback (most recent call last):
    ...
    ValueError: n must be in [1, inf), got n=0.0
    """
    array = numbers(name, value, f"[{least}, inf)")
    whole = array == np.floor(array)
    if not np.all(whole):
        _fail(name, "a whole number", array, ~whole)
    return array


def at_most(name: str, value: Array, other_name: str, other: Array) -> None:
    """Check that one argument nowhere exceeds another.

    Args:
        name: the name of the smaller argument.
        value: its checked value.
        other_name: the name of the larger argument.
        other: its checked value.
    """
    below = np.asarray(value <= other)
    if not np.all(below):
        wide = np.broadcast_to(value, below.shape)
        _fail(name, f"at most {other_name}", wide, ~below)


def matrix(name: str, value: ArrayLike, *, columns: int | None = None) -> Array:
    """Check that an argument is one matrix of finite numbers.

    Args:
        name: the argument's name, for the message.
        value: the matrix.
        columns: the number of columns it must have, if that is settled.

    Returns:
        The matrix as an array of floats.

    Raises:
        ValueError: if ``value`` is not of two dimensions, is empty, or has another width.

    >>> matrix("A", [1.0])
    Traceback (most recent call last):
    ...
    ValueError: A must be a matrix, got A of shape (1,)
    """
    array = numbers(name, value)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a matrix, got {name} of shape {array.shape}")
    if columns is not None and array.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns, got {name} of shape {array.shape}")
    return array


def vector(name: str, value: ArrayLike, *, size: int | None = None) -> Array:
    """Check that an argument is one vector of finite numbers.

    Args:
        name: the argument's name, for the message.
        value: the vector.
        size: the number of entries it must have, if that is settled.

    Returns:
        The vector as an array of floats.

    Raises:
        ValueError: if ``value`` is not of one dimension, is empty, or has another length.

    >>> vector("y", [1.0, 2.0], size=3)
    Traceback (most recent call last):
    ...
    ValueError: y must have 3 entries, got y of shape (2,)
    """
    array = numbers(name, value)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a vector, got {name} of shape {array.shape}")
    if size is not None and array.size != size:
        raise ValueError(f"{name} must have {size} entries, got {name} of shape {array.shape}")
    return array


def second_moment(name: str, value: ArrayLike, *, size: int | None = None) -> Array:
    """Check that an argument is symmetric and positive semidefinite.

    Args:
        name: the argument's name, for the message.
        value: the matrix E[x xᵀ].
        size: its number of rows and columns, if that is settled.

    Returns:
        The matrix, made exactly symmetric.

    Raises:
        ValueError: if it is not square of that size, not symmetric or has a negative eigenvalue.

    >>> second_moment("Sigma", [[1.0, 2.0], [2.0, 1.0]], size=2)
    Traceback (most recent call last):
    ...
    ValueError: Sigma must be positive semidefinite, got least eigenvalue -1.0
    """
    array = matrix(name, value, columns=size)
    size = array.shape[1]
    if array.shape != (size, size):
        raise ValueError(f"{name} must be {size} x {size}, got {name} of shape {array.shape}")
    scale = float(np.abs(array).max())
    skew = 2.0 * float(np.abs(array / 2.0 - array.T / 2.0).max())
    if skew > 1e-10 * scale:
        raise ValueError(f"{name} must be symmetric, got an asymmetry of {skew!r}")
    array = array / 2.0 + array.T / 2.0
    least = scale * float(np.linalg.eigvalsh(array / scale)[0]) if scale else 0.0
    if least < -1e-10 * scale:
        raise ValueError(f"{name} must be positive semidefinite, got least eigenvalue {least!r}")
    return array
