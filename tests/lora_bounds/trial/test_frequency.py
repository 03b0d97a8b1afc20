"""Claims about probabilities: false ones are rejected, true ones only as rarely as stated."""

import pytest
from scipy.stats import binom, binomtest

from lora_bounds.trial.frequency import RandomClaim, check_frequency, judge_frequency


def coin(probability, claimed):
    return RandomClaim("coin", "", lambda rng: bool(rng.random() < probability), claimed)


@pytest.mark.parametrize(("probability", "claimed"), [(0.5, 0.4), (0.1, 0.05), (1.0, 0.9)])
def test_a_claim_that_fails_too_often_is_rejected(probability, claimed):
    assert check_frequency(coin(probability, claimed), trials=3000, seed=0).rejected


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5, 1.0])
def test_an_exactly_true_claim_is_not(probability):
    result = check_frequency(coin(probability, probability), trials=3000, seed=0)
    assert not result.rejected
    assert result.lower <= probability <= result.upper


@pytest.mark.parametrize("failures", [0, 1, 7, 19, 20])
def test_limits_solve_their_equations(failures):
    outcomes = iter([True] * failures + [False] * (20 - failures))
    claim = RandomClaim("listed", "", lambda rng: next(outcomes), 0.5)
    result = check_frequency(claim, trials=20, seed=0, error_probability=0.01)
    # The defining equations: P(X >= k; lower) = P(X <= k; upper) = error probability.
    if failures == 0:
        assert result.lower == 0
    else:
        assert binom.sf(failures - 1, 20, result.lower) == pytest.approx(0.01, rel=1e-10)
    if failures == 20:
        assert result.upper == 1
    else:
        assert binom.cdf(failures, 20, result.upper) == pytest.approx(0.01, rel=1e-10)


def test_false_rejections_are_as_rare_as_stated():
    """At error probability 1/10, 400 checks of a true claim: the count is binomial, at most 0.1."""
    rejected = sum(
        check_frequency(coin(0.3, 0.3), trials=100, seed=s, error_probability=0.1).rejected
        for s in range(400)
    )
    # P(Binomial(400, 0.1) >= 73) < 1e-6.
    assert binomtest(73, 400, 0.1, alternative="greater").pvalue < 1e-6
    assert rejected < 73


def test_bad_frequency_arguments_are_rejected():
    with pytest.raises(ValueError, match="trials=0"):
        check_frequency(coin(0.5, 0.5), trials=0, seed=0)
    for bad in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match=f"error_probability={bad}"):
            check_frequency(coin(0.5, 0.5), trials=1, seed=0, error_probability=bad)


def test_a_count_is_judged_as_the_trials_are():
    outcomes = iter([True] * 7 + [False] * 13)
    listed = RandomClaim("listed", "", lambda rng: next(outcomes), 0.1)
    checked = check_frequency(listed, trials=20, seed=0, error_probability=0.01)
    judged = judge_frequency(
        name="listed", failures=7, trials=20, probability=0.1, error_probability=0.01
    )
    assert checked == judged
    assert judged.rejected
    with pytest.raises(ValueError, match="failures=21"):
        judge_frequency(name="", failures=21, trials=20, probability=0.1)
    with pytest.raises(ValueError, match=r"probability=1\.5"):
        judge_frequency(name="", failures=0, trials=20, probability=1.5)
