"""The domain of an argument is its annotated type; it is checked once, at the public door.

A formula is written for arguments that are in order. `formula` (and `exact`, and `bound` of
`lora_bounds.results`) put a door before it, which reads the annotations: it checks each argument in
the order of the signature and hands numbers on as arrays of doubles, or as floats where the domain
is of one number. Inside the package formulas call each other past the door, by `unchecked`.
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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
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
_T = TypeVar("_T")

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


class Domain:
    """A set of values; the `check` of one reads, and may bind, the sizes that several share."""

    def check(self, name: str, value: Any, seen: Mapping[str, Any], sizes: dict[str, int]) -> Any:
        """Returns the value in the form that formulas take."""
        return self(name, value)

    def __call__(self, name: str, value: Any) -> Any:
        """Returns the value in the form that formulas take, by itself."""
        return self.check(name, value, {}, {})


class Reals(Domain):
    """Numbers of an interval such as ``"[0, 1)"``, in any shape; ``"[0, inf]"`` admits infinity."""

    def __init__(self, interval: str = "(-inf, inf)") -> None:
        low, high = interval[1:-1].split(",")
        self.interval, self.low, self.high = interval, float(low), float(high)
        self.closed = interval[0] == "[", interval[-1] == "]"

    def __repr__(self) -> str:
        return self.interval

    def __call__(self, name: str, value: ArrayLike) -> Array:
        """Returns an array of floats that shares no memory with the value.

        Raises:
            TypeError: if it holds anything but real numbers.
            ValueError: if it has more than 16 axes, or a number is outside.
        """
        raw = _raw(value)
        if raw is None or raw.dtype.kind not in "iuf":
            raise TypeError(f"{name} must hold real numbers, got {name}={short(value)}")
        if raw.ndim > _MOST_AXES:
            raise ValueError(f"{name} must have at most {_MOST_AXES} axes, got {raw.ndim} axes")
        if raw.dtype == np.longdouble:  # which may be beyond the largest double
            with np.errstate(over="ignore"):
                array = np.array(raw, dtype=np.float64)
        else:
            array = np.array(raw, dtype=np.float64)
        inside = (array >= self.low) if self.closed[0] else (array > self.low)
        inside &= (array <= self.high) if self.closed[1] else (array < self.high)
        if not inside.all():  # NaN is inside no interval
            _fail(name, f"in {self.interval}", array, ~inside)
        return array


class Stacked(Reals):
    """Numbers with one more axis, at the end, than what the other arguments broadcast with."""


class Wholes(Reals):
    """Whole numbers from ``least`` on, as integers or as floats (``1e12`` will do)."""

    def __init__(self, least: int) -> None:
        super().__init__(f"[{least}, inf)")

    def __call__(self, name: str, value: ArrayLike) -> Array:
        """Returns an array of floats."""
        array = super().__call__(name, value)
        whole = array == np.floor(array)
        if not whole.all():
            _fail(name, "a whole number", array, ~whole)
        return array


class Real(Reals):
    """One number of an interval."""

    def __call__(self, name: str, value: ArrayLike) -> float:  # type: ignore[override]
        """Returns a float.

        Raises:
            ValueError: if there are several, or it is outside.
        """
        array = super().__call__(name, value)
        if array.ndim:
            raise ValueError(f"{name} must be one number, got {name} of shape {array.shape}")
        return float(array)


class Whole(Real):
    """One whole number, from ``least`` to ``most``."""

    def __init__(self, least: int = 1, most: int | None = None) -> None:
        super().__init__(f"[{least}, inf)" if most is None else f"[{least}, {most}]")

    def __call__(self, name: str, value: ArrayLike) -> int:
        """Returns an int.

        Raises:
            ValueError: if it is not such a number.
        """
        found = super().__call__(name, value)
        if found != int(found):
            raise ValueError(f"{name} must be a whole number, got {name}={found!r}")
        return int(found)


class AtMost(Domain):
    """Nowhere above another argument; this is looked at when each is in order by itself."""

    def __init__(self, other: str) -> None:
        self.other = other

    def check(self, name: str, value: Any, seen: Mapping[str, Any], sizes: dict[str, int]) -> Any:
        """Returns the value."""
        below = np.asarray(value <= seen[self.other])
        if not below.all():
            wide = np.broadcast_to(value, below.shape)
            _fail(name, f"at most {self.other}", wide, ~below)
        return value


class Matrix(Domain):
    """One matrix of finite numbers; a size of the same name is the same throughout a call."""

    def __init__(self, rows: str = "", columns: str = "") -> None:
        self.rows, self.columns = rows, columns

    def check(self, name: str, value: Any, seen: Mapping[str, Any], sizes: dict[str, int]) -> Array:
        """Returns an array of floats, of two dimensions.

        Raises:
            ValueError: if it is no matrix, is empty, or has another width than it must.
        """
        array = _REAL(name, value)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"{name} must be a matrix, got {name} of shape {array.shape}")
        columns = _same(self.columns, array.shape[1], sizes)
        if columns != array.shape[1]:
            raise ValueError(
                f"{name} must have {columns} columns, got {name} of shape {array.shape}"
            )
        _same(self.rows, array.shape[0], sizes)
        return array


class Vector(Domain):
    """One vector of finite numbers, each in an interval."""

    def __init__(self, size: str = "", interval: str = "(-inf, inf)") -> None:
        self.size, self.entries = size, Reals(interval)

    def check(self, name: str, value: Any, seen: Mapping[str, Any], sizes: dict[str, int]) -> Array:
        """Returns an array of floats, of one dimension.

        Raises:
            ValueError: if it is no vector, is empty, or has another length than it must.
        """
        array = _REAL(name, value)
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"{name} must be a vector, got {name} of shape {array.shape}")
        size = _same(self.size, array.size, sizes)
        if size != array.size:
            raise ValueError(f"{name} must have {size} entries, got {name} of shape {array.shape}")
        return self.entries(name, array)


class SecondMoment(Matrix):
    """A matrix E[x xᵀ]: symmetric and positive semidefinite."""

    def __init__(self, size: str = "") -> None:
        super().__init__(columns=size)

    def check(self, name: str, value: Any, seen: Mapping[str, Any], sizes: dict[str, int]) -> Array:
        """Returns the matrix, made exactly symmetric.

        Raises:
            ValueError: if it is not square, not symmetric or has a negative eigenvalue.

        >>> SecondMoment()("Sigma", [[1.0, 2.0], [2.0, 1.0]])
        Traceback (most recent call last):
        ...
        ValueError: Sigma must be positive semidefinite, got least eigenvalue -1.0
        """
        array = super().check(name, value, seen, sizes)
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

    def check(self, name: str, value: Any, seen: Mapping[str, Any], sizes: dict[str, int]) -> Array:
        """Returns an array of floats.

        Raises:
            ValueError: if there are others.
        """
        array: Array = self.kind.check(name, value, seen, sizes)
        if not np.all(np.abs(array) == 1.0):
            raise ValueError(f"{name} must be -1 or 1, got {name}={short(value)}")
        return array


class PositiveDefinite(SecondMoment):
    """A matrix E[x xᵀ] that has an inverse."""

    def check(self, name: str, value: Any, seen: Mapping[str, Any], sizes: dict[str, int]) -> Array:
        """Returns the matrix, made exactly symmetric.

        Raises:
            ValueError: if it is singular.
        """
        array = super().check(name, value, seen, sizes)
        try:
            np.linalg.cholesky(array)
        except np.linalg.LinAlgError:
            raise ValueError(f"{name} must be positive definite, got {short(value)}") from None
        return array


class Words(Domain):
    """One of a few words: the domain of every ``Literal``."""

    def __init__(self, *options: str) -> None:
        self.options = options

    def __call__(self, name: str, value: Any) -> Any:
        """Returns the word.

        Raises:
            ValueError: if it is none of them.
        """
        if not isinstance(value, str) or value not in self.options:
            options = ", ".join(self.options)
            raise ValueError(f"{name} must be one of {options}; got {name}={short(value)}")
        return value


class Is(Domain):
    """Objects of a type, the domain of every class; ``what`` calls it, article included."""

    def __init__(self, kind: type, what: str | None = None) -> None:
        self.kind, self.what = kind, what or f"a {kind.__name__}"

    def __call__(self, name: str, value: Any) -> Any:
        """Returns the object.

        Raises:
            TypeError: if it is of another type.
        """
        if not isinstance(value, self.kind):
            raise TypeError(f"{name} must be {self.what}, got {name}={short(value)}")
        return value


class Each(Domain):
    """Lists and tuples of objects of a type."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __call__(self, name: str, value: Any) -> tuple[Any, ...]:
        """Returns the objects.

        Raises:
            TypeError: if there are others, or if they do not come as a list or the like.
        """
        listed = tuple(value) if isinstance(value, list | tuple) else None
        if listed is None or not all(isinstance(item, self.kind) for item in listed):
            kind = self.kind.__name__
            raise TypeError(f"{name} must be a sequence of {kind}, got {name}={short(value)}")
        return listed


class Seeds(Domain):
    """What can seed a generator."""

    def __call__(self, name: str, value: Any) -> int:
        """Returns an int.

        Raises:
            TypeError: if it is no integer.
            ValueError: if it is negative.
        """
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {name}={short(value)}")
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {name}={short(value)}")
        return int(value)


_REAL = Reals()

# Arrays of any shape. To a type checker they are Any: callers give whatever numpy reads, the
# formula has an array of doubles.
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
Inputs: TypeAlias = Annotated[Array, Matrix("n", "d")]
Center: TypeAlias = Annotated[Array, Vector("d")] | None
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


def _fail(name: str, what: str, array: Array, bad: NDArray[np.bool_]) -> NoReturn:
    worst = array[bad][0] if array.ndim else array[()]
    raise ValueError(f"{name} must be {what}, got {name}={float(worst)!r}")


def _same(label: str, size: int, sizes: dict[str, int]) -> int:
    return sizes.setdefault(label, size) if label else size


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
    shapes = {}
    for name, value in values.items():
        if isinstance(value, list | tuple | np.ndarray):
            try:
                shapes[name] = np.shape(value)
            except ValueError:  # ragged or too deep
                continue
    shapes = {name: shape for name, shape in shapes.items() if shape}
    if len(shapes) < 2:
        return
    try:
        np.broadcast_shapes(*shapes.values())
    except (ValueError, RuntimeError):  # RuntimeError: beyond 32 axes
        found = ", ".join(f"{name} of {shape}" for name, shape in shapes.items())
        names = ", ".join(shapes)
        raise ValueError(f"{names} must have shapes that broadcast, got {found}") from None


def domains(function: Callable[..., Any]) -> dict[str, tuple[Domain, ...]]:
    """Read the domains of a function's arguments off their annotations.

    Args:
        function: with a door or without.

    Returns:
        The domains by argument, in the order of the signature; an argument may have none.

    >>> domains(lambda n: n), domains(Reals.__init__)["interval"]
    ({'n': ()}, ())
    """
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    return {
        name: _domains_of(hints.get(name, Any)) for name in inspect.signature(function).parameters
    }


def _domains_of(hint: Any) -> tuple[Domain, ...]:
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is Annotated:
        return tuple(item for item in hint.__metadata__ if isinstance(item, Domain))
    if get_origin(hint) is Literal:
        return (Words(*parts),)
    if len(parts) == 1:  # it, or None
        return _domains_of(parts[0])
    ours = isinstance(hint, type) and hint.__module__.startswith("lora_bounds.")
    return (Is(hint),) if ours or hint is bool else ()


class Door:
    """Admits the arguments of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = inspect.signature(function).parameters.values()
        self.function = function
        found = [(name, domain) for name, many in domains(function).items() for domain in many]
        self.domains = sorted(found, key=lambda item: isinstance(item[1], AtMost))
        self.order = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self.known = {p.name for p in parameters}
        self.required = {p.name for p in parameters if p.default is p.empty}
        self.optional = {p.name for p in parameters if p.default is None}
        arrays = {name for name, d in found if isinstance(d, Reals) and not isinstance(d, Real)}
        self.broadcasts = len(arrays) > 1 and not any(isinstance(d, Stacked) for _, d in found)

    def admit(self, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments by name, checked."""
        seen = given
        if args:
            seen = dict(zip(self.order, args, strict=False))
            if len(args) > len(self.order) or seen.keys() & given.keys():
                self.function(*args, **given)  # raises the error of such a call
            seen |= given
        if self.broadcasts:
            together(**given)
        if not self.required <= seen.keys() <= self.known:
            self.function(*args, **given)
        seen, sizes = dict(seen), {}
        for name, domain in self.domains:
            if name in seen and not (seen[name] is None and name in self.optional):
                seen[name] = domain.check(name, seen[name], seen, sizes)
        return seen


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
        returns: what the result is, if it is not what the formula returns.

    Returns:
        The function for everyone; `unchecked` finds ``run`` again, ``__wrapped__`` is the formula.

    Raises:
        ValueError: if floats do not suffice for the result, see `representable`.
    """
    door = Door(kernel)

    @wraps(kernel)
    def public(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return run(**door.admit(args, kwargs))
        except _BeyondFloatsError as error:
            given = {**dict(zip(door.order, args, strict=False)), **kwargs}
            shown = ", ".join(f"{name}={_extent(given.get(name))}" for name in error.names)
            raise ValueError(f"{error}, got {shown}") from None

    if returns is not None:
        shown = inspect.signature(kernel).replace(return_annotation=returns)
        public.__signature__ = shown  # type: ignore[attr-defined]
    public.unchecked = run  # type: ignore[attr-defined]
    return public


def unchecked(function: Callable[..., _R]) -> Callable[..., _R]:
    """Get past the door of a function of this package.

    Args:
        function: decorated by `formula`, `exact` or `bound`.

    Returns:
        The same for arguments that are in order: arrays of doubles, floats for single numbers.
    """
    return function.unchecked  # type: ignore[attr-defined,no-any-return]


def kernel_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the bare formula behind a door, for use within another formula."""
    return function.__wrapped__  # type: ignore[attr-defined,no-any-return]


def formula(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """Check the arguments of a formula by their annotations, and let it run into its limits.

    Args:
        kernel: the formula.

    Returns:
        The function for everyone. An array of no dimension comes out as a float.
    """

    def run(**arguments: Any) -> _R:
        with quiet():
            found: Any = kernel(**arguments)  # type: ignore[call-arg]
        return plain(found) if isinstance(found, np.ndarray | np.floating) else found

    return opened(kernel, run)


def exact(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """Like `formula`, where every result is finite: say so where floats do not suffice for it.

    Args:
        kernel: the formula.

    Returns:
        The function for everyone.
    """

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
    """Check, in a formula, that floats sufficed for a computation on admitted arguments.

    Args:
        result: what came out: a number, an array, or a record or sequence of them.
        *names: the arguments that it was computed from; the message shows them as they were given.

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
    """Check that the fields of a record are arrays, and make them read-only.

    Args:
        **fields: the fields by name.
    """
    for name, value in fields.items():
        Is(np.ndarray, "an array")(name, value).flags.writeable = False
