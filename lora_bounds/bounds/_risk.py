"""What all risk bounds share: their inputs, their common assumptions, and their wrapping."""

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds import checks
from lora_bounds.results import Assumption, BoundResult, conclude, confidence_of
from lora_bounds.rounding import Array

IID = Assumption("i.i.d. sample", "the n examples are independent draws from one distribution")
BOUNDED = Assumption("bounded loss", "every loss lies in [0, C]")
SYMMETRIC = Assumption("symmetric algorithm", "θ(S) does not depend on the order of the sample")


def risk_inputs(
    n: ArrayLike, delta: ArrayLike, loss_range: ArrayLike, empirical_risk: ArrayLike
) -> tuple[Array, Array, Array, Array]:
    size = checks.count("n", n)
    failure = checks.numbers("delta", delta, "[0, 1]")
    largest = checks.numbers("loss_range", loss_range, "(0, inf)")
    risk = checks.numbers("empirical_risk", empirical_risk, "[0, inf)")
    checks.at_most("empirical_risk", risk, "loss_range", largest)
    return size, failure, largest, risk


def risk_bound(
    value: Array,
    failure: Array,
    largest: Array,
    name: str,
    source: str,
    assumptions: tuple[Assumption, ...],
) -> BoundResult:
    return conclude(
        value,
        name=name,
        source=source,
        assumptions=assumptions,
        confidence=confidence_of(failure),
        trivial=np.broadcast_to(largest, value.shape).copy(),
    )
