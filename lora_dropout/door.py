"""The domains of arguments and settings: what a value must be is its annotated type.

A settings class checks its fields when it is made (`by_domain`), a public function its arguments
when it is called (`checked`). Behind these doors nothing is checked again: the code there calls
`unchecked(function)`, and makes what it knows to be valid by `trusted`. A check takes the name of
an argument and its value, and returns the value as a plain one; its error names the argument and
echoes the value: TypeError for another type, ValueError for a value outside the domain.
"""

import collections.abc
import dataclasses
import functools
import inspect
import math
import reprlib
import types
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

_P = ParamSpec("_P")
_R = TypeVar("_R")
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
    """Return `value` as a float if it is a probability."""
    number = check_real(name, value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {name}={short(value)}")
    return number


def check_positive(name: str, value: float, *, zero_ok: bool = False) -> float:
    """Return `value` as a float if it is finite and positive."""
    number = check_real(name, value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_ok):
        bound = "non-negative" if zero_ok else "positive"
        raise ValueError(f"{name} must be {bound} and finite, got {name}={short(value)}")
    return number


def check_count(name: str, value: int, *, minimum: int = 1, maximum: int = _LARGEST_INTEGER) -> int:
    """Return `value` if it is an integer of at least `minimum` and at most `maximum`."""
    if isinstance(value, bool | np.ndarray | Tensor) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {name}={short(value)}")
    count = value.__index__()
    if count < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {name}={short(value)}")
    if count > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {name}={short(value)}")
    return count


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {allowed}, got {name}={short(value)}")
    return value


def check_generator(name: str, value: torch.Generator | None) -> torch.Generator | None:
    """Return `value` if it is a CPU generator or None (the global one)."""
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
    """Return `value` if it is of a type."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, got {name}={short(value)}")
    return value


def check_callable(name: str, value: Callable[..., Any]) -> Callable[..., Any]:
    """Return `value` if it can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {name}={short(value)}")
    return value


def check_path(name: str, value: str | Path) -> Path:
    """Return `value` as a path."""
    check_type(name, value, (str, Path), "a text or a path")
    if not str(value) or "\0" in str(value):
        raise ValueError(f"{name} must be the name of a place, got {name}={short(value)}")
    return Path(value)


def check_device(name: str, value: str | torch.device) -> torch.device:
    """Return `value` as a device that is here."""
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
    """Return `value` if it is a dense tensor."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        raise TypeError(f"{name} must be a dense tensor, got {name}={short(value)}")
    if value.is_meta:
        raise ValueError(f"{name} must hold values, got {name}={short(value)}")
    if dims is not None and value.dim() != dims:
        raise ValueError(f"{name} must have {dims} dimensions, got {name}={short(value)}")
    return value


def check_numbers(name: str, value: Tensor, *, dims: int | None = None) -> Tensor:
    """Return `value` if it is a tensor of real numbers, none of them NaN."""
    check_tensor(name, value, dims=dims)
    if not value.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, got {name}={short(value)}")
    if value.numel() == 0 or value.isnan().any():
        what = "NaN in " if value.numel() else "empty "
        raise ValueError(f"{name} must hold numbers, got {what}{name}={short(value)}")
    return value


def check_array(name: str, value: ArrayLike, *, dims: int = 1) -> NDArray[np.float64]:
    """Return `value` as an array of real numbers whose squares can be summed."""
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
    """Return `value` as a tuple if all of it is of a type."""
    ok = isinstance(value, list | tuple | range) and all(isinstance(item, kind) for item in value)
    if not ok:
        names = kind.__name__ if isinstance(kind, type) else "/".join(k.__name__ for k in kind)
        raise TypeError(f"{name} must be a sequence of {names}, got {name}={short(value)}")
    return tuple(value)


def check_indices(name: str, value: Sequence[int], n: int) -> list[int]:
    """Return `value` as a list if all of it are indices."""
    if isinstance(value, np.ndarray | Tensor) and value.ndim == 1:
        value = value.tolist()
    given = check_sequence(name, value, object)
    chosen = [check_count(name, index, minimum=0) for index in given]
    if not chosen or max(chosen) >= n:
        raise ValueError(f"{name} must be indices in [0, {n}), got {name}={short(list(given))}")
    return chosen


def check_same_device(**tensors: Tensor) -> None:
    """Check that all tensors live on one device."""
    if len({tensor.device for tensor in tensors.values()}) > 1:
        places = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"all tensors must be on one device, got {places}")


def check_real(name: str, value: float) -> float:
    """Return `value` as a float if it is one real number."""
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


def check_confidence(name: str, value: float) -> float:
    """Return `value` as a float if it lies strictly between 0 and 1."""
    number = check_real(name, value)
    if not 0.0 < number < 1.0:
        raise ValueError(f"{name} must be in (0, 1), got {name}={short(value)}")
    return number


Real = Annotated[float, check_real]
Probability = Annotated[float, check_probability]
Confidence = Annotated[float, check_confidence]
Positive = Annotated[float, check_positive]
NonNegative = Annotated[float, partial(check_positive, zero_ok=True)]
Count = Annotated[int, check_count]
Natural = Annotated[int, partial(check_count, minimum=0)]
Dense = Annotated[Tensor, check_tensor]
Held = Annotated[int, partial(check_count, maximum=MOST)]  # a number of things held in memory

_NAMES: dict[Any, str] = {
    nn.Module: "a torch module",
    bool: "a bool",
    str: "a text",
    Tensor: "a dense tensor",
}


def domain(hint: Any) -> Callable[[str, Any], Any] | None:
    """The check of an annotated type; None where the type says nothing."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next((part for part in parts[1:] if callable(part)), None)
    if origin is Literal:
        return partial(check_choice, choices=parts)
    if origin in (Union, types.UnionType) and type(None) in parts:
        inner = domain(Union[tuple(part for part in parts if part is not type(None))])  # noqa: UP007
        return inner and (lambda name, value: None if value is None else inner(name, value))
    if hint == str | Path:
        return check_path
    if origin is collections.abc.Callable:
        return check_callable
    if hint is torch.Generator:
        return check_generator
    if hint in _NAMES or getattr(hint, "__module__", "").startswith("lora_dropout."):
        article = "an" if hint.__name__[0] in "AEIOU" else "a"
        what = _NAMES.get(hint, getattr(hint, "WHAT", f"{article} {hint.__name__}"))
        return partial(check_type, kind=hint, what=what)
    return None


def by_domain(cls: type, fields: list[Any]) -> list[Any]:
    """The hook of attrs for settings: a field's converter is the check of its type.

    Fields stand in the order in which the class and its bases name them first, as in a dataclass,
    and `dataclasses.replace`, `asdict` and `fields` take the class for one.
    """
    bases = [vars(base).get("__annotations__", {}) for base in reversed(cls.__mro__)]
    order = list(dict.fromkeys(name for names in bases for name in names))
    made = []
    for field in sorted(fields, key=lambda field: order.index(field.name)):
        check = domain(field.type)
        made.append(field.evolve(converter=check and _converter(check)))
    cls.__dataclass_fields__ = dataclasses.make_dataclass(  # type: ignore[attr-defined]
        cls.__name__,
        [
            (
                f.name,
                f.type,
                dataclasses.field(**({} if f.default is attrs.NOTHING else {"default": f.default})),
            )
            for f in made
        ],
        kw_only=True,
    ).__dataclass_fields__
    return made


def _converter(check: Callable[[str, Any], Any]) -> Any:
    return attrs.Converter(lambda value, field: check(field.name, value), takes_field=True)


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A public door: the arguments given are checked by their annotations, then `function` runs."""
    signature = inspect.signature(function)

    @functools.cache
    def domains() -> dict[str, Callable[[str, Any], Any]]:
        hints = get_type_hints(function, include_extras=True)
        return {n: check for n in signature.parameters if (check := domain(hints.get(n)))}

    @functools.wraps(function)
    def door(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # whose own message is better
        for name, check in domains().items():
            if name in given.arguments:
                given.arguments[name] = check(name, given.arguments[name])
        return function(*given.args, **given.kwargs)

    return door


def unchecked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """What is behind a door, for arguments that are known to be valid."""
    return getattr(function, "__wrapped__", function)


def trusted(cls: type[_R], **fields: Any) -> _R:
    """An object of all its fields, known to be valid."""
    made = object.__new__(cls)
    made.__dict__.update(fields)
    return made


def made(cls: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """An object of a class whose `__init__` is a door, of arguments that are known to be valid."""
    kind: Any = cls
    new = object.__new__(kind)
    unchecked(kind.__init__)(new, *args, **kwargs)
    return new
