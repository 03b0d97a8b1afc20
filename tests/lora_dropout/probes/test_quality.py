"""Bootstrapped scores against the plain scores of resamples, and their coverage."""

import numpy as np
import pytest
import torch
from scipy import stats

from lora_dropout.prediction.calibration import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)
from lora_dropout.probes.quality import prediction_quality
from tests.lora_dropout.strategies import normal


def problem(n: int = 30, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn from the very probabilities, which are thus calibrated."""
    logits = 1.5 * normal(n, classes, seed=seed)
    rng = np.random.default_rng(seed)
    labels = [rng.choice(classes, p=p) for p in logits.softmax(dim=1).numpy()]
    return logits, torch.tensor(labels)


def test_values_and_intervals_are_those_of_the_scores() -> None:
    logits, targets = problem()
    got = prediction_quality(logits, targets, n_bins=5, resamples=60, confidence=0.8, seed=3)
    probabilities = logits.softmax(dim=1)
    rng = np.random.default_rng(3)
    samples = [np.arange(30), *rng.integers(0, 30, (60, 30))]
    scores = {
        "accuracy": lambda p, y: float((p.argmax(1) == y).double().mean()),
        "ece": lambda p, y: expected_calibration_error(p, y, n_bins=5),
        "adaptive_ece": lambda p, y: adaptive_calibration_error(p, y, n_bins=5),
        "nll": negative_log_likelihood,
        "brier": lambda p, y: brier_score(p, y, n_bins=5).score,
        "reliability": lambda p, y: brier_score(p, y, n_bins=5).reliability,
        "resolution": lambda p, y: brier_score(p, y, n_bins=5).resolution,
        "uncertainty": lambda p, y: brier_score(p, y, n_bins=5).uncertainty,
        "within_bins": lambda p, y: brier_score(p, y, n_bins=5).within_bins,
    }
    assert set(scores) == set(vars(got))
    for name, score in scores.items():
        value, *resampled = [score(probabilities[i], targets[i]) for i in samples]
        estimate = getattr(got, name)
        assert estimate.value == pytest.approx(value, abs=1e-9), name
        ends = np.quantile(resampled, [0.1, 0.9])
        assert (estimate.interval.low, estimate.interval.high) == pytest.approx(ends, abs=1e-9)
        assert estimate.interval.confidence == 0.8


def test_seeded() -> None:
    logits, targets = problem()
    one, two, other = (
        prediction_quality(logits, targets, resamples=20, seed=s).nll.interval for s in (0, 0, 1)
    )
    assert one == two != other


def test_the_interval_of_a_mean_covers() -> None:
    # Expected NLL of calibrated forecasts, by a large sample; 60 samples of 50.
    logits, targets = problem(20000, seed=99)
    truth = negative_log_likelihood(logits.softmax(dim=1), targets)
    hits = 0
    for seed in range(60):
        found = prediction_quality(*problem(50, seed=seed), resamples=50, confidence=0.9)
        hits += found.nll.interval.low <= truth <= found.nll.interval.high
    # Percentile intervals cover a little less than they say; 0.8 is far off for neither side.
    assert stats.binomtest(hits, 60, 0.8).pvalue > 1e-3 and hits < 60


def test_extreme_logits_have_a_finite_likelihood() -> None:
    logits = torch.tensor([[2000.0, 0.0], [0.0, 2000.0]])
    got = prediction_quality(logits, torch.tensor([1, 1]), resamples=10)
    assert got.nll.value == 1000.0 and got.accuracy.value == 0.5


def test_bad_input() -> None:
    logits, targets = problem()
    for name, least in (("n_bins", 1), ("resamples", 2)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {name}=0"):
            prediction_quality(logits, targets, **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), got confidence=1"):
        prediction_quality(logits, targets, confidence=1)
    with pytest.raises(ValueError, match="targets must be at least 2 to be resampled, got 1"):
        prediction_quality(logits[:1], targets[:1])
    with pytest.raises(ValueError, match="seed must be at least 0, got seed=-1"):
        prediction_quality(logits, targets, seed=-1)
