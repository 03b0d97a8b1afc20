"""Loss functions of one prediction, with the properties that the theorems ask for.

Each entry states what is known of it: convexity, the Lipschitz constant, and the least second
derivative. Tests hold them to it.

>>> [loss.name for loss in LOSSES if not loss.convex]
['truncated squared', 'sigmoid', 'ramp', 'zero-one']
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_bounds.domains import Reals, together
from lora_bounds.rounding import quiet

_Values = NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """A loss l(f, y) of a real prediction f (arrays broadcast).

    Attributes:
        name: how people call it.
        value: the function of ``prediction`` and ``target``.
        convex: whether it is convex in the prediction, for every target.
        lipschitz: the least Lipschitz constant in the prediction, or infinity.
        curvature: the largest m such that l - m f^2/2 is convex in f (0 if none is above 0);
            of no meaning, and NaN, for a loss that is not convex.
        upper: the least upper bound of the loss, or infinity; the greatest lower one is 0.
        targets: ``"real"``, or ``"sign"`` for labels -1 and 1.
    """

    name: str
    value: Callable[[_Values, _Values], _Values]
    convex: bool
    lipschitz: float
    curvature: float
    upper: float
    targets: Literal["real", "sign"]

    def __call__(self, prediction: ArrayLike, target: ArrayLike) -> _Values:
        """Evaluate the loss.

        Args:
            prediction: predictions f.
            target: targets y, of a shape that broadcasts with f.

        Returns:
            The losses, at least 0.
        """
        f, y = Reals()("prediction", prediction), Reals()("target", target)
        together(prediction=f, target=y)
        with quiet():
            return np.asarray(self.value(f, y))


def _squared(f: _Values, y: _Values) -> _Values:
    return (f - y) ** 2 / 2


def _absolute(f: _Values, y: _Values) -> _Values:
    return np.abs(f - y)


def _huber(f: _Values, y: _Values) -> _Values:
    gap = np.abs(f - y)
    return np.where(gap <= 1, gap**2 / 2, gap - 0.5)


def _pinball(f: _Values, y: _Values) -> _Values:
    return np.maximum(0.75 * (y - f), 0.25 * (f - y))


def _logistic(f: _Values, y: _Values) -> _Values:
    return np.logaddexp(0.0, -y * f)


def _hinge(f: _Values, y: _Values) -> _Values:
    return np.maximum(0.0, 1 - y * f)


def _truncated_squared(f: _Values, y: _Values) -> _Values:
    return np.minimum((f - y) ** 2 / 2, 1.0)


def _sigmoid(f: _Values, y: _Values) -> _Values:
    return np.exp(-np.logaddexp(0.0, y * f))


def _ramp(f: _Values, y: _Values) -> _Values:
    return np.clip(1 - y * f, 0.0, 1.0)


def _zero_one(f: _Values, y: _Values) -> _Values:
    return np.where(y * f > 0, 0.0, 1.0)


LOSSES: tuple[Loss, ...] = (
    Loss("squared", _squared, True, inf, 1.0, inf, "real"),
    Loss("absolute", _absolute, True, 1.0, 0.0, inf, "real"),
    Loss("Huber", _huber, True, 1.0, 0.0, inf, "real"),
    Loss("pinball 3/4", _pinball, True, 0.75, 0.0, inf, "real"),
    Loss("logistic", _logistic, True, 1.0, 0.0, inf, "sign"),
    Loss("hinge", _hinge, True, 1.0, 0.0, inf, "sign"),
    Loss("truncated squared", _truncated_squared, False, sqrt(2), float("nan"), 1.0, "real"),
    Loss("sigmoid", _sigmoid, False, 0.25, float("nan"), 1.0, "sign"),
    Loss("ramp", _ramp, False, 1.0, float("nan"), 1.0, "sign"),
    Loss("zero-one", _zero_one, False, inf, float("nan"), 1.0, "sign"),
)
