"""Learning problems as frozen objects: constants for the formulas, data for the refits."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lora_bounds.domains import (
    OneNonNegative,
    Real,
    Repetitions,
    Seed,
    Whole,
    formula,
    representable,
)

Condition: TypeAlias = Annotated[float, Real("[1, inf)")]


@dataclass(frozen=True)
class ProblemConstants:
    """The constants that the bounds of the paper ask for, under the names that they ask for.

    Attributes:
        n: sample size, at least 1.
        delta: failure probability, in (0, 1).
        dropout: mask rate p, in [0, 1].
        lipschitz: Lipschitz constant eta of the loss in the parameters.
        curvature: least eigenvalue Lmin of the Hessian, at least 0.
        regularization: weight lambda of the sparsity penalty, above 0.
        loss_range: range C of the loss, above 0.
        empirical_risk: training risk, in [0, ``loss_range``].
        stability: a stability coefficient beta, at least 0.
        kl: a Kullback-Leibler divergence in nats, at least 0.
    """

    n: int
    delta: float
    dropout: float
    lipschitz: float
    curvature: float
    regularization: float
    loss_range: float
    empirical_risk: float
    stability: float
    kl: float

    def arguments(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Pick the constants that a function asks for by name.

        Args:
            function: any function; parameters of other names are left for the caller.

        Returns:
            Keyword arguments for ``function``.

        >>> from lora_bounds.bounds.sparsity import drop_probability
        >>> c = ProblemConstants(10, 0.1, 0.5, 1.0, 0.0, 1.0, 1.0, 0.2, 0.1, 1.0)
        >>> c.arguments(drop_probability)
        {'dropout': 0.5}
        """
        names = inspect.signature(function).parameters
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}


@dataclass(frozen=True, eq=False)
class Problem:
    """A linear prediction problem; the arrays are read-only.

    Attributes:
        inputs: shape (n, d), one example a row.
        targets: shape (n,); real for regression, -1 or 1 for classification.
        weights: shape (d,), the weights that made the targets.
        condition_number: ratio of the extreme singular values of ``inputs``.
        noise: standard deviation of the target noise (0 in classification).
        separable: whether some weights classify every example; None in regression.
        seed: the seed of every random number in the arrays.
    """

    inputs: NDArray[np.float64]
    targets: NDArray[np.float64]
    weights: NDArray[np.float64]
    condition_number: float
    noise: float
    separable: bool | None
    seed: int

    def __repr__(self) -> str:
        n, d = self.inputs.shape
        return (
            f"Problem(n={n}, d={d}, condition_number={self.condition_number:.3g}, "
            f"noise={self.noise:.3g}, separable={self.separable}, seed={self.seed})"
        )


def _inputs(rng: np.random.Generator, n: int, d: int, condition: float) -> NDArray[np.float64]:
    """An (n, d) matrix whose singular values run from sqrt(n) down by ``condition``.

    Returns:
        The matrix.
    """
    left, _ = np.linalg.qr(rng.standard_normal((n, d)))
    right, _ = np.linalg.qr(rng.standard_normal((d, d)))
    values = condition ** -np.linspace(0.0, 1.0, d) if d > 1 else np.ones(1)
    return np.sqrt(n) * (left * values) @ right.T


def _freeze(array: NDArray[np.float64]) -> NDArray[np.float64]:
    array.flags.writeable = False
    return array


@formula
def make_regression(
    *, n: Repetitions, d: int, condition_number: Condition, noise: OneNonNegative, seed: Seed
) -> Problem:
    """Linear regression data: targets = inputs @ weights + Gaussian noise.

    Args:
        n: number of examples, at least ``d``.
        d: number of inputs, at least 1.
        condition_number: ratio of the extreme singular values of the inputs, at least 1.
        noise: standard deviation of the noise, at least 0.
        seed: seed of the generator.

    Returns:
        The problem; the largest singular value of the inputs is sqrt(n).

    >>> make_regression(n=5, d=2, condition_number=3.0, noise=0.1, seed=0)
    Problem(n=5, d=2, condition_number=3, noise=0.1, separable=None, seed=0)
    """
    d = Whole(1, n)("d", d)
    rng = np.random.default_rng(seed)
    inputs = _inputs(rng, n, d, condition_number)
    weights = rng.standard_normal(d)
    targets = inputs @ weights + noise * rng.standard_normal(n)
    representable(targets, "noise")
    return Problem(
        _freeze(inputs), _freeze(targets), _freeze(weights), condition_number, noise, None, seed
    )


@formula
def make_classification(
    *, distinct: Repetitions, d: int, condition_number: Condition, separable: bool, seed: Seed
) -> Problem:
    """Binary classification data with labels -1 and 1.

    A separable problem is the ill-posed one of logistic regression: without a penalty the
    minimiser lies at infinity. The others are made of triples x, x, x with labels y, y, -y whose
    inputs span the space, so that weights that are right on one example are wrong on another,
    and the minimiser is finite.

    Args:
        distinct: number of distinct inputs, at least ``d``; n is three times that unless
            ``separable``.
        d: number of inputs, at least 1.
        condition_number: ratio of the extreme singular values of the inputs, at least 1.
        separable: whether some weights classify every example.
        seed: seed of the generator.

    Returns:
        The problem.

    >>> make_classification(distinct=4, d=2, condition_number=1.0, separable=False, seed=0)
    Problem(n=12, d=2, condition_number=1, noise=0, separable=False, seed=0)
    """
    d = Whole(1, distinct)("d", d)
    rng = np.random.default_rng(seed)
    inputs = _inputs(rng, distinct, d, condition_number)
    weights = rng.standard_normal(d)
    labels = np.where(inputs @ weights >= 0, 1.0, -1.0)
    if not separable:
        inputs = np.concatenate([inputs] * 3)
        labels = np.concatenate([labels, labels, -labels])
    return Problem(
        _freeze(inputs), _freeze(labels), _freeze(weights), condition_number, 0.0, separable, seed
    )
