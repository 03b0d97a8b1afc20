"""Input checks: every error names the argument and echoes its value."""

import math
from collections.abc import Collection

import torch
from torch import Tensor


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
    number = _real(name, value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {name}={value!r}")
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
    number = _real(name, value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_ok):
        bound = "non-negative" if zero_ok else "positive"
        raise ValueError(f"{name} must be {bound} and finite, got {name}={value!r}")
    return number


def check_count(name: str, value: int, *, minimum: int = 1) -> int:
    """Return `value` if it is an integer of at least `minimum`.

    Args:
        name: Name of the argument, for the message.
        value: An integer (a bool is not one here).
        minimum: Least allowed value.

    Returns:
        The value as a Python int.

    Raises:
        TypeError: If `value` is not an integer.
        ValueError: If `value` is below `minimum`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {name}={value!r}")
    count = value.__index__()
    if count < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {name}={value!r}")
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
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {allowed}, got {name}={value!r}")
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
        raise TypeError(f"{name} must be a torch.Generator or None, got {name}={value!r}")
    if value.device.type != "cpu":
        raise ValueError(
            f"{name} must be a CPU generator (masks are then the same on every device), "
            f"got {name} on {value.device}"
        )
    return value


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


def _real(name: str, value: float) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a real number, got {name}={value!r}")
    return float(value)
