"""The exact models against independent floating-point and multi-precision routes."""

from fractions import Fraction
from itertools import product

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bounds.claims import one_parameter
from lora_bounds.claims.stability import logistic_balls

SMALL = st.fractions(min_value=-3, max_value=3, max_denominator=8).filter(lambda v: v != 0)


def design(points, c):
    """Ridge as least squares with an extra row: an independent route."""
    x, y = (np.array([float(p[i]) for p in points]) for i in (0, 1))
    rows = np.append(x, np.sqrt(2 * float(c) * len(points)))
    return np.linalg.lstsq(rows[:, None], np.append(y, 0.0), rcond=None)[0][0]


@pytest.mark.claim("Audit 8")
@given(st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=5), st.fractions(0, 4))
def test_ridge_and_its_stability(points, c):
    assert float(one_parameter.ridge(points, c)) == pytest.approx(design(points, c), abs=1e-10)
    for penalised in (False, True):
        changes = []
        for i, (x, y) in enumerate(points):
            full, left = design(points, c), design(points[:i] + points[i + 1 :], c)

            def loss(t, x=x, y=y, on=penalised):
                return 0.5 * (float(y) - float(x) * t) ** 2 + on * float(c) * t**2

            changes.append(abs(loss(left) - loss(full)))
        exact = one_parameter.ridge_stability(points, c, penalised=penalised)
        assert float(exact) == pytest.approx(np.mean(changes), rel=1e-9, abs=1e-9)


@pytest.mark.claim("T1")
@given(st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=3), st.fractions(0, 4))
def test_gap_over_all_samples(atoms, c):
    gaps, risks = [], []
    for sample in product(atoms, repeat=2):
        t = design(sample, c)
        risk = np.mean([(float(y) - float(x) * t) ** 2 / 2 for x, y in atoms])
        risks.append(risk)
        gaps.append(risk - np.mean([(float(y) - float(x) * t) ** 2 / 2 for x, y in sample]))
    assert float(one_parameter.ridge_gap(atoms, 2, c)) == pytest.approx(
        np.mean(gaps), rel=1e-9, abs=1e-9
    )
    exact = one_parameter.ridge_risk(atoms, 2, c)
    assert float(exact) == pytest.approx(np.mean(risks), rel=1e-9, abs=1e-9)


MARGINS = [
    [Fraction(1), Fraction(1, 100), Fraction(-1)],
    [Fraction(2), Fraction(-1, 3)],
    [Fraction(1), Fraction(1, 2), Fraction(3)],
]


@pytest.mark.parametrize("margins", MARGINS)
@pytest.mark.parametrize("c", [Fraction(1, 10**6), Fraction(1, 3)])
def test_balls_contain_the_multi_precision_answer(margins, c):
    mpmath.mp.dps = 40
    z = [mpmath.mpf(m.numerator) / m.denominator for m in margins]
    weight = mpmath.mpf(c.numerator) / c.denominator

    def solve(part):
        low, high = mpmath.mpf(-(10**7)), mpmath.mpf(10**7)
        for _ in range(160):
            t = (low + high) / 2
            slope = 2 * weight * t - sum(m / (1 + mpmath.exp(m * t)) for m in part) / len(part)
            low, high = (low, t) if slope > 0 else (t, high)
        return t

    found = logistic_balls.enclosed_fit(margins, c)
    full = solve(z)
    flint = logistic_balls.require_flint()
    for i, (ball, change) in enumerate(zip(found.left_out, found.changes, strict=True)):
        t = solve(z[:i] + z[i + 1 :])
        assert ball.overlaps(flint.arb(mpmath.nstr(t, 30)))
        expected = abs(mpmath.log1p(mpmath.exp(-z[i] * t)) - mpmath.log1p(mpmath.exp(-z[i] * full)))
        assert change.overlaps(flint.arb(mpmath.nstr(expected, 30)))
        assert float(change.rad()) < 1e-6
    assert found.solution.overlaps(flint.arb(mpmath.nstr(full, 30)))
    sigma = [1 / (1 + mpmath.exp(m * full)) for m in z]
    bend = sum(s * (1 - s) * m * m for s, m in zip(sigma, z, strict=True)) / len(z)
    assert found.curvature.overlaps(flint.arb(mpmath.nstr(bend, 30)))


def test_the_lipschitz_constant_covers_the_hull():
    margins, c = MARGINS[0], Fraction(1, 3)
    found = logistic_balls.enclosed_fit(margins, c)
    ends = [float(t) for t in (found.solution, *found.left_out)]
    for t in np.linspace(min(ends), max(ends), 101):
        for z in map(float, margins):
            assert abs(-z / (1 + np.exp(z * t)) + 2 * float(c) * t) <= float(found.lipschitz)


def test_precision_is_restored():
    flint = logistic_balls.require_flint()
    before = flint.ctx.prec
    logistic_balls.enclosed_fit(MARGINS[1], Fraction(1, 3))
    assert flint.ctx.prec == before


def test_a_root_that_is_not_enclosed_is_an_error(monkeypatch):
    monkeypatch.setattr(logistic_balls, "exp", lambda t: 0.0)  # the rough root is now wrong
    with pytest.raises(ArithmeticError, match="no certain sign change"):
        logistic_balls.enclosed_fit(MARGINS[0], Fraction(1, 3))


def test_missing_flint_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match="extra 'proofs'"):
        logistic_balls.enclosed_fit(MARGINS[0], Fraction(1, 3))
