"""Wild arguments: a valid call, one or two arguments of it replaced, and what came of it."""

import dataclasses
import enum
import re
import signal
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

LONGEST_MESSAGE = 500
CPU_SECONDS = 20.0  # of one call; a valid one takes milliseconds

_SELF: list[Any] = []
_SELF.append(_SELF)
_DEEP: list[Any] = []
for _ in range(200):
    _DEEP = [_DEEP]

Valid = st.SearchStrategy[dict[str, Any]]
Holds = Callable[[dict[str, Any], Any], None]


class _Shade(enum.Enum):
    RED = 1


def numbers() -> st.SearchStrategy[Any]:
    """Single numbers, of every kind and at every edge of their range.

    No whole number lies between 1e4 and 1e11: as a size it would be slow rather than wrong.
    """
    edges = [
        float("nan"), float("inf"), float("-inf"), -1.0, -0.0, 0, 1, -1, 0.5, 2, 7, 1.0 + 2**-52,
        1.0 - 2**-53, 5e-324, -5e-324, 2.2e-308, 1e-300, 1e-160, 1e-16, 1e16, 1e160, 1.7e308,
        -1.7e308, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**12, 10**400, -(10**400), 10**5000,
        0.1, 1.5, 3,
    ]  # fmt: skip
    typed = [
        np.float32("nan"), np.float16(0.5), np.float64(1e300), np.int8(-3), np.uint64(2**64 - 1),
        np.bool_(True), np.longdouble("1e4000"), np.float32(1e-45), np.int64(3), np.array(0.5),
        np.array(2), np.complex128(1 + 0j), np.array(np.nan), np.datetime64("2024-04-15"),
    ]  # fmt: skip
    return st.one_of(
        st.sampled_from(edges),
        st.sampled_from(typed),
        st.floats(),
        st.floats(0.0, 1.0),
        st.integers(-10, 100),
    )


def things() -> st.SearchStrategy[Any]:
    """What is no number at all."""
    fixed = [
        None, True, False, "", "0.5", "nan", "row_column", "upper", "\0", "x" * 10_000,
        "../..", b"1", 1j, Decimal("0.1"), Fraction(1, 3), (), {}, {"a": 1}, {1, 2}, object(),
        len, repr, range(3), Path("x"), _Shade.RED, _SELF, _DEEP, slice(3), Ellipsis,
        NotImplemented, memoryview(b"abc"), np.dtype(float), types.SimpleNamespace(value=1),
    ]  # fmt: skip
    return st.one_of(st.sampled_from(fixed), st.text(max_size=5))


def arrays() -> st.SearchStrategy[Any]:
    """Arrays and lists of odd shapes, types, layouts and contents."""
    base = np.linspace(0.1, 0.9, 24)
    fixed = [
        [], [[]], [[], []], [0.5], [0.5, 0.25], [[0.5]], [[1, 2], [3]], [0.1, "a"], [None, 1.0],
        [float("nan"), 0.5], [0.5, float("inf")], [True, False], (0.5, 0.7, 0.9), [10**400, 1],
        np.empty(0), np.empty((0, 3)), np.empty((3, 0)), np.zeros((2, 2)), np.ones((2, 3, 4)),
        np.zeros((1,) * 40), base.reshape(4, 6), base[::3], base[::-1][:3], base.reshape(4, 6).T,
        np.asfortranarray(base.reshape(6, 4)), base.astype(np.float16)[:2],
        base.astype(np.longdouble)[:2], np.array([1, 2, 3], dtype=np.uint8),
        np.array([1 + 1j, 2]), np.array(["a", "b"]), np.array([None, 1], dtype=object),
        np.array([Fraction(1, 2)], dtype=object), np.array(["2024-04-15"], dtype="M8[D]"),
        np.ma.masked_array([0.5, 0.7], [True, False]), np.array([(1, 0.5)], dtype="i4,f8"),
        np.array([1e308, 1e308]), np.array([[1.0, np.nan], [0.0, 1.0]]), np.eye(3) * 1e-310,
        np.full((2, 2), -np.inf), base.astype(">f8")[:2], np.broadcast_to(np.float64(0.5), (3, 2)),
        np.array([[1.0, 2.0], [2.0, 1.0]]), [[[0.5]]], np.array([1e200, 1e-200, 0.0]),
    ]  # fmt: skip
    drawn = st.lists(st.one_of(st.floats(), st.integers(-3, 5)), min_size=1, max_size=6)
    return st.one_of(st.sampled_from(fixed), drawn, st.lists(drawn, min_size=1, max_size=3))


def _one_entry(array: Any, place: int, value: Any) -> Any:
    found = np.array(array, dtype=np.float64)
    found.flat[place % max(found.size, 1)] = value
    return found


def bent(array: Any) -> st.SearchStrategy[Any]:
    """An array that was valid, bent: one entry, its scale, a row, its rank, shape or type."""
    edges = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e160, 1e-160, 5e-324, 0.0, -1.0, 0.5]
    entry = st.tuples(st.integers(0, 50), st.sampled_from(edges)).map(
        lambda drawn: _one_entry(array, *drawn)
    )
    factors = [0.0, -1.0, 1e-320, 1e-200, 1e-160, 1e-8, 1e8, 1e100, 1e150, 1e160, 1e200, 1e300]
    whole = [
        array[:1], array[1:], array[::-1], np.concatenate([array, array]), array[:0],
        np.repeat(array[:1], len(array), 0), array.T, array[..., :1], array[None], array[..., None],
        np.asfortranarray(array), array.tolist(), np.repeat(array, 2, -1)[..., ::2], array.ravel(),
        array.astype(bool), array.astype(str), array.astype(object), array.astype(complex),
        array.astype(np.float32), np.sign(array).astype(np.int8), np.round(array).astype(int),
        array + 1e9, np.ones_like(array), np.ma.masked_array(array, array > 0),
    ]  # fmt: skip
    return st.one_of(
        entry, st.sampled_from(factors).map(lambda factor: array * factor), st.sampled_from(whole)
    )


def bend(value: Any) -> st.SearchStrategy[Any] | None:
    """How to bend a valid argument; None for what is no array of numbers."""
    if isinstance(value, np.ndarray) and value.ndim and value.size and value.dtype.kind in "if":
        return bent(value)
    return None


def anything() -> st.SearchStrategy[Any]:
    return st.one_of(numbers(), numbers(), things(), arrays())


@dataclass(frozen=True, eq=False)
class Case:
    """One public function, and how to attack it.

    Attributes:
        name: Its dotted name.
        call: The function.
        valid: Keyword arguments of valid calls.
        holds: Raises AssertionError where (arguments, result) is not as documented.
        wild: Values that replace arguments.
        fixed: Arguments that are never replaced.
        documented: Further exceptions that the docstring names for a result that cannot be had.
        bend: Bent versions of a valid value, or None.
        share: Examples, as a multiple of the section's number.
    """

    name: str
    call: Callable[..., Any]
    valid: Valid
    holds: Holds
    wild: st.SearchStrategy[Any] = field(default_factory=anything)
    fixed: frozenset[str] = frozenset()
    documented: tuple[type[Exception], ...] = ()
    bend: Callable[[Any], st.SearchStrategy[Any] | None] = bend
    share: float = 1.0


@dataclass
class Tally:
    """What came of the attacks on one case.

    Attributes:
        tried: Calls.
        returned: Calls that returned, with a result as documented.
        refused: Calls that raised a clear error.
        mishandled: The others: what happened -> (how often, the arguments of the first).
    """

    tried: int = 0
    returned: int = 0
    refused: int = 0
    mishandled: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return self.returned + self.refused

    def note(self, what: str, arguments: str) -> None:
        count, first = self.mishandled.get(what, (0, arguments))
        self.mishandled[what] = (count + 1, first)


class TooLong(BaseException):
    """A call that used up its time; no `except Exception` stops it."""


class RefusedError(Exception):
    """What a call raises that was judged where it was made: a clear error."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` after some CPU time (pytest-timeout has the clock of the wall)."""

    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def elsewhere() -> Iterator[None]:
    """A new working directory, so deep that what a wild relative path names goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        deep = Path(folder) / "a" / "b" / "c"
        deep.mkdir(parents=True)
        with chdir(deep):
            yield


def clear(error: BaseException, names: set[str], documented: tuple[type[Exception], ...]) -> str:
    """What is wrong with an error, or nothing.

    It must be a ValueError or TypeError (or documented), name an argument of the call and say what
    it got, in a few lines.
    """
    message = str(error)
    kind = type(error).__name__
    if documented and isinstance(error, documented):
        return ""
    if not isinstance(error, ValueError | TypeError) or isinstance(error, UnicodeError):
        return f"{kind}: {message[:150]}"
    if not any(re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z])", message) for name in names):
        return f"{kind} names no argument: {message[:150]}"
    if "got" not in message and "has" not in message:
        return f"{kind} does not say what it got: {message[:150]}"
    if len(message) > LONGEST_MESSAGE:
        return f"{kind} of {len(message)} characters: {message[:80]}"
    return ""


def short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) < 120 else text[:117] + "..."


def attempt(case: Case, arguments: dict[str, Any], tally: Tally) -> None:
    """Call once and judge what happens."""
    tally.tried += 1
    shown = ", ".join(f"{name}={short(value)}" for name, value in arguments.items())
    try:
        with elsewhere(), warnings.catch_warnings(), time_limit(CPU_SECONDS):
            warnings.simplefilter("error")
            result = case.call(**arguments)
    except TooLong:
        tally.note("took too long", shown)
    except RefusedError:
        tally.refused += 1
    except Exception as error:
        wrong = clear(error, {*arguments}, case.documented)
        if wrong:
            tally.note(wrong, shown)
        else:
            tally.refused += 1
    else:
        try:
            case.holds(arguments, result)
        except Exception as error:
            tally.note(f"wrong result ({type(error).__name__}: {str(error)[:150]})", shown)
        else:
            tally.returned += 1


def attack(case: Case, examples: int, *, number: int = 0) -> Tally:
    """Try a function on valid arguments of which none, one or two are replaced.

    Args:
        case: The function.
        examples: How many calls Hypothesis is asked for; `Tally.tried` counts those made.
        number: Seed of Hypothesis.
    """
    tally = Tally()
    wild = case.wild

    @seed(number)
    @settings(
        max_examples=max(1, round(examples * case.share)), database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=False,
    )  # fmt: skip
    @given(st.data())
    def run(data: st.DataObject) -> None:
        arguments = dict(data.draw(case.valid))
        open_ = sorted(name for name in arguments if name not in case.fixed)
        if open_:
            count = data.draw(st.sampled_from([0, 1, 1, 1, 1, 2, 2]))
            for name in {data.draw(st.sampled_from(open_)) for _ in range(count)}:
                bends = case.bend(arguments[name])
                chosen = bends if bends is not None and data.draw(st.booleans()) else wild
                arguments[name] = data.draw(chosen)
        attempt(case, arguments, tally)

    run()
    return tally


def total(tallies: Mapping[str, Tally]) -> Tally:
    """All tallies in one, the mishandled with the name of their function."""
    found = Tally()
    for name, tally in tallies.items():
        found.tried += tally.tried
        found.returned += tally.returned
        found.refused += tally.refused
        found.mishandled |= {f"{name}: {what}": seen for what, seen in tally.mishandled.items()}
    return found


def lines(tally: Tally, most: int = 40) -> list[str]:
    """The mishandled, one a line, the most frequent first."""
    ordered = Counter({what: count for what, (count, _) in tally.mishandled.items()})
    return [
        f"{count:5d} {what}\n        {tally.mishandled[what][1]}"
        for what, count in ordered.most_common(most)
    ]


def finite(value: Any, low: float = -np.inf, high: float = np.inf) -> None:
    """Assert that every number of a result is one, and within limits."""
    array = np.asarray(value, dtype=np.float64)
    assert not np.isnan(array).any(), f"NaN in {short(value)}"
    assert (array >= low).all() and (array <= high).all(), f"not in [{low}, {high}]: {short(value)}"


def no_nan(result: Any) -> None:
    """Assert that no number in a record, sequence or array is NaN."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        for item in dataclasses.fields(result):
            no_nan(getattr(result, item.name))
    elif isinstance(result, list | tuple):
        for part in result:
            no_nan(part)
    elif isinstance(result, float | np.ndarray | np.floating):
        finite(result)
