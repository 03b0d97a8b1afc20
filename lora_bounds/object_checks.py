"""Checks of arguments that are no numbers, and how messages show a value."""

import reprlib
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import numpy as np

from lora_bounds.rounding import quiet

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")

_LONGEST = 80
_BRIEF = reprlib.Repr()
_BRIEF.maxother = _BRIEF.maxstring = _BRIEF.maxlong = _LONGEST


def short(value: Any) -> str:
    """Show any value in at most 80 characters; an array by its shape unless it is one number.

    Args:
        value: anything, an object without a usable repr among them.

    Returns:
        One line.

    >>> short(0.5), short(np.zeros((2, 3))), short("x" * 1000)[:9]
    ('0.5', 'array of shape (2, 3)', "'xxxxxxxx")
    """
    if isinstance(value, np.ndarray) and value.ndim:
        return f"array of shape {value.shape}"
    try:
        text = _BRIEF.repr(value)
    except Exception:  # an int of more than 4300 digits, say
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


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
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {name}={short(value)}")


def instance(name: str, value: Any, kind: type[_T], what: str | None = None) -> _T:
    """Check that an argument is of a type.

    Args:
        name: the argument's name, for the message.
        value: what was given.
        kind: the type.
        what: how to call it, if not by its name, article included.

    Returns:
        The value.

    Raises:
        TypeError: if it is of another.

    >>> instance("separable", 1, bool)
    Traceback (most recent call last):
    ...
    TypeError: separable must be a bool, got separable=1
    """
    if not isinstance(value, kind):
        wanted = what or f"a {kind.__name__}"
        raise TypeError(f"{name} must be {wanted}, got {name}={short(value)}")
    return value


def instances(name: str, value: Any, kind: type[_T]) -> tuple[_T, ...]:
    """Check that an argument holds objects of a type only.

    Args:
        name: the argument's name, for the message.
        value: what was given.
        kind: the type.

    Returns:
        The objects.

    Raises:
        TypeError: if there are others, or if they do not come as a list or the like.
    """
    listed = tuple(value) if isinstance(value, list | tuple) else None
    if listed is None or not all(isinstance(item, kind) for item in listed):
        raise TypeError(f"{name} must be a sequence of {kind.__name__}, got {name}={short(value)}")
    return listed


def seed(name: str, value: Any) -> int:
    """Check that an argument can seed a generator.

    Args:
        name: the argument's name, for the message.
        value: a whole number of at least 0.

    Returns:
        The seed.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {name}={short(value)}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {name}={short(value)}")
    return int(value)


def together(**values: Any) -> None:
    """Check that arrays broadcast with each other.

    Args:
        **values: numbers and arrays of them by argument name; what is no array is passed over, as
            another check will find it.

    Raises:
        ValueError: if two do not; the message gives the shape of every array.

    >>> together(n=[1, 2], delta=0.1, dropout=[0.1, 0.2, 0.3])
    Traceback (most recent call last):
    ...
    ValueError: n, dropout must have shapes that broadcast, got n of (2,), dropout of (3,)
    """
    shapes = {name: shape for name, value in values.items() if (shape := _shape(value))}
    if len(shapes) < 2:
        return
    try:
        np.broadcast_shapes(*shapes.values())
    except (ValueError, RuntimeError):  # RuntimeError: beyond 32 axes
        found = ", ".join(f"{name} of {shape}" for name, shape in shapes.items())
        names = ", ".join(shapes)
        raise ValueError(f"{names} must have shapes that broadcast, got {found}") from None


def representable(result: Any, **arguments: Any) -> None:
    """Check that floats sufficed for a computation on admitted arguments.

    Args:
        result: what came out: a number, an array, or a record or sequence of them.
        **arguments: what it was computed from, by name.

    Raises:
        ValueError: if a number of the result is infinite or none.

    >>> representable(np.inf, noise=1e200)
    Traceback (most recent call last):
    ...
    ValueError: noise must be of a size for which floats suffice, got noise=1e+200
    """
    if not _finite(result):
        _not_representable(arguments)


def _not_representable(arguments: dict[str, Any]) -> NoReturn:
    found = ", ".join(f"{name}={_size(value)}" for name, value in arguments.items())
    names = ", ".join(arguments)
    raise ValueError(f"{names} must be of a size for which floats suffice, got {found}") from None


def _size(value: Any) -> str:
    array = np.asarray(value)
    if array.ndim and array.dtype.kind in "iuf" and array.size:
        return f"array up to {np.abs(array).max():.3g}"
    return short(value)


def _finite(result: Any) -> bool:
    if is_dataclass(result):
        return all(_finite(part) for part in vars(result).values())
    if isinstance(result, tuple):
        return all(_finite(part) for part in result)
    return bool(np.isfinite(result).all())


def representing(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function of keyword arguments say so where floats do not suffice for its result.

    Args:
        function: all of whose results are finite.

    Returns:
        The function, checked by `representable` and without warnings of overflow on the way.
    """

    @wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            with quiet():
                result = function(*args, **kwargs)
        except (np.linalg.LinAlgError, OverflowError):
            _not_representable(kwargs)
        representable(result, **kwargs)
        return result

    return checked


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple | np.ndarray):
        return ()
    try:
        return np.shape(value)
    except ValueError:  # ragged or too deep
        return ()


def broadcasting(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function check first that its array arguments broadcast with each other.

    Args:
        function: of keyword arguments.

    Returns:
        The function, checked.
    """

    @wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        together(**kwargs)
        return function(*args, **kwargs)

    return checked


def call(name: str, value: Any) -> Callable[..., Any]:
    """Check that an argument can be called.

    Args:
        name: the argument's name, for the message.
        value: what was given.

    Returns:
        The function.

    Raises:
        TypeError: if it cannot.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {name}={short(value)}")
    return value


def freeze(**fields: Any) -> None:
    """Check that the fields of a record are arrays, and make them read-only.

    Args:
        **fields: the fields by name.

    Raises:
        TypeError: if one is no array.
    """
    for name, value in fields.items():
        instance(name, value, np.ndarray, "an array")
        value.flags.writeable = False
