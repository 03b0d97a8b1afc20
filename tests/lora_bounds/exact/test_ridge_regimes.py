"""The exact gap of ridge against simulated fits, its turn against differences, and the limits."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp

from lora_bounds.bounds.sparsity import drop_probability
from lora_bounds.exact.dropout_regimes import (
    dropout_limit_risks,
    dropout_turning_ratio,
    sampled_dropout_risks,
)
from lora_bounds.exact.regime_grid import regime_map, rising_rates
from lora_bounds.exact.ridge import expected_risks
from lora_bounds.exact.ridge_regimes import critical_ratio, ridge_risks, turning_ratio
from lora_bounds.exact.spectra import marchenko_pastur, wishart_spectrum

GOLDEN = (3 - 5**0.5) / 2
sizes = st.integers(1, 25)
weights = st.floats(1e-3, 30)


@pytest.mark.claim("Audit 9")
@pytest.mark.parametrize(("n", "d", "p"), [(8, 3, 0.2), (5, 5, 0.5), (4, 7, 0.9)])
def test_risks_against_simulated_inputs(n, d, p):
    """Mean over inputs of the exact conditional risks; seven standard errors of the simulation."""
    rng, trials, lam = np.random.default_rng(1), 4000, 0.4
    truth = np.zeros(d)
    truth[0] = 1.5
    seen = []
    for _ in range(trials):
        risks = expected_risks(
            inputs=rng.normal(size=(n, d)), truth=truth, second_moment=np.eye(d), noise=0.7,
            regularization=lam, dropout=p,
        )  # fmt: skip
        seen.append((risks.train, risks.test, risks.gap))
    exact = ridge_risks(
        spectrum=wishart_spectrum(n=n, d=d), weight=2 * lam * drop_probability(dropout=p),
        signal_power=2.25, noise_variance=0.49,
    )  # fmt: skip
    mean, error = np.mean(seen, axis=0), np.std(seen, axis=0) / trials**0.5
    assert np.all(np.abs(mean - [exact.train, exact.test, exact.gap]) < 7 * error)
    assert np.all(7 * error < 0.15)


@pytest.mark.claim("Audit 9")
@given(sizes, sizes, weights, st.floats(0, 3))
def test_the_gap_turns_where_the_ratio_says(n, d, w, ratio):
    spectrum, step = wishart_spectrum(n=n, d=d), 1e-4
    ends = [w * (1 - step), w * (1 + step)]
    common = {"spectrum": spectrum, "weight": ends}
    signal = np.diff(ridge_risks(signal_power=1.0, noise_variance=0.0, **common).gap)[0]
    noise = np.diff(ridge_risks(signal_power=0.0, noise_variance=1.0, **common).gap)[0]
    assert noise < 0
    found = turning_ratio(spectrum=spectrum, weight=w)
    assert found == pytest.approx(signal / -noise, rel=1e-4, abs=1e-6)
    both = np.diff(ridge_risks(signal_power=1.0, noise_variance=ratio, **common).gap)[0]
    if abs(ratio - found) > 1e-3 * (1 + abs(found)):
        assert (both > 0) == (ratio < found)


@given(sizes, sizes, weights)
def test_gap_is_the_difference_and_train_rises(n, d, w):
    spectrum = wishart_spectrum(n=n, d=d)
    risks = ridge_risks(spectrum=spectrum, weight=[w, 2 * w], signal_power=1.0, noise_variance=0.5)
    assert risks.gap == pytest.approx(risks.test - risks.train, abs=1e-10)
    assert risks.train[0] < risks.train[1]


def test_least_squares():
    for n, d in ((10, 3), (3, 10)):
        spectrum = wishart_spectrum(n=n, d=d)
        tiny, zero = (
            ridge_risks(spectrum=spectrum, weight=w, signal_power=1.0, noise_variance=1.0).test
            for w in (1e-10, 0.0)
        )
        assert tiny == pytest.approx(zero, rel=1e-6)
    square = wishart_spectrum(n=4, d=4)
    risks = ridge_risks(spectrum=square, weight=[0.0, 1.0], signal_power=1.0, noise_variance=1.0)
    assert np.isinf(risks.gap[0]) and np.isfinite(risks.gap[1]) and np.all(np.isfinite(risks.train))
    quiet = ridge_risks(spectrum=square, weight=0.0, signal_power=1.0, noise_variance=0.0)
    assert quiet.test == pytest.approx(0.0, abs=1e-12)


@pytest.mark.claim("Audit 9")
@given(sizes, sizes, st.sampled_from([0.02, 0.2, 1.0, np.inf]))
def test_critical_ratio_is_the_largest_on_a_finer_grid(n, d, lam):
    spectrum = wishart_spectrum(n=n, d=d)
    found = critical_ratio(spectrum=spectrum, regularization=lam)
    grid = np.geomspace(1e-7, min(2 * lam, 1e4), 3001)
    best = max(0.0, float(turning_ratio(spectrum=spectrum, weight=grid).max()))
    assert found.ratio >= best - 1e-12
    assert found.ratio == pytest.approx(best, rel=1e-3, abs=1e-8)
    if found.ratio > 0:
        assert turning_ratio(spectrum=spectrum, weight=found.weight) == pytest.approx(found.ratio)
    assert 0 <= found.ratio < 2 / 3  # approached for one input and many examples


@pytest.mark.claim("T1, few examples")
@given(st.integers(2, 60), st.integers(2, 60))
def test_with_few_examples_it_never_turns(n, d):
    """r(w) > 0 for some w exactly if E μ⁻¹ < E μ⁻² over the eigenvalues that are not 0."""
    excess = abs(n - d)
    large = max(n, d)
    turns = excess <= 3 or excess * (excess - 3) < n * (large - 1)
    margin = excess * (excess - 3) / (n * (large - 1)) - 1
    if abs(margin) < 0.02:
        return  # r is below rounding there
    assert (critical_ratio(spectrum=wishart_spectrum(n=n, d=d)).ratio > 0) == turns


@pytest.mark.claim("T1, few examples")
@pytest.mark.parametrize(("aspect", "turns"), [(GOLDEN - 1e-3, False), (GOLDEN + 1e-3, True)])
def test_the_golden_threshold_of_the_limit(aspect, turns):
    assert (critical_ratio(spectrum=marchenko_pastur(aspect=aspect)).ratio > 0) == turns


@pytest.mark.claim("Audit 9")
@given(st.floats(0.3, 20), st.sampled_from([0.05, 0.5, 4.0]), st.floats(0.0, 0.4))
def test_rising_rates_are_those_of_the_gap(aspect, lam, ratio):
    spectrum = marchenko_pastur(aspect=aspect)
    rise = rising_rates(spectrum=spectrum, regularization=lam, noise_to_signal=ratio)
    rates = np.linspace(0.001, 1, 400)
    gap = ridge_risks(
        spectrum=spectrum, weight=2 * lam * drop_probability(dropout=rates), signal_power=1.0,
        noise_variance=ratio,
    ).gap  # fmt: skip
    steps, scale = np.diff(gap), 1e-12 + 1e-10 * np.abs(gap).max()
    if rise is None:
        assert np.all(steps <= scale)
    else:
        inside = (rates[:-1] >= rise.start) & (rates[1:] <= rise.end)
        outside = (rates[1:] <= rise.start) | (rates[:-1] >= rise.end)
        assert np.all(steps[inside] >= -scale)
        assert np.all(steps[outside] <= scale)
        boundary = critical_ratio(spectrum=spectrum, regularization=lam)
        assert rise.start <= boundary.dropout <= rise.end


def test_map_agrees_with_its_parts():
    for d in (6, None):
        found = regime_map(
            aspects=[0.2, 1.0, 4.0],
            regularizations=[0.1, 1.0],
            noise_to_signal=[0.0, 0.1, 1.0],
            d=d,
        )
        assert found.critical.shape == (3, 2)
        turns = found.noise_to_signal < found.critical[:, :, None]
        assert np.array_equal(np.isfinite(found.rise_start), turns)
        assert np.all(found.rise_start[turns] <= found.rise_end[turns])
        assert not turns[0].any() and not turns[..., 2].any() and turns[2, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        found.critical[0, 0] = 1.0


@pytest.mark.claim("Audit 9, every law")
def test_heavy_tails_by_hand():
    """Inputs 1 (nine times in ten) or 10, n = 6, noise variance = signal power: the gap rises."""
    rates, lam, share = np.array([0.18, 0.36]), 5.0, 0.1
    weight = 2 * lam * (2 * rates - rates**2)
    second, gap = 0.9 + 0.1 * 100, np.zeros(2)
    for count in range(7):  # how often 10 is drawn
        chance = comb(6, count) * share**count * (1 - share) ** (6 - count)
        mu = (6 - count + 100 * count) / 6
        signal = (second - mu) * (weight / (mu + weight)) ** 2
        noise = second * mu * (second + mu + 2 * weight) / (mu + weight) ** 2 / 6
        gap += chance * (signal + noise) / 2
    assert gap[1] > gap[0]


@pytest.mark.claim("Audit 9, many examples")
def test_gaussian_inputs_have_fourth_moment_three():
    """The limit in n, (E x⁴ - 1)/3 = 2/3, is approached from below at the rate 1/n."""
    ratios = np.array(
        [critical_ratio(spectrum=wishart_spectrum(n=n, d=1)).ratio for n in (500, 1000)]
    )
    missing = 2 / 3 - ratios
    assert np.all(missing > 0)
    assert missing[0] / missing[1] == pytest.approx(2.0, rel=0.02)


# --- LoRA Dropout itself --------------------------------------------------------------------------


@pytest.mark.claim("T1, LoRA Dropout")
@pytest.mark.parametrize("inference", ["ensemble", "raw"])
def test_sampled_risks_against_fits_of_simulated_targets(inference):
    """One sample of inputs: average over unit noises and axes of θ*, fit by fit."""
    n, p = 6, 0.4
    sigma = np.array([[1.0, 0.5], [0.5, 2.0]])
    found = sampled_dropout_risks(
        n=n, second_moment=sigma, dropout=[p], samples=2, seed=3, inference=inference
    )
    x = np.random.default_rng(3).standard_normal((2, n, 2))[0] @ np.linalg.cholesky(sigma).T
    moment = x.T @ x / n
    k = 1 - p

    def fit(targets):
        update = np.linalg.solve(k * moment + p * np.diag(np.diag(moment)), x.T @ targets / n)
        return update * (k**2 if inference == "ensemble" else 1.0)

    train, test = np.zeros(2), np.zeros(2)  # signal, noise
    for truth in np.eye(2) / np.sqrt(np.trace(sigma)):
        error = fit(x @ truth) - truth
        train[0] += np.mean((x @ error) ** 2) / 2
        test[0] += error @ sigma @ error / 2
    for unit in np.eye(n):
        theta = fit(unit)
        train[1] += np.mean((unit - x @ theta) ** 2) / 2
        test[1] += theta @ sigma @ theta / 2
    test[1] += 0.5
    assert [found.signal_train[0, 0], found.noise_train[0, 0]] == pytest.approx(train, rel=1e-10)
    assert [found.signal_test[0, 0], found.noise_test[0, 0]] == pytest.approx(test, rel=1e-10)
    assert found.gap(noise_to_signal=2.0)[0, 0] == pytest.approx(
        test[0] - train[0] + 2 * (test[1] - train[1]), rel=1e-9
    )


@pytest.mark.claim("T1, LoRA Dropout")
def test_the_sample_tends_to_the_limit():
    rates, errors = np.array([0.1, 0.3, 0.6]), []
    limit = dropout_limit_risks(
        aspect_spectrum=marchenko_pastur(aspect=2.0), dropout=rates, signal_power=1.0,
        noise_variance=0.3,
    )  # fmt: skip
    for d in (6, 24, 48):
        found = sampled_dropout_risks(
            n=2 * d, second_moment=np.eye(d), dropout=rates, samples=200, seed=0
        )
        errors.append(np.abs(found.gap(noise_to_signal=0.3).mean(axis=0) - limit.gap).max())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


@pytest.mark.claim("T1, LoRA Dropout")
@given(st.floats(0.6, 20), st.floats(0.02, 0.98))
def test_the_limit_turns_where_the_ratio_says(aspect, p):
    spectrum, step = marchenko_pastur(aspect=aspect), 1e-5
    common = {"aspect_spectrum": spectrum, "dropout": [p - step, p + step]}
    signal = np.diff(dropout_limit_risks(signal_power=1.0, noise_variance=0.0, **common).gap)[0]
    noise = np.diff(dropout_limit_risks(signal_power=0.0, noise_variance=1.0, **common).gap)[0]
    found = dropout_turning_ratio(aspect_spectrum=spectrum, dropout=p)
    assert noise < 0
    assert found == pytest.approx(signal / -noise, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("aspect", "turns"), [(0.45, False), (0.55, True)])
def test_lora_dropout_never_turns_with_fewer_than_half_as_many_examples_as_inputs(aspect, turns):
    rates = np.concatenate([np.geomspace(1e-6, 1e-2, 100), np.linspace(0.01, 0.999, 300)])
    ratio = dropout_turning_ratio(aspect_spectrum=marchenko_pastur(aspect=aspect), dropout=rates)
    assert (ratio.max() > 0) == turns


GOOD = {"n": 3, "second_moment": [[1.0]], "dropout": [0.5], "samples": 2, "seed": 0}
SPECTRUM = wishart_spectrum(n=3, d=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ridge_risks(
                spectrum=SPECTRUM, weight=-1.0, signal_power=1.0, noise_variance=1.0
            ),
            r"weight=-1\.0",
        ),
        (
            lambda: ridge_risks(
                spectrum=SPECTRUM, weight=1.0, signal_power=-1.0, noise_variance=1.0
            ),
            r"signal_power=-1\.0",
        ),
        (
            lambda: ridge_risks(
                spectrum=SPECTRUM, weight=1.0, signal_power=1.0, noise_variance=-1.0
            ),
            r"noise_variance=-1\.0",
        ),
        (lambda: critical_ratio(spectrum=SPECTRUM, regularization=0.0), r"regularization=0\.0"),
        (lambda: turning_ratio(spectrum=SPECTRUM, weight=-2.0), r"weight=-2\.0"),
        (
            lambda: rising_rates(spectrum=SPECTRUM, regularization=np.inf, noise_to_signal=0.0),
            "regularization=inf",
        ),
        (
            lambda: regime_map(aspects=[0.0], regularizations=[1.0], noise_to_signal=[0.1]),
            r"aspects=0\.0",
        ),
        (lambda: dropout_turning_ratio(aspect_spectrum=SPECTRUM, dropout=1.0), r"dropout=1\.0"),
        (lambda: sampled_dropout_risks(**{**GOOD, "dropout": [0.0]}), r"dropout=0\.0"),
        (lambda: sampled_dropout_risks(**{**GOOD, "samples": 1}), r"samples=1\.0"),
        (lambda: sampled_dropout_risks(**GOOD, inference="mean"), "inference='mean'"),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def limit_means(aspect, w):
    """E 1/(μ+w), E 1/(μ+w)² and E 1/(μ+w)³ from γ w m² + (1 - γ + w) m = 1, in mpmath."""
    gamma, w = 1 / mp.mpf(aspect), mp.mpf(w)
    linear = 1 - gamma + w
    m = (mp.sqrt(linear**2 + 4 * gamma * w) - linear) / (2 * gamma * w)
    slope = 2 * gamma * w * m + linear
    first = -(gamma * m**2 + m) / slope
    second = -(4 * gamma * m * first + 2 * gamma * w * first**2 + 2 * first) / slope
    return m, -first, second / 2


def limit_risks(aspect, w, signal, noise):
    gamma = 1 / mp.mpf(aspect)
    if w == 0:
        kernel = max(1 - mp.mpf(aspect), 0)
        spread = gamma / (1 - gamma) if aspect > 1 else 1 / (gamma - 1)
        train = noise * max(1 - gamma, 0) / 2
        return train, (signal * kernel + noise * (1 + spread)) / 2
    m, square, _ = limit_means(aspect, w)
    missing = mp.mpf(w) ** 2 * square
    train = signal * mp.mpf(w) ** 2 * (m - w * square) + noise * (1 - gamma * (1 - missing))
    return train / 2, (signal * missing + noise * (1 + gamma * (m - w * square))) / 2


ASPECTS = [1e-50, 1e-8, 0.3, 0.99, 1 - 1e-6, 1 - 1e-10, 1 - 2.0**-53]
ASPECTS += [1.0, 1 + 2.0**-52, 1 + 1e-10, 1 + 1e-6, 1.01, 3.0, 1e8]


@pytest.mark.parametrize("aspect", ASPECTS)
def test_risks_in_the_limit_at_every_weight(aspect):
    spectrum = marchenko_pastur(aspect=aspect)
    for w in (0.0, 1e-300, 1e-100, 1e-40, 1e-20, 1e-10, 1e-4, 1.0, 1e4, 1e100, 1e150):
        for signal, noise in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0)):
            if aspect == 1 and w == 0:
                continue
            found = ridge_risks(
                spectrum=spectrum, weight=w, signal_power=signal, noise_variance=noise
            )
            with mp.workdps(1000):
                train, test = limit_risks(aspect, w, signal, noise)
                want = [float(train), float(test), float(test - train)]
            got = [found.train, found.test, found.gap]
            assert got == pytest.approx(want, rel=1e-9, abs=1e-200), (w, signal, noise)


@pytest.mark.parametrize("aspect", [*ASPECTS, 1e15])
def test_turning_ratio_in_the_limit_at_every_weight(aspect):
    spectrum = marchenko_pastur(aspect=aspect)
    for w in (1e-40, 1e-10, 1e-3, 0.3, 1.0, 30.0, 1e6, 1e90):
        found = turning_ratio(spectrum=spectrum, weight=w)
        with mp.workdps(400):
            _, square, cube = limit_means(aspect, w)
            # E μ/(μ+w)³ and E μ²/(μ+w)³ = E 1/(μ+w) - 2w E 1/(μ+w)² + w² E 1/(μ+w)³.
            m, linear = limit_means(aspect, w)[0], square - w * cube
            quadratic = m - 2 * w * square + mp.mpf(w) ** 2 * cube
            want = float(aspect * (w / (1 + mp.mpf(w))) * (1 - quadratic / linear))
        # r crosses 0: next to its size at other weights.
        assert found == pytest.approx(want, rel=1e-7, abs=1e-8 * min(aspect, 1.0) * min(w, 1.0))


def test_an_aspect_whose_eigenvalues_are_1_to_double_precision_is_refused():
    with pytest.raises(ValueError, match=r"aspect must be in \[1e-100, 1e20\]"):
        marchenko_pastur(aspect=1e21)
