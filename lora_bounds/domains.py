"""The domain of an argument is its annotated type; it is checked once, at the public door.

A formula is written for arguments that are in order. `checked`, `formula` and `exact` (and `bound`
of `lora_bounds.results`) put a door before it, which reads the annotations: it checks each argument
in the order of the signature and hands numbers on as arrays of doubles, or as floats where the
domain is of one number. Inside the package formulas call each other past the door, by `unchecked`.
Messages name the argument and echo its value.

>>> @formula
... def failures(*, n: Size, delta: Probability) -> Array:
...     return n * delta
>>> failures(n=[10, 20], delta=0.1)
array([1., 2.])
>>> failures(n=10, delta=2)
Traceback (most recent call last):
...
ValueError: delta must be in [0, 1], got delta=2.0
"""

import inspect
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, is_dataclass
from functools import wraps
from types import NoneType
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    ParamSpec,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_bounds.rounding import Array, plain, quiet

_P = ParamSpec("_P")
_R = TypeVar("_R")

_LONGEST = 80
_MOST_AXES = 16  # numpy's own limits are 32 in some places and 64 in others
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


@dataclass
class Call:
    """What the door has seen of one call: the arguments in order, and the sizes they share."""

    arguments: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def same(self, label: str, size: int) -> int:
        """Returns the size that goes by a label, which is this one if none does yet."""
        return self.sizes.setdefault(label, size) if label else size


class Domain:
    """A set of values. Calling it returns a value in the form that formulas take, or raises."""

    def __call__(self, name: str, value: Any, call: Call | None = None) -> Any:
        """Returns the value of the argument called ``name``."""
        return self._read(name, value, call or Call())

    def _read(self, name: str, value: Any, call: Call) -> Any:
        raise NotImplementedError


class Reals(Domain):
    """Numbers of an interval such as ``"[0, 1)"``, in any shape; ``"[0, inf]"`` admits infinity."""

    def __init__(self, interval: str = "(-inf, inf)") -> None:
        low, high = interval[1:-1].split(",")
        self.interval, self.low, self.high = interval, float(low), float(high)
        self.closed = interval[0] == "[", interval[-1] == "]"

    def _read(self, name: str, value: ArrayLike, call: Call) -> Any:
        raw = _raw(value)
        if raw is None or raw.dtype.kind not in "iuf":
            raise TypeError(f"{name} must hold real numbers, got {name}={short(value)}")
        if raw.ndim > _MOST_AXES:
            raise ValueError(f"{name} must have at most {_MOST_AXES} axes, got {raw.ndim} axes")
        array = _doubles(raw)
        inside = (array >= self.low) if self.closed[0] else (array > self.low)
        inside &= (array <= self.high) if self.closed[1] else (array < self.high)
        if not inside.all():  # NaN is inside no interval
            _fail(name, f"in {self.interval}", array, ~inside)
        return array


class Stacked(Reals):
    """Numbers with one axis more, of their own, than what broadcasts with the other arguments."""


class Wholes(Reals):
    """Whole numbers from ``least`` on, as integers or as floats (``1e12`` will do)."""

    def __init__(self, least: int) -> None:
        super().__init__(f"[{least}, inf)")

    def _read(self, name: str, value: ArrayLike, call: Call) -> Any:
        array = super()._read(name, value, call)
        whole = array == np.floor(array)
        if not whole.all():
            _fail(name, "a whole number", array, ~whole)
        return array


class Real(Reals):
    """One number of an interval."""

    def _read(self, name: str, value: ArrayLike, call: Call) -> Any:
        array = super()._read(name, value, call)
        if array.ndim:
            raise ValueError(f"{name} must be one number, got {name} of shape {array.shape}")
        return float(array)


class Whole(Real):
    """One whole number, from ``least`` to ``most``."""

    def __init__(self, least: int = 1, most: int | None = None) -> None:
        super().__init__(f"[{least}, inf)" if most is None else f"[{least}, {most}]")

    def _read(self, name: str, value: ArrayLike, call: Call) -> Any:
        found = super()._read(name, value, call)
        if found != int(found):
            raise ValueError(f"{name} must be a whole number, got {name}={found!r}")
        return int(found)


class AtMost(Domain):
    """Nowhere above another argument; this is looked at when each is in order by itself."""

    def __init__(self, other: str) -> None:
        self.other = other

    def _read(self, name: str, value: Any, call: Call) -> Any:
        below = np.asarray(value <= call.arguments[self.other])
        if not below.all():
            _fail(name, f"at most {self.other}", np.broadcast_to(value, below.shape), ~below)
        return value


class Matrix(Domain):
    """One matrix of finite numbers; a size of one name is the same throughout a call."""

    def __init__(self, rows: str = "", columns: str = "") -> None:
        self.rows, self.columns = rows, columns

    def _read(self, name: str, value: ArrayLike, call: Call) -> Any:
        array = _REAL(name, value)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"{name} must be a matrix, got {name} of shape {array.shape}")
        wanted = call.same(self.columns, array.shape[1])
        if wanted != array.shape[1]:
            raise ValueError(
                f"{name} must have {wanted} columns, got {name} of shape {array.shape}"
            )
        call.same(self.rows, array.shape[0])
        return array


class Vector(Domain):
    """One vector of finite numbers, each in an interval."""

    def __init__(self, size: str = "", interval: str = "(-inf, inf)") -> None:
        self.size, self.entries = size, Reals(interval)

    def _read(self, name: str, value: ArrayLike, call: Call) -> Any:
        array = _REAL(name, value)
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"{name} must be a vector, got {name} of shape {array.shape}")
        wanted = call.same(self.size, array.size)
        if wanted != array.size:
            raise ValueError(
                f"{name} must have {wanted} entries, got {name} of shape {array.shape}"
            )
        return self.entries(name, array)


class SecondMoment(Matrix):
    """A matrix E[x xᵀ]: symmetric and positive semidefinite; it is made exactly symmetric.

    >>> SecondMoment()("Sigma", [[1.0, 2.0], [2.0, 1.0]])
    Traceback (most recent call last):
    ...
    ValueError: Sigma must be positive semidefinite, got least eigenvalue -1.0
    """

    def __init__(self, size: str = "") -> None:
        super().__init__(columns=size)

    def _read(self, name: str, value: ArrayLike, call: Call) -> Any:
        array = super()._read(name, value, call)
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
            raise ValueError(
                f"{name} must be positive semidefinite, got least eigenvalue {least!r}"
            )
        return array


class Signs(Domain):
    """Numbers of another domain, each of them -1 or 1."""

    def __init__(self, kind: Domain) -> None:
        self.kind = kind

    def _read(self, name: str, value: Any, call: Call) -> Any:
        array = self.kind(name, value, call)
        if not np.all(np.abs(array) == 1.0):
            raise ValueError(f"{name} must be -1 or 1, got {name}={short(value)}")
        return array


class Words(Domain):
    """One of a few words: the domain of every ``Literal``."""

    def __init__(self, *options: str) -> None:
        self.options = options

    def _read(self, name: str, value: Any, call: Call) -> Any:
        if not isinstance(value, str) or value not in self.options:
            options = ", ".join(self.options)
            raise ValueError(f"{name} must be one of {options}; got {name}={short(value)}")
        return value


class Is(Domain):
    """Objects of a type, the domain of every class; ``what`` calls it, article included."""

    def __init__(self, kind: type, what: str | None = None) -> None:
        self.kind, self.what = kind, what or f"a {kind.__name__}"

    def _read(self, name: str, value: Any, call: Call) -> Any:
        if not isinstance(value, self.kind):
            raise TypeError(f"{name} must be {self.what}, got {name}={short(value)}")
        return value


class Each(Domain):
    """Lists and tuples of objects of a type; they become tuples."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def _read(self, name: str, value: Any, call: Call) -> Any:
        listed = tuple(value) if isinstance(value, list | tuple) else None
        if listed is None or not all(isinstance(item, self.kind) for item in listed):
            kind = self.kind.__name__
            raise TypeError(f"{name} must be a sequence of {kind}, got {name}={short(value)}")
        return listed


class Seeds(Domain):
    """What can seed a generator."""

    def _read(self, name: str, value: Any, call: Call) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {name}={short(value)}")
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {name}={short(value)}")
        return int(value)


_REAL = Reals()

# Arrays. To a type checker they are Any: callers give whatever numpy reads, the formula has an
# array of doubles.
Number: TypeAlias = Annotated[Any, _REAL]
NonNegative: TypeAlias = Annotated[Any, Reals("[0, inf)")]
Positive: TypeAlias = Annotated[Any, Reals("(0, inf)")]
Extended: TypeAlias = Annotated[Any, Reals("[0, inf]")]  # infinity is a limit that formulas know
Probability: TypeAlias = Annotated[Any, Reals("[0, 1]")]
Rate: TypeAlias = Annotated[Any, Reals("[0, 1]")]
Size: TypeAlias = Annotated[Any, Wholes(1)]
Count: TypeAlias = Annotated[Any, Wholes(0)]
Risk: TypeAlias = Annotated[Any, Reals("[0, inf)"), AtMost("loss_range")]

# One number.
OneNonNegative: TypeAlias = Annotated[float, Real("[0, inf)")]
OnePositive: TypeAlias = Annotated[float, Real("(0, inf)")]
OneRate: TypeAlias = Annotated[float, Real("[0, 1]")]
OneSize: TypeAlias = Annotated[int, Whole(1)]
Inputs: TypeAlias = Annotated[Any, Matrix("n", "d")]
Center: TypeAlias = Annotated[Any, Vector("d")] | None
Repetitions: TypeAlias = Annotated[int, Whole(1, 10**9)]  # of what takes time or memory
Seed: TypeAlias = Annotated[int, Seeds()]


def _raw(value: ArrayLike) -> NDArray[np.generic] | None:
    # None for lists of uneven lengths or too deep, and for arrays of which a part is masked out.
    if isinstance(value, int) and not -(2**63) <= value < 2**64:  # beyond numpy's own integers
        try:
            value = float(value)
        except OverflowError:
            return None
    try:
        raw: NDArray[np.generic] = np.asarray(value)
    except (ValueError, TypeError):
        return None
    return None if isinstance(value, np.ma.MaskedArray) else raw


def _doubles(raw: NDArray[np.generic]) -> Array:
    if raw.dtype != np.longdouble:
        return np.array(raw, dtype=np.float64)
    with np.errstate(over="ignore"):  # a long double may be beyond the largest double
        return np.array(raw, dtype=np.float64)


def _fail(name: str, what: str, array: Array, bad: NDArray[np.bool_]) -> NoReturn:
    worst = array[bad][0] if array.ndim else array[()]
    raise ValueError(f"{name} must be {what}, got {name}={float(worst)!r}")


def together(**values: Any) -> None:
    """Check that those of the values that are arrays broadcast with each other.

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


def _shape(value: Any) -> tuple[int, ...]:
    # Of what is no array the domain will say so.
    if not isinstance(value, list | tuple | np.ndarray):
        return ()
    try:
        return np.shape(value)
    except ValueError:  # ragged or too deep
        return ()


def domains(function: Callable[..., Any]) -> dict[str, tuple[Domain, ...]]:
    """Returns the domains of each argument, as its annotation has them: none, one or several."""
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    return {
        name: _domains_of(hints.get(name, Any)) for name in inspect.signature(function).parameters
    }


def _domains_of(hint: Any) -> tuple[Domain, ...]:
    if get_origin(hint) is Annotated:
        return tuple(item for item in hint.__metadata__ if isinstance(item, Domain))
    if get_origin(hint) is Literal:
        return (Words(*get_args(hint)),)
    parts = [part for part in get_args(hint) if part is not NoneType]
    if len(parts) == 1 < len(get_args(hint)):  # it, or None
        return _domains_of(parts[0])
    ours = isinstance(hint, type) and hint.__module__.startswith("lora_bounds.")
    return (Is(hint),) if ours or hint is bool else ()


class _Door:
    """Admits the arguments of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = inspect.signature(function).parameters.values()
        found = [(name, domain) for name, many in domains(function).items() for domain in many]
        arrays = {name for name, d in found if isinstance(d, Reals) and not isinstance(d, Real)}
        self.function = function
        self.domains = sorted(found, key=lambda item: isinstance(item[1], AtMost))
        self.order = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self.known = {p.name for p in parameters}
        self.required = {p.name for p in parameters if p.default is p.empty}
        self.optional = {p.name for p in parameters if p.default is None}
        self.broadcasts = len(arrays) > 1 and not any(isinstance(d, Stacked) for _, d in found)

    def named(self, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
        return {**dict(zip(self.order, args, strict=False)), **given} if args else dict(given)

    def admit(self, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
        found = self.named(args, given)
        if self.broadcasts:
            together(**given)
        fits = len(found) == len(args) + len(given) and len(args) <= len(self.order)
        if not (fits and self.required <= found.keys() <= self.known):
            self.function(*args, **given)  # raises Python's own error
        call = Call(found)
        for name, domain in self.domains:
            if name in found and not (found[name] is None and name in self.optional):
                found[name] = domain(name, found[name], call)
        return found


class _BeyondFloatsError(ValueError):
    # Raised in a formula, told by the door: that knows what was given.
    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(f"{', '.join(names)} must be of a size for which floats suffice")
        self.names = tuple(names)


def opened(
    kernel: Callable[_P, Any], run: Callable[..., _R], returns: Any = None
) -> Callable[_P, _R]:
    """Put the door before a formula.

    Args:
        kernel: the formula, whose annotations say what is admitted.
        run: calls it with arguments in order and makes the result.
        returns: the type of the result, if it is not that of the formula.

    Returns:
        The function for everyone. `unchecked` and `kernel_of` find what is behind its door.

    Raises:
        ValueError: if floats do not suffice for the result, see `representable`.
    """
    door = _Door(kernel)

    @wraps(kernel)
    def public(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return run(**door.admit(args, kwargs))
        except _BeyondFloatsError as error:
            given = door.named(args, kwargs)
            shown = ", ".join(f"{name}={_extent(given.get(name))}" for name in error.names)
            raise ValueError(f"{error}, got {shown}") from None

    if returns is not None:
        shown = inspect.signature(kernel).replace(return_annotation=returns)
        public.__signature__ = shown  # type: ignore[attr-defined]
    public.unchecked = run  # type: ignore[attr-defined]
    return public


def unchecked(function: Callable[..., _R]) -> Callable[..., _R]:
    """Returns what is behind the door of `function`; it takes arrays, and floats for one number."""
    return function.unchecked  # type: ignore[attr-defined]


def kernel_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the bare formula behind a door, for use within another formula."""
    return function.__wrapped__  # type: ignore[attr-defined]


def checked(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """Check the arguments of a function by their annotations.

    Returns:
        The function for everyone. An array of no dimension comes out as a float.
    """

    def run(**arguments: Any) -> _R:
        return _lone(kernel(**arguments))  # type: ignore[call-arg]

    return opened(kernel, run)


def formula(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """Returns what `checked` does, for a formula that runs into its limits without a warning."""

    def run(**arguments: Any) -> _R:
        with quiet():
            return _lone(kernel(**arguments))  # type: ignore[call-arg]

    return opened(kernel, run)


def _lone(found: Any) -> Any:
    return plain(np.asarray(found)) if isinstance(found, np.ndarray | np.floating) else found


def exact(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """Returns what `formula` does, for results that are finite or else an error."""

    def run(**arguments: Any) -> _R:
        try:
            with quiet():
                result = kernel(**arguments)  # type: ignore[call-arg]
        except (np.linalg.LinAlgError, OverflowError):
            raise _BeyondFloatsError(arguments) from None
        representable(result, *arguments)
        return result

    return opened(kernel, run)


def representable(result: Any, *names: str) -> None:
    """Check, in a formula, that floats sufficed for what was computed from these arguments.

    Raises:
        _BeyondFloatsError: a ValueError, if a number of the result is infinite or none.
    """
    if not _finite(result):
        raise _BeyondFloatsError(names)


def _extent(value: Any) -> str:
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


def freeze(**fields: Any) -> None:
    """Check that the fields of a record are arrays, and make them read-only."""
    for name, value in fields.items():
        Is(np.ndarray, "an array")(name, value).flags.writeable = False
