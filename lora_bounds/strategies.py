"""Public Hypothesis strategies: problems on which to try a bound, yours or ours.

Each strategy draws small, frozen, reproducible objects, reaches the limits (``dropout`` 0 and 1,
``n`` = 1, tiny ``delta``) on its own, and shrinks towards the simplest of them. Arrays come from
an integer seed that Hypothesis draws, so that a failing example prints as a few numbers.

Testing a bound of your own against Thm 4.4 takes ten lines:

>>> from hypothesis import given, settings
>>> from lora_bounds import strategies
>>> from lora_bounds.bounds.risk import theorem_4_4
>>> def my_bound(c):  # ours at twice the sample: too good to be true where n is small
...     doubled = dict(c.arguments(theorem_4_4), n=2 * c.n)
...     return theorem_4_4(**doubled).value
>>> @settings(derandomize=True, database=None)
... @given(strategies.problem_constants(loss_range=(0.1, 2.0)))
... def test_mine_is_never_looser(c):
...     assert my_bound(c) <= theorem_4_4(**c.arguments(theorem_4_4)).value
>>> test_mine_is_never_looser()

The extra ``strategies`` brings Hypothesis; the rest of the package does without it.
"""

import importlib
from typing import Literal

import numpy as np

import lora_bounds
from lora_bounds.bounds.laws import MASK_LAWS
from lora_bounds.losses import LOSSES, Loss
from lora_bounds.problems import (
    Problem,
    ProblemConstants,
    make_classification,
    make_regression,
)

try:
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise ImportError(
        "lora_bounds.strategies needs hypothesis: pip install 'lora-dropout[strategies]'"
    ) from error

# Whatever the functions under test import when first used, mpmath and scipy above all, is imported
# now: in the first example it would count against Hypothesis's deadline.
importlib.import_module("mpmath")
for _name in lora_bounds.__all__:
    getattr(lora_bounds, _name)

Conditioning = Literal["well", "ill"]

# Condition numbers of the input matrix; its square is the condition number of the covariance.
_CONDITION_RANGES: dict[str, tuple[float, float]] = {"well": (1.0, 10.0), "ill": (1e4, 1e7)}


def dropout_rates(*, low: float = 0.0, high: float = 1.0) -> st.SearchStrategy[float]:
    """Mask rates p; the ends of the interval come up often.

    Args:
        low: smallest rate.
        high: largest rate.

    Returns:
        A strategy of floats in [``low``, ``high``].

    >>> from hypothesis import given, settings
    >>> @settings(derandomize=True, database=None)
    ... @given(dropout_rates(high=0.5))
    ... def test(p):
    ...     assert 0 <= p <= 0.5
    >>> test()
    """
    return st.one_of(st.sampled_from([low, high]), st.floats(low, high, allow_subnormal=False))


def mask_laws() -> st.SearchStrategy[str]:
    """Names of the mask laws (`lora_bounds.bounds.laws`).

    Returns:
        A strategy of names.

    >>> from hypothesis import find
    >>> find(mask_laws(), lambda law: True) in MASK_LAWS
    True
    """
    return st.sampled_from(MASK_LAWS)


def problem_constants(
    *,
    max_n: int = 10**6,
    dropout: tuple[float, float] = (0.0, 1.0),
    loss_range: tuple[float, float] = (1e-3, 1e3),
) -> st.SearchStrategy[ProblemConstants]:
    """Constants of one learning problem, within the domain of every bound.

    Args:
        max_n: largest sample size.
        dropout: smallest and largest mask rate.
        loss_range: smallest and largest range C of the loss.

    Returns:
        A strategy of `ProblemConstants`.

    >>> from hypothesis import find
    >>> find(problem_constants(), lambda c: c.n >= 100).n
    100
    """

    @st.composite
    def draw_constants(draw: st.DrawFn) -> ProblemConstants:
        width = draw(st.floats(*loss_range))
        return ProblemConstants(
            n=draw(st.integers(1, max_n)),
            delta=draw(st.one_of(st.floats(1e-12, 1e-3), st.floats(1e-3, 0.999))),
            dropout=draw(dropout_rates(low=dropout[0], high=dropout[1])),
            lipschitz=draw(st.floats(1e-3, 1e3)),
            curvature=draw(st.one_of(st.just(0.0), st.floats(1e-6, 1e3))),
            regularization=draw(st.floats(1e-6, 1e6)),
            loss_range=width,
            empirical_risk=width * draw(st.floats(0.0, 1.0)),
            stability=draw(st.one_of(st.just(0.0), st.floats(1e-12, 1.0))),
            kl=draw(st.one_of(st.just(0.0), st.floats(1e-6, 1e6))),
        )

    return draw_constants()


def regression_problems(
    *,
    conditioning: Conditioning = "well",
    max_n: int = 30,
    max_d: int = 4,
    noise: tuple[float, float] = (0.0, 10.0),
) -> st.SearchStrategy[Problem]:
    """Linear regression with unit-size inputs and Gaussian target noise.

    Args:
        conditioning: ``"well"``: condition number of the inputs in [1, 10]; ``"ill"``: in
            [1e4, 1e7] (1 where there is a single input).
        max_n: largest number of examples.
        max_d: largest number of inputs.
        noise: smallest and largest standard deviation of the noise.

    Returns:
        A strategy of `Problem`, with n >= d + 1 so that leaving one out keeps n >= d.

    Raises:
        ValueError: if ``conditioning`` is unknown.

    >>> from hypothesis import find
    >>> problem = find(regression_problems(), lambda p: p.inputs.shape[1] == 2)
    >>> problem.targets.shape
    (3,)
    """
    low, high = _condition_range(conditioning)

    @st.composite
    def draw_problem(draw: st.DrawFn) -> Problem:
        d = draw(st.integers(1, max_d))
        n = draw(st.integers(d + 1, max(max_n, d + 1)))
        scale = draw(st.floats(*noise))
        condition = 1.0 if d == 1 else draw(st.floats(low, high))
        seed = draw(st.integers(0, 2**32 - 1))
        return make_regression(n=n, d=d, condition_number=condition, noise=scale, seed=seed)

    return draw_problem()


def classification_problems(
    *,
    conditioning: Conditioning = "well",
    separable: bool | None = None,
    max_n: int = 30,
    max_d: int = 4,
) -> st.SearchStrategy[Problem]:
    """Binary classification with labels -1 and 1.

    See `lora_bounds.problems.make_classification` for what separable means to logistic
    regression.

    Args:
        conditioning: as in `regression_problems`.
        separable: ask for one kind; None draws both.
        max_n: largest number of examples (never under three times the inputs).
        max_d: largest number of inputs.

    Returns:
        A strategy of `Problem`.

    Raises:
        ValueError: if ``conditioning`` is unknown.

    >>> from hypothesis import find
    >>> problem = find(classification_problems(separable=True), lambda p: True)
    >>> bool((problem.targets * (problem.inputs @ problem.weights) > 0).all())
    True
    """
    low, high = _condition_range(conditioning)

    @st.composite
    def draw_problem(draw: st.DrawFn) -> Problem:
        d = draw(st.integers(1, max_d))
        apart = draw(st.booleans()) if separable is None else separable
        distinct = draw(st.integers(d, max(max_n // 3, d)))
        condition = 1.0 if d == 1 else draw(st.floats(low, high))
        seed = draw(st.integers(0, 2**32 - 1))
        return make_classification(
            distinct=distinct, d=d, condition_number=condition, separable=apart, seed=seed
        )

    return draw_problem()


def _condition_range(conditioning: str) -> tuple[float, float]:
    if conditioning not in _CONDITION_RANGES:
        raise ValueError(f"conditioning must be 'well' or 'ill', got conditioning={conditioning!r}")
    return _CONDITION_RANGES[conditioning]


def losses(
    *,
    convex: bool | None = None,
    lipschitz: bool | None = None,
    targets: Literal["real", "sign"] | None = None,
) -> st.SearchStrategy[Loss]:
    """Loss functions of a prediction, with known convexity and Lipschitz constant.

    Args:
        convex: keep the losses that are (are not) convex in the prediction; None keeps both.
        lipschitz: keep those that have (do not have) a finite Lipschitz constant.
        targets: keep those for real targets, or for labels -1 and 1.

    Returns:
        A strategy of `lora_bounds.losses.Loss`.

    Raises:
        ValueError: if no loss is left.

    >>> from hypothesis import find
    >>> find(losses(convex=False), lambda loss: loss.lipschitz < 0.5).name
    'sigmoid'
    """
    kept = [
        loss
        for loss in LOSSES
        if (convex is None or loss.convex == convex)
        and (lipschitz is None or np.isfinite(loss.lipschitz) == lipschitz)
        and (targets is None or loss.targets == targets)
    ]
    if not kept:
        raise ValueError(
            f"no loss has convex={convex}, lipschitz={lipschitz} and targets={targets!r}"
        )
    return st.sampled_from(kept)
