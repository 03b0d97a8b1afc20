"""Input checks. Every message names the argument and echoes its value."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_bounds.rounding import Array


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

    >>> numbers("delta", 0.05, "(0, 1)")
    array(0.05)
    >>> numbers("delta", 2, "(0, 1)")
    Traceback (most recent call last):
    ...
    ValueError: delta must be in (0, 1), got delta=2.0
    """
    raw = np.asarray(value)
    if raw.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got {name}={value!r}")
    array: Array = np.array(raw, dtype=np.float64)
    low, closed_low, high, closed_high = _ends(interval)
    inside = (array >= low) if closed_low else (array > low)
    inside &= (array <= high) if closed_high else (array < high)
    if not np.all(inside):  # NaN is inside no interval
        _fail(name, f"in {interval}", array, ~inside)
    return array


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


def second_moment(name: str, value: ArrayLike, *, size: int) -> Array:
    """Check that an argument is symmetric and positive semidefinite.

    Args:
        name: the argument's name, for the message.
        value: the matrix E[x xᵀ].
        size: its number of rows and columns.

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
    if array.shape != (size, size):
        raise ValueError(f"{name} must be {size} x {size}, got {name} of shape {array.shape}")
    scale = float(np.abs(array).max())
    skew = float(np.abs(array - array.T).max())
    if skew > 1e-10 * scale:
        raise ValueError(f"{name} must be symmetric, got an asymmetry of {skew!r}")
    array = (array + array.T) / 2
    least = float(np.linalg.eigvalsh(array)[0])
    if least < -1e-10 * scale:
        raise ValueError(f"{name} must be positive semidefinite, got least eigenvalue {least!r}")
    return array


def choice(name: str, value: Any, options: tuple[str, ...]) -> None:
    """Check that an argument is one of a few words.

    Args:
        name: the argument's name, for the message.
        value: what was given.
        options: what is admitted.

    Raises:
        ValueError: if ``value`` is none of them.

    >>> choice("direction", "sideways", ("upper", "lower"))
    Traceback (most recent call last):
    ...
    ValueError: direction must be one of upper, lower; got direction='sideways'
    """
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {name}={value!r}")
