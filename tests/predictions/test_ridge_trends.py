"""The predicted trends over p on sparsity-regularised ridge, each in a regime from the map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_bounds.bounds.sparsity import drop_probability
from lora_bounds.exact.regime_grid import rising_rates
from lora_bounds.exact.ridge import expected_risks, ridge_fit
from lora_bounds.exact.ridge_regimes import critical_ratio, ridge_risks
from lora_bounds.exact.spectra import wishart_spectrum
from tests.predictions.checks import check_monotone, check_page_trend
from tests.predictions.strategies import RidgeProblem, ridge_problems

RATES = np.linspace(0.05, 1.0, 8)
FEW = settings(max_examples=8)


def gaps(problem: RidgeProblem, noise_to_signal: float, rates, repetitions):
    """Exact gaps given the inputs, a sample of inputs a row; isotropic inputs, signal power 1."""
    rng = np.random.default_rng(problem.seed)
    truth = np.ones(problem.d) / np.sqrt(problem.d)
    return np.array(
        [
            [
                expected_risks(
                    inputs=x, truth=truth, second_moment=np.eye(problem.d),
                    noise=noise_to_signal**0.5, regularization=problem.regularization,
                    dropout=float(p),
                ).gap
                for p in rates
            ]
            for x in rng.standard_normal((repetitions, problem.n, problem.d))
        ]
    )  # fmt: skip


@st.composite
def regime_problems(draw):
    d = draw(st.integers(3, 8))
    n = d * draw(st.integers(1, 3)) + 2
    lam = draw(st.floats(0.5, 3.0))
    return RidgeProblem(n, d, 1.0, 0.0, lam, 1.0, draw(st.integers(0, 10**6)))


@FEW
@given(regime_problems(), st.floats(4.0, 20.0))
def test_gap_falls_with_p_in_the_noise_dominated_regime(problem, excess):
    boundary = critical_ratio(
        spectrum=wishart_spectrum(n=problem.n, d=problem.d), regularization=problem.regularization
    )
    table = gaps(problem, excess * boundary.ratio, RATES, 20)
    check_page_trend(table, "decreasing", least_effect=0.5)
    with pytest.raises(AssertionError, match="no trend"):
        check_page_trend(table, "increasing")


@FEW
@given(regime_problems())
def test_gap_turns_with_p_in_the_signal_dominated_regime(problem):
    """A tenth of the critical ratio: the gap rises between the rates that the map names."""
    spectrum = wishart_spectrum(n=problem.n, d=problem.d)
    boundary = critical_ratio(spectrum=spectrum, regularization=problem.regularization)
    noise = boundary.ratio / 10
    rise = rising_rates(
        spectrum=spectrum, regularization=problem.regularization, noise_to_signal=noise
    )
    assert rise is not None
    exact = ridge_risks(
        spectrum=spectrum,
        weight=2 * problem.regularization * drop_probability(dropout=RATES / 20 * rise.start),
        signal_power=1.0,
        noise_variance=noise,
    ).gap
    check_monotone(exact, "decreasing")  # before the turn
    middle = boundary.dropout
    table = gaps(problem, noise, np.linspace(rise.start, middle, 4), 400)
    check_page_trend(table, "increasing")


@given(ridge_problems())
def test_training_risk_rises_with_p(problem):
    x, y = problem.sample(np.random.default_rng(problem.seed))

    def risk(p):
        return ridge_fit(
            inputs=x, targets=y, regularization=problem.regularization, dropout=float(p)
        ).train_risk

    risks = [risk(p) for p in RATES]
    check_monotone(risks, "increasing")
    with pytest.raises(AssertionError, match="not decreasing"):
        check_monotone(risks, "decreasing")


@given(st.integers(1, 15), st.integers(1, 15), st.floats(0.05, 10.0))
def test_test_risk_is_u_shaped_around_the_bayes_weight(n, d, noise):
    """Isotropic inputs: w = (d/n) sigma^2/S is best exactly, for each n and d, on both sides."""
    best = noise * d / n
    below, above = np.geomspace(best / 100, best, 12), np.geomspace(best, best * 100, 12)
    spectrum = wishart_spectrum(n=n, d=d)
    common = {"spectrum": spectrum, "signal_power": 1.0, "noise_variance": noise}
    check_monotone(ridge_risks(weight=below, **common).test, "decreasing")
    check_monotone(ridge_risks(weight=above, **common).test, "increasing")
    with pytest.raises(AssertionError, match="not decreasing"):
        check_monotone(ridge_risks(weight=above, **common).test, "decreasing")
