"""The exact spectrum against closed forms, integration over all eigenvalues, and simulation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi2

from lora_bounds.exact.spectra import marchenko_pastur, wishart_spectrum

SHAPES = [(1, 1), (5, 1), (1, 5), (2, 2), (7, 3), (3, 7), (20, 20), (40, 15), (60, 120), (150, 149)]


@pytest.mark.claim("Audit 9")
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_moments_match_their_closed_forms(n, d):
    found = wishart_spectrum(n=n, d=d)
    mu, weights = found.values, found.weights
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert weights @ mu == pytest.approx(1.0, rel=1e-12)
    assert weights @ mu**2 == pytest.approx(1 + (d + 1) / n, rel=1e-12)
    third = (n**2 + 3 * n * d + d**2 + 3 * n + 3 * d + 4) / n**2  # Letac and Massam 2004
    assert weights @ mu**3 == pytest.approx(third, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(5, 2), (7, 3), (3, 7), (40, 15), (60, 120)])
def test_inverse_moments_match_their_closed_forms(n, d):
    """E tr W^-1 = m/(K-m-1), E tr W^-2 = m(K-1)/((K-m)(K-m-1)(K-m-3)) for W = GᵀG, G (K, m)."""
    found, m, large = wishart_spectrum(n=n, d=d), min(n, d), max(n, d)
    kept = found.values > 0
    mu, weights = found.values[kept] * n, found.weights[kept] * d
    excess = large - m
    assert weights @ mu**-1.0 == pytest.approx(m / (excess - 1), rel=1e-10)
    if excess > 3:
        second = m * (large - 1) / (excess * (excess - 1) * (excess - 3))
        assert weights @ mu**-2.0 == pytest.approx(second, rel=1e-10)


def test_one_input_is_a_chi_square():
    for n in (1, 2, 9):
        found = wishart_spectrum(n=n, d=1)
        want = chi2(n).expect(lambda x, n=n: 1 / (x / n + 0.3))
        assert found.weights @ (1 / (found.values + 0.3)) == pytest.approx(want, rel=1e-6)


@pytest.mark.claim("Audit 9")
@pytest.mark.parametrize("n", [2, 3, 6])
def test_two_inputs_by_integrating_the_joint_density(n):
    """Singular values s > t of a (n, 2) matrix: density (s t)^(n-2) (s² - t²) exp(-(s²+t²)/2)."""
    x, w = np.polynomial.legendre.leggauss(200)
    upper, uw = (x + 1) * 6, w * 6
    total, mean = 0.0, 0.0
    for s, ws in zip(upper, uw, strict=True):
        t, wt = (x + 1) * s / 2, w * s / 2
        density = (s * t) ** (n - 2) * (s**2 - t**2) * np.exp(-(s**2 + t**2) / 2)
        density = density * ws * wt
        total += density.sum()
        mean += density @ (1 / (s**2 / n + 0.2) + 1 / (t**2 / n + 0.2)) / 2
    found = wishart_spectrum(n=n, d=2)
    assert found.weights @ (1 / (found.values + 0.2)) == pytest.approx(mean / total, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(4, 4), (12, 5), (5, 9)])
def test_against_simulation(n, d):
    """Each draw of (1/d) tr f lies in [0, 1]: Hoeffding's inequality at an error of 1e-9."""
    rng, trials, w = np.random.default_rng(0), 20_000, 0.3
    x = rng.normal(size=(trials, n, d))
    mu = np.linalg.eigvalsh(np.swapaxes(x, 1, 2) @ x / n)
    simulated = np.mean(w / (np.maximum(mu, 0) + w))
    found = wishart_spectrum(n=n, d=d)
    exact = found.weights @ (w / (found.values + w))
    assert abs(exact - simulated) <= np.sqrt(np.log(2 / 1e-9) / (2 * trials))
    assert exact == pytest.approx(simulated, rel=0.01)


@given(st.floats(0.05, 50), st.floats(1e-3, 10))
def test_the_limit_has_the_stieltjes_transform_of_marchenko_and_pastur(aspect, w):
    """m = E 1/(μ + w) solves γ w m² + (1 - γ + w) m = 1."""
    found, gamma = marchenko_pastur(aspect=aspect), 1 / aspect
    m = found.weights @ (1 / (found.values + w))
    assert gamma * w * m**2 + (1 - gamma + w) * m == pytest.approx(1.0, rel=1e-9)
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-10)


@pytest.mark.claim("T1, limit")
def test_the_exact_spectrum_tends_to_the_limit():
    limit = marchenko_pastur(aspect=2.0)
    want = limit.weights @ (1 / (limit.values + 0.5))
    errors = [
        abs(s.weights @ (1 / (s.values + 0.5)) - want)
        for s in (wishart_spectrum(n=2 * d, d=d) for d in (8, 16, 32, 64))
    ]
    assert np.array(errors[:-1]) / errors[1:] == pytest.approx(np.full(3, 2.0), rel=0.1)


def test_density_of_marchenko_pastur_by_adaptive_quadrature():
    gamma = 0.5
    a, b = (1 - gamma**0.5) ** 2, (1 + gamma**0.5) ** 2
    for power in (-1, 3):
        want = quad(
            lambda x, k=power: x**k * np.sqrt((b - x) * (x - a)) / (2 * np.pi * gamma * x), a, b
        )[0]
        found = marchenko_pastur(aspect=2.0)
        assert found.weights @ found.values ** float(power) == pytest.approx(want, rel=1e-7)


def test_where_least_squares_has_a_variance():
    for n, d in product(range(1, 6), repeat=2):
        assert wishart_spectrum(n=n, d=d).invertible == (abs(n - d) >= 2)
    assert not marchenko_pastur(aspect=1.0).invertible
    with pytest.raises(ValueError, match="read-only"):
        wishart_spectrum(n=3, d=1).values[0] = 1.0


def test_rejections():
    with pytest.raises(ValueError, match=r"n must be in .* got n=0\.0"):
        wishart_spectrum(n=0, d=1)
    with pytest.raises(ValueError, match=r"d must be .* got d=1\.5"):
        wishart_spectrum(n=1, d=1.5)
    with pytest.raises(ValueError, match=r"aspect=0\.0"):
        marchenko_pastur(aspect=0.0)
    with pytest.raises(ArithmeticError, match="got n=450 and d=450"):
        wishart_spectrum(n=450, d=450)
