"""Each loss has the properties that its entry states: checked on a fine grid of predictions."""

import math

import numpy as np
import pytest

from lora_bounds.losses import LOSSES, Loss

GRID = np.linspace(-6.0, 6.0, 4801)  # holds every kink: multiples of 1/400
TARGETS = {"real": (-1.5, 0.0, 2.0), "sign": (-1.0, 1.0)}


def _curves(loss: Loss) -> np.ndarray:
    return np.array([loss(GRID, y) for y in TARGETS[loss.targets]])


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_convexity_is_as_stated(loss: Loss) -> None:
    second = np.diff(_curves(loss), 2)
    assert (second.min() >= -1e-12) == loss.convex


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_lipschitz_constant_is_the_least_one(loss: Loss) -> None:
    slopes = np.abs(np.diff(_curves(loss))) / np.diff(GRID)
    if math.isfinite(loss.lipschitz):
        assert slopes.max() <= loss.lipschitz * (1 + 1e-9)
        assert slopes.max() >= 0.99 * loss.lipschitz
    else:  # squared: slope near the ends; zero-one: a jump across one cell
        assert slopes.max() > 7


@pytest.mark.parametrize("loss", [one for one in LOSSES if one.convex], ids=lambda loss: loss.name)
def test_curvature_is_the_largest_one(loss: Loss) -> None:
    step = GRID[1] - GRID[0]
    least = np.diff(_curves(loss), 2).min() / step**2
    assert least == pytest.approx(loss.curvature, abs=1e-2)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_range_is_tight(loss: Loss) -> None:
    far = np.array([loss(40.0 * GRID, y) for y in TARGETS[loss.targets]])
    assert far.min() == pytest.approx(0.0, abs=1e-12)
    if math.isfinite(loss.upper):
        assert far.max() == pytest.approx(loss.upper, rel=1e-12)
    else:
        assert far.max() > 50


def test_names_are_unique() -> None:
    assert len({loss.name for loss in LOSSES}) == len(LOSSES)
