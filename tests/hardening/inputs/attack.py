"""A valid call, one or two arguments of it replaced, and what came of it."""

import dataclasses
import re
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.hardening.inputs.wild import Bend, anything, bend

LONGEST_MESSAGE = 500
CPU_SECONDS = 20.0  # a valid call takes milliseconds


@dataclass(frozen=True, eq=False)
class Case:
    """One public function, and how to attack it.

    Attributes:
        name: What failures are told under.
        call: The function.
        valid: Keyword arguments of valid calls.
        holds: Raises AssertionError where (arguments, result) is not as documented.
        wild: Values that replace arguments.
        fixed: Arguments that are never replaced.
        documented: Further exceptions that the docstring names for a result that cannot be had.
        bend: Bent versions of a valid value, or None.
        share: Examples, as a multiple of those asked for.
        seconds: CPU time of a call.
    """

    name: str
    call: Callable[..., Any]
    valid: st.SearchStrategy[dict[str, Any]]
    holds: Callable[[dict[str, Any], Any], None]
    wild: st.SearchStrategy[Any] = field(default_factory=anything)
    fixed: frozenset[str] = frozenset()
    documented: tuple[type[Exception], ...] = ()
    bend: Bend = bend
    share: float = 1.0
    seconds: float = CPU_SECONDS


@dataclass
class Tally:
    """What came of the attacks on one case: calls, and the mishandled with the first arguments."""

    tried: int = 0
    returned: int = 0
    refused: int = 0
    mishandled: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, what: str, arguments: str) -> None:
        count, first = self.mishandled.get(what, (0, arguments))
        self.mishandled[what] = (count + 1, first)

    def check(self) -> None:
        """Fail if anything was mishandled, or nothing tried."""
        lines = [f"{n:5d} {what}\n        {first}" for what, (n, first) in self.mishandled.items()]
        assert not lines, "\n".join(lines)
        assert self.tried == self.returned + self.refused > 0


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
        with elsewhere(), warnings.catch_warnings(), time_limit(case.seconds):
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


def attack(case: Case, examples: int) -> Tally:
    """Call on valid arguments of which none, one or two are replaced; `tried` counts the calls."""
    tally = Tally()

    @seed(20240415)
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
                chosen = bends if bends is not None and data.draw(st.booleans()) else case.wild
                arguments[name] = data.draw(chosen)
        attempt(case, arguments, tally)

    run()
    return tally


def finite(value: Any, low: float = -np.inf, high: float = np.inf) -> None:
    """Assert that every number of a result is one, and within limits."""
    array = np.asarray(value, dtype=np.float64)
    assert not np.isnan(array).any(), f"NaN in {short(value)}"
    assert (array >= low).all() and (array <= high).all(), f"not in [{low}, {high}]: {short(value)}"


def no_nan(result: Any) -> None:
    """Assert that no number in a record, sequence, array or tensor is NaN."""
    if isinstance(result, torch.Tensor):
        assert not result.isnan().any(), "NaN in a tensor"
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        for item in dataclasses.fields(result):
            no_nan(getattr(result, item.name))
    elif isinstance(result, list | tuple):
        for part in result:
            no_nan(part)
    elif isinstance(result, float | np.floating) or (
        isinstance(result, np.ndarray) and result.dtype.kind == "f"
    ):
        finite(result)
