"""The level of each test keeps that of the family, whatever the tests share."""

import numpy as np
import pytest

from lora_bounds.trial.familywise import each_level


def test_the_family_keeps_its_level_whether_tests_are_independent_or_one() -> None:
    level, tests, repeats = 0.2, 10, 20_000
    each = each_level(level, tests)
    rng = np.random.default_rng(0)
    apart = (rng.random((repeats, tests)) < each).any(axis=1).mean()
    together = (rng.random(repeats) < each).mean()
    assert together < apart <= level
    assert apart > 0.17  # of use: not much is given away where tests are independent


@pytest.mark.parametrize(
    ("family", "tests", "message"),
    [
        (0.0, 3, r"family must be in \(0, 1\), got family=0.0"),
        (1.0, 3, r"family must be in \(0, 1\), got family=1.0"),
        (0.05, 0, "tests must be .*, got tests=0"),
    ],
)
def test_bad_arguments_are_named(family: float, tests: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        each_level(family, tests)
