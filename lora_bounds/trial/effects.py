"""Effects that were measured: their intervals, over runs crossed with test examples.

A network is trained in K runs and measured on m test examples, the same for every run. A claim
about other runs *and* other examples has to count the scatter of both. The mean over a table
y = mu + run + example + interaction has variance s_r^2/K + s_e^2/m + s_i^2/(K m); the variance of
its K row means over K, plus that of its m column means over m, is at least that in expectation (it
counts the interaction twice). Where these effects are normal, Student's t with min(K, m) - 1
degrees of freedom has no lighter tails than the ratio (Mickey and Brown 1966, of a sum of two
variances). Skewed runs cost Student's t more than that, most of all far in the tail: limits take a
third of their level, the rest is kept. Each is then wrong with at most its level for 17 runs or
more of skewness up to 0.7 to the unfavourable side, or 100 of 1.2; exponential runs, of 2, cost a
factor of 6 at a level of 0.003 (`claims.measured.error_rates` counts).

An effect is positive where its claim is true. `weakest` and `strongest` put several into one: "each
of them is positive", "one of them is".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
from scipy import stats

from lora_bounds.domains import Call, OneNonNegative, Real, Vector, Whole, checked, short
from lora_bounds.rounding import Array

SKEWNESS = 3.0  # what share of a level is kept for skewed runs: see above


@dataclass(frozen=True)
class MeanEffect:
    """A mean with Student's limits.

    Attributes:
        mean: the estimate.
        error: its standard error.
        freedom: degrees of freedom.
    """

    mean: float
    error: float
    freedom: int

    def low(self, level: float) -> float:
        """Lower limit.

        Args:
            level: chance of being above the true mean, in (0, 1).

        Returns:
            The limit.
        """
        return self.mean - self._reach(level)

    def high(self, level: float) -> float:
        """Upper limit.

        Args:
            level: chance of being below the true mean, in (0, 1).

        Returns:
            The limit.
        """
        return self.mean + self._reach(level)

    def _reach(self, level: float) -> float:
        return self.error * float(stats.t.isf(level / SKEWNESS, self.freedom))

    def above(self, value: float) -> "MeanEffect":
        """By how much it exceeds a number.

        Args:
            value: the number.

        Returns:
            The effect.
        """
        return MeanEffect(self.mean - value, self.error, self.freedom)

    def below(self, value: float) -> "MeanEffect":
        """By how much it stays below a number.

        Args:
            value: the number.

        Returns:
            The effect.
        """
        return MeanEffect(value - self.mean, self.error, self.freedom)


@dataclass(frozen=True)
class _Weakest:
    parts: "tuple[Effect, ...]"

    def low(self, level: float) -> float:
        # Too high only if the limit of the least part is: no level is shared out.
        return min(part.low(level) for part in self.parts)

    def high(self, level: float) -> float:
        # Too low if any limit is below its own part.
        return min(part.high(level / len(self.parts)) for part in self.parts)


@dataclass(frozen=True)
class _Strongest:
    parts: "tuple[Effect, ...]"

    def low(self, level: float) -> float:
        return max(part.low(level / len(self.parts)) for part in self.parts)

    def high(self, level: float) -> float:
        return max(part.high(level) for part in self.parts)


# A number with one-sided limits at any level, each wrong with at most its level.
Effect: TypeAlias = MeanEffect | _Weakest | _Strongest


@checked
def crossed(
    runs: Annotated[Any, Vector()],
    *,
    example_variance: OneNonNegative = 0.0,
    examples: Annotated[int, Whole(2, 10**9)] | None = None,
) -> MeanEffect:
    """The mean over runs crossed with test examples.

    Args:
        runs: one value for each of the K independent runs, at least 2; a mean over the examples
            where it is measured on a test set.
        example_variance: variance over the m examples of the means over the runs; 0 where a run
            brings its examples with it.
        examples: m, at least 2; None where a run brings its examples with it.

    Returns:
        The effect.

    Raises:
        ValueError: if there are fewer than 2 runs or examples, or a variance without examples.

    >>> effect = crossed([1.0, 2.0, 3.0], example_variance=4.0, examples=12)
    >>> effect.mean, round(effect.error**2, 9), effect.freedom  # 1/3 + 4/12
    (2.0, 0.666666667, 2)
    """
    if runs.size < 2:
        raise ValueError(f"runs must be at least 2, got {runs.size}")
    variance, freedom = float(runs.var(ddof=1)) / runs.size, runs.size - 1
    if examples is not None:
        variance, freedom = variance + example_variance / examples, min(freedom, examples - 1)
    elif example_variance:
        raise ValueError(f"example_variance={example_variance!r} needs examples, got examples=None")
    return MeanEffect(float(runs.mean()), math.sqrt(variance), freedom)


def weakest(parts: Sequence[Effect]) -> Effect:
    """The least of several effects: positive if each of them is.

    Args:
        parts: the effects, at least one; they may depend on one another.

    Returns:
        The effect, with limits at the level asked for.
    """
    return _Weakest(_parts(parts))


def strongest(parts: Sequence[Effect]) -> Effect:
    """The greatest of several effects: positive if one of them is.

    Args:
        parts: the effects, at least one, chosen before the data were seen; they may depend on one
            another.

    Returns:
        The effect, with limits at the level asked for.
    """
    return _Strongest(_parts(parts))


def _parts(parts: Sequence[Effect]) -> tuple[Effect, ...]:
    if not len(parts):
        raise ValueError("parts must hold at least one effect, got parts=()")
    return tuple(parts)


def near(effect: MeanEffect, value: float, *, tolerance: float) -> Effect:
    """The tolerance minus the distance from a predicted value.

    Args:
        effect: what was measured.
        value: what was predicted.
        tolerance: greatest distance that counts as agreement, positive.

    Returns:
        The effect: positive if the measured one lies within the tolerance.
    """
    reach = Real("(0, inf)")("tolerance", tolerance)
    return weakest([effect.above(value - reach), effect.below(value + reach)])


class _Varied(Vector):
    """A vector of numbers that are not all equal."""

    def _read(self, name: str, value: Any, call: Call) -> Any:
        logs = np.log(array := super()._read(name, value, call))
        if not np.any(logs - logs.mean()):
            raise ValueError(f"{name} must differ, got {name}={short(value)}")
        return array


@checked
def slope(sizes: Annotated[Any, _Varied("", "(0, inf)")]) -> Array:
    """Weights whose sum of products with values is their least-squares slope over log n.

    Args:
        sizes: n, of shape (columns,), positive and not all equal.

    Returns:
        The weights, of shape (columns,).
    """
    logs = np.log(sizes)
    centered = logs - logs.mean()
    return np.asarray(centered / np.sum(centered**2))
