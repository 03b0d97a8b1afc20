"""Input checks: every error names the argument and echoes its value."""

import math
import reprlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_T = TypeVar("_T")
_LARGEST_INTEGER = 2**63 - 1
MOST = 10**9  # the greatest number of anything that must be held in memory
_LARGEST = 1e150
_LONGEST = 80
_BRIEF = reprlib.Repr()
_BRIEF.maxother = _BRIEF.maxstring = _BRIEF.maxlong = _LONGEST


def short(value: Any) -> str:
    """Show any value in at most 80 characters; a tensor by its shape, type and device.

    Args:
        value: Anything, an object without a usable repr among them.

    Returns:
        One line.

    >>> short(torch.zeros(2, 3)), short("x" * 1000)[:9]
    ('float32 tensor of shape (2, 3) on cpu', "'xxxxxxxx")
    """
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} tensor of shape {tuple(value.shape)} on {value.device}"
    if getattr(value, "shape", None):  # an array
        return f"{type(value).__name__} of shape {value.shape}"
    try:
        text = _BRIEF.repr(value)
    except Exception:  # an int of more than 4300 digits, say
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def check_probability(name: str, value: float) -> float:
    """Return `value` as a float if it is a probability.

    Args:
        name: Name of the argument, for the message.
        value: A real number, allowed range [0, 1] with both ends.

    Returns:
        The value as a Python float.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If `value` is NaN or outside [0, 1].
    """
    number = check_real(name, value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {name}={short(value)}")
    return number


def check_positive(name: str, value: float, *, zero_ok: bool = False) -> float:
    """Return `value` as a float if it is finite and positive.

    Args:
        name: Name of the argument, for the message.
        value: A real number.
        zero_ok: Whether 0 is allowed too.

    Returns:
        The value as a Python float.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If `value` is not finite, or negative, or 0 where that is not allowed.
    """
    number = check_real(name, value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_ok):
        bound = "non-negative" if zero_ok else "positive"
        raise ValueError(f"{name} must be {bound} and finite, got {name}={short(value)}")
    return number


def check_count(name: str, value: int, *, minimum: int = 1, maximum: int = _LARGEST_INTEGER) -> int:
    """Return `value` if it is an integer of at least `minimum` and at most `maximum`.

    Args:
        name: Name of the argument, for the message.
        value: An integer (a bool is not one here).
        minimum: Least allowed value.
        maximum: Greatest allowed value; torch takes none beyond the default.

    Returns:
        The value as a Python int.

    Raises:
        TypeError: If `value` is not an integer.
        ValueError: If `value` is below `minimum` or above `maximum`.
    """
    if isinstance(value, bool | np.ndarray | Tensor) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {name}={short(value)}")
    count = value.__index__()
    if count < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {name}={short(value)}")
    if count > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {name}={short(value)}")
    return count


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`.

    Args:
        name: Name of the argument, for the message.
        value: The choice.
        choices: What is allowed.

    Returns:
        The value.

    Raises:
        ValueError: If `value` is none of `choices`.
    """
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {allowed}, got {name}={short(value)}")
    return value


def check_generator(name: str, value: torch.Generator | None) -> torch.Generator | None:
    """Return `value` if it is a CPU generator or None (the global one).

    A CUDA generator of the same seed gives other numbers, so accepting one would break
    "the same seed gives the same masks on every device".

    Args:
        name: Name of the argument, for the message.
        value: The generator.

    Returns:
        The generator.

    Raises:
        TypeError: If `value` is no generator.
        ValueError: If the generator does not live on the CPU.
    """
    if value is None:
        return None
    if not isinstance(value, torch.Generator):
        raise TypeError(f"{name} must be a torch.Generator or None, got {name}={short(value)}")
    if value.device.type != "cpu":
        raise ValueError(
            f"{name} must be a CPU generator (masks are then the same on every device), "
            f"got {name} on {value.device}"
        )
    return value


def check_type(name: str, value: _T, kind: type | tuple[type, ...], what: str) -> _T:
    """Return `value` if it is of a type.

    Args:
        name: Name of the argument, for the message.
        value: Anything.
        kind: The type, or several.
        what: What to call it, article included.

    Returns:
        The value.

    Raises:
        TypeError: If it is of another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, got {name}={short(value)}")
    return value


def check_callable(name: str, value: Callable[..., Any]) -> None:
    """Check that `value` is a function.

    Args:
        name: Name of the argument, for the message.
        value: Anything.

    Raises:
        TypeError: If it cannot be called.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {name}={short(value)}")


def check_path(name: str, value: str | Path) -> Path:
    """Return `value` as a path.

    Args:
        name: Name of the argument, for the message.
        value: A text or path.

    Returns:
        The path, whether or not anything is there.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is empty, or holds a NUL, which no file system takes.
    """
    check_type(name, value, (str, Path), "a text or a path")
    if not str(value) or "\0" in str(value):
        raise ValueError(f"{name} must be the name of a place, got {name}={short(value)}")
    return Path(value)


def check_device(name: str, value: str | torch.device) -> torch.device:
    """Return `value` as a device that is here.

    Args:
        name: Name of the argument, for the message.
        value: A device, or its name.

    Returns:
        The device.

    Raises:
        TypeError: If it is neither.
        ValueError: If there is no such device, or none that computes.
    """
    check_type(name, value, (str, torch.device), "a device or its name")
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(f"{name} must be here, got {name}={short(value)}: {reason}") from error
    if device.type == "meta":
        raise ValueError(f"{name} must compute something, got {name}={short(value)}")
    return device


def check_tensor(name: str, value: Tensor, *, dims: int | None = None) -> Tensor:
    """Return `value` if it is a dense tensor.

    Args:
        name: Name of the argument, for the message.
        value: Anything.
        dims: The number of dimensions it must have, if that is settled.

    Returns:
        The tensor.

    Raises:
        TypeError: If it is no tensor, or sparse, nested or quantized.
        ValueError: If it has another number of dimensions.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        raise TypeError(f"{name} must be a dense tensor, got {name}={short(value)}")
    if value.is_meta:
        raise ValueError(f"{name} must hold values, got {name}={short(value)}")
    if dims is not None and value.dim() != dims:
        raise ValueError(f"{name} must have {dims} dimensions, got {name}={short(value)}")
    return value


def check_numbers(name: str, value: Tensor, *, dims: int | None = None) -> Tensor:
    """Return `value` if it is a tensor of real numbers, none of them NaN.

    Args:
        name: Name of the argument, for the message.
        value: Anything.
        dims: The number of dimensions it must have, if that is settled.

    Returns:
        The tensor.

    Raises:
        TypeError: If it is no dense tensor of floating-point numbers.
        ValueError: If it is empty or holds NaN.
    """
    check_tensor(name, value, dims=dims)
    if not value.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, got {name}={short(value)}")
    if value.numel() == 0 or value.isnan().any():
        what = "NaN in " if value.numel() else "empty "
        raise ValueError(f"{name} must hold numbers, got {what}{name}={short(value)}")
    return value


def check_array(name: str, value: ArrayLike, *, dims: int = 1) -> NDArray[np.float64]:
    """Return `value` as an array of real numbers whose squares can be summed.

    Args:
        name: Name of the argument, for the message.
        value: Anything that numpy takes for an array.
        dims: The number of dimensions it must have.

    Returns:
        Finite numbers of at most 1e150 in size, not empty, float64.

    Raises:
        TypeError: If it holds anything but real numbers.
        ValueError: If it has another number of dimensions, is empty, or a number is not such.
    """
    if isinstance(value, Tensor):
        value = check_tensor(name, value).detach().cpu()
    try:
        raw = None if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
    except (ValueError, TypeError):  # lists of uneven lengths or too deep, types without a like
        raw = None
    if raw is None or raw.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got {name}={short(value)}")
    if raw.ndim != dims or raw.size == 0:
        what = {1: "a vector", 2: "a matrix"}.get(dims, f"an array of {dims} axes")
        raise ValueError(f"{name} must be {what} of numbers, got shape {raw.shape}")
    with np.errstate(over="ignore"):
        array = np.array(raw, dtype=np.float64)
    bad = ~(np.abs(array) <= _LARGEST)
    if bad.any():
        raise ValueError(
            f"{name} must be finite and at most {_LARGEST:g} in size, "
            f"got {float(array[bad][0])!r} among them"
        )
    return array


def check_sequence(name: str, value: Sequence[_T], kind: type | tuple[type, ...]) -> tuple[_T, ...]:
    """Return `value` as a tuple if all of it is of a type.

    Args:
        name: Name of the argument, for the message.
        value: A list, tuple or range.
        kind: The type of what it holds, or several.

    Returns:
        The tuple.

    Raises:
        TypeError: If it is of another type or holds something else.
    """
    ok = isinstance(value, list | tuple | range) and all(isinstance(item, kind) for item in value)
    if not ok:
        names = kind.__name__ if isinstance(kind, type) else "/".join(k.__name__ for k in kind)
        raise TypeError(f"{name} must be a sequence of {names}, got {name}={short(value)}")
    return tuple(value)


def check_indices(name: str, value: Sequence[int], n: int) -> list[int]:
    """Return `value` as a list if all of it are indices.

    Args:
        name: Name of the argument, for the message.
        value: A list, tuple, range or vector of integers, not empty.
        n: Number of what is indexed.

    Returns:
        The indices.

    Raises:
        TypeError: If it is no such sequence.
        ValueError: If it is empty or an index is not in [0, n).
    """
    if isinstance(value, np.ndarray | Tensor) and value.ndim == 1:
        value = value.tolist()
    given = check_sequence(name, value, object)
    chosen = [check_count(name, index, minimum=0) for index in given]
    if not chosen or max(chosen) >= n:
        raise ValueError(f"{name} must be indices in [0, {n}), got {name}={short(list(given))}")
    return chosen


def check_same_device(**tensors: Tensor) -> None:
    """Check that all tensors live on one device.

    Args:
        **tensors: Tensors by argument name.

    Raises:
        ValueError: If two devices are found; the message gives each tensor's.
    """
    if len({tensor.device for tensor in tensors.values()}) > 1:
        places = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"all tensors must be on one device, got {places}")


def check_real(name: str, value: float) -> float:
    """Return `value` as a float if it is one real number.

    Args:
        name: Name of the argument, for the message.
        value: A number, or an array or tensor of one.

    Returns:
        The value as a Python float; NaN and the infinities pass.

    Raises:
        TypeError: If `value` is not one real number.
        ValueError: If it is an integer beyond the range of floats.
    """
    shown = f"got {name}={short(value)}"
    complex_ = isinstance(value, Tensor) and value.is_complex()
    complex_ = complex_ or isinstance(value, np.complexfloating)
    truth = isinstance(value, bool | np.bool_) or (
        isinstance(value, Tensor) and value.dtype == torch.bool
    )
    if truth or complex_ or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a real number, {shown}")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # an array or a tensor of several numbers
        raise TypeError(f"{name} must be a real number, {shown}") from None
    except OverflowError:
        raise ValueError(f"{name} must be a number of usual size, {shown}") from None
