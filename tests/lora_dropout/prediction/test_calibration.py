"""Calibration errors and scores against second implementations, by loops and by hand."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from lora_dropout import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)
from lora_dropout.prediction.calibration import _bins, calibration_terms
from lora_dropout.probes.quality import prediction_quality
from tests.lora_dropout.strategies import IDENTITY, SINGLE, normal, seeds

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def plain_ece(probabilities: np.ndarray, targets: np.ndarray, n_bins: int) -> float:
    """Bins [i/m, (i+1)/m), the last closed; one loop, no tricks."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    total = 0.0
    for i in range(n_bins):
        low, high = np.float32(i / n_bins), np.float32((i + 1) / n_bins)
        inside = (confidence >= low) & ((confidence < high) | (i == n_bins - 1))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)


@given(
    st.integers(1, 40), st.integers(2, 5), st.integers(1, 20), st.sampled_from([0.1, 1, 9]), seeds()
)
def test_against_plain_numpy(n: int, classes: int, bins: int, sharp: float, seed: int) -> None:
    logits = sharp * normal(n, classes, seed=seed, dtype=torch.float32)
    probabilities = logits.softmax(dim=1)
    targets = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    # Hypothesis of the comparison: no confidence so close to an edge that rounding decides.
    edge = probabilities.amax(dim=1) * bins
    if ((edge - edge.round()).abs() < 1e-4).any() and bins > 1:
        probabilities = probabilities * 0.998 + 0.002 / classes
    got = expected_calibration_error(probabilities, targets, n_bins=bins)
    assert got == pytest.approx(plain_ece(probabilities.numpy(), targets.numpy(), bins), abs=SINGLE)
    terms = calibration_terms(probabilities, targets, n_bins=bins)
    assert float(terms.mean()) == pytest.approx(got, abs=SINGLE)


def test_confidence_of_exactly_one() -> None:
    # One certain and wrong, one of confidence 0.96 and right: one bin, so the two offset.
    probabilities = torch.tensor([[1.0, 0.0], [0.96, 0.04]])
    targets = torch.tensor([1, 0])
    got = expected_calibration_error(probabilities, targets, n_bins=10)
    want = plain_ece(probabilities.numpy(), targets.numpy(), 10)
    assert want == pytest.approx(0.48, abs=1e-6)
    assert got == pytest.approx(want, abs=SINGLE)
    # One reason why the bins are our own.
    assert float(multiclass_calibration_error(probabilities, targets, 2, 10)) == pytest.approx(0.52)


def test_edges_belong_to_the_upper_bin() -> None:
    probabilities = torch.tensor([[0.75, 0.25], [0.80, 0.20], [0.70, 0.30]])
    targets = torch.tensor([0, 1, 0])
    want = plain_ece(probabilities.numpy(), targets.numpy(), 4)
    got = expected_calibration_error(probabilities, targets, n_bins=4)
    assert got == pytest.approx(want, abs=SINGLE)


def nearest(edge: Fraction, dtype: torch.dtype) -> Fraction:
    """The number of the dtype next to an edge, in exact arithmetic."""
    about = torch.tensor(float(edge), dtype=dtype)
    ends = torch.tensor([-1.0, 2.0], dtype=dtype)
    around = [about, *(torch.nextafter(about, end) for end in ends)]
    return min((Fraction(float(x)) for x in around), key=lambda x: abs(x - edge))


def spread_rest(confidence: torch.Tensor, classes: int) -> torch.Tensor:
    """Rows with a given top probability; the other classes share the rest."""
    rest = (1 - confidence.double()) / (classes - 1)
    rows = rest[:, None].repeat(1, classes).to(confidence.dtype)
    rows[:, 0] = confidence
    return rows


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_edge_belongs_to_the_upper_bin_in_every_dtype(dtype: torch.dtype) -> None:
    """One example on edge k/n and right, one in the middle of bin k and wrong: they offset."""
    for n in range(2, 51):
        edges = [float(nearest(Fraction(k, n), dtype)) for k in range(1, n)]
        found = _bins(torch.tensor(edges, dtype=torch.float64).to(dtype), n)
        assert found.tolist() == list(range(1, n))
    for n in (7, 25):
        for k in range(1, n):
            edge = nearest(Fraction(k, n), dtype)
            pair = torch.tensor([float(edge), (k + 0.5) / n], dtype=torch.float64).to(dtype)
            got = expected_calibration_error(spread_rest(pair, 60), torch.tensor([0, 1]), n_bins=n)
            want = abs(1 - edge - Fraction(float(pair[1]))) / 2
            assert got == pytest.approx(float(want), abs=1e-12), (k, n)


@pytest.mark.parametrize("dtype", FLOATS)
@given(st.floats(0, 1), st.integers(1, 300))
def test_bins_in_exact_arithmetic(dtype: torch.dtype, value: float, n_bins: int) -> None:
    """The last bin whose lower edge, rounded to the dtype, is not above the value."""
    values = torch.tensor([value], dtype=torch.float64).to(dtype)
    exact = Fraction(float(values))
    want = min(int(exact * n_bins), n_bins - 1)
    while want + 1 < n_bins and nearest(Fraction(want + 1, n_bins), dtype) <= exact:
        want += 1
    assert _bins(values, n_bins).tolist() == [want]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_brier_score_has_the_same_bins(dtype: torch.dtype) -> None:
    """Forecasts 0.84 and 0.85 share one of 25 bins, for either class or its complement 1/25."""
    top = torch.tensor([0.84, 0.85], dtype=dtype)
    got = brier_score(torch.stack([top, 1 - top], dim=1), torch.tensor([0, 1]), n_bins=25)
    # Class 0: one bin of mean 0.845 and frequency 1/2. Class 1: 0.16 and 0.15, two bins.
    want = (0.845 - 0.5) ** 2 + (0.16**2 + 0.85**2) / 2
    assert got.reliability == pytest.approx(want, abs=1e-6)


def test_equal_logits_lie_on_the_edge_of_their_bin() -> None:
    for classes in range(2, 60):
        outputs, targets = torch.zeros(4, classes), torch.tensor([0, 1, 1, 1])
        outputs[2:, 1] = np.log(1.5)  # confidence 1.5/(classes + 0.5), in the same bin
        found = prediction_quality(outputs, targets, n_bins=classes, resamples=2)
        want = abs((1 - 2 / classes) + 2 * (1 - 1.5 / (classes + 0.5))) / 4
        assert found.ece.value == pytest.approx(want, abs=1e-7), classes


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [2, 10, 1000, 50_000])
@pytest.mark.parametrize("sharp", [0.1, 1, 9])
def test_probabilities_of_every_dtype(dtype: torch.dtype, classes: int, sharp: float) -> None:
    """A softmax, or the mean of three, sums to 1 as far as its dtype can."""
    logits = (sharp * normal(3, 4, classes, seed=classes)).to(dtype)
    targets = torch.arange(4) % classes
    for rows in (logits[0].softmax(-1), logits.softmax(-1).mean(0)):
        for measure in (expected_calibration_error, adaptive_calibration_error):
            assert 0 <= measure(rows, targets) <= 1
        score = (rows.double() - torch.eye(4, classes)[targets]).square().sum(1).mean()
        if classes < 1000:
            assert brier_score(rows, targets).score == pytest.approx(float(score))
        loss = negative_log_likelihood(rows, targets)
        assert loss == pytest.approx(float(-rows.double()[range(4), targets].log().mean()))


def test_what_no_rounding_explains_is_refused_in_every_dtype() -> None:
    for dtype in FLOATS:
        for row in ([0.7, 0.35], [0.5, 0.45], [1.01, -0.01]):
            with pytest.raises(ValueError, match="rows that sum to 1, got sums"):
                negative_log_likelihood(torch.tensor([row], dtype=dtype), torch.tensor([0]))


def test_known_values() -> None:
    assert expected_calibration_error(torch.eye(3), torch.arange(3)) == pytest.approx(0, abs=1e-5)
    wrong = expected_calibration_error(torch.eye(3), (torch.arange(3) + 1) % 3)
    assert wrong == pytest.approx(1, abs=1e-5)
    half = expected_calibration_error(torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1]))
    assert half == pytest.approx(0, abs=1e-6)


def test_a_target_is_a_class() -> None:
    for targets in (torch.tensor([0, 2]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0])):
        for measure in (
            expected_calibration_error,
            adaptive_calibration_error,
            brier_score,
            negative_log_likelihood,
        ):
            with pytest.raises(ValueError, match=r"targets must be class indices in \[0, 2\), got"):
                measure(torch.eye(2), targets)


def plain_adaptive(probabilities: np.ndarray, targets: np.ndarray, n_bins: int) -> float:
    """Sort, share out among ties, cut; the first bins are the larger ones."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    shared = np.array([right[confidence == c].mean() for c in confidence])
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, n_bins)
    return sum(abs(shared[p].sum() - confidence[p].sum()) for p in parts if len(p)) / len(targets)


@given(st.integers(1, 40), st.integers(2, 4), st.integers(1, 50), st.booleans(), seeds())
def test_adaptive_error_against_plain_numpy(
    n: int, classes: int, bins: int, ties: bool, seed: int
) -> None:
    probabilities = (2 * normal(n, classes, seed=seed)).softmax(dim=1)
    if ties:
        probabilities = probabilities[torch.arange(n) % 3 % n]
    targets = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    got = adaptive_calibration_error(probabilities, targets, n_bins=bins)
    want = plain_adaptive(probabilities.numpy(), targets.numpy(), bins)
    assert got == pytest.approx(want, abs=IDENTITY)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 1))
    again = adaptive_calibration_error(probabilities[shuffled], targets[shuffled], n_bins=bins)
    assert again == pytest.approx(got, abs=IDENTITY)


def test_adaptive_error_by_hand() -> None:
    # Confidences 0.6, 0.7 | 0.8, 0.9; right: no, yes | yes, yes. |1 - 1.3| + |2 - 1.7| over 4.
    top = torch.tensor([0.9, 0.7, 0.8, 0.6], dtype=torch.float64)
    probabilities = torch.stack([top, 1 - top], dim=1)
    targets = torch.tensor([0, 0, 0, 1])
    assert adaptive_calibration_error(probabilities, targets, n_bins=2) == pytest.approx(0.15)
    # One bin: 3 of 4 right at a mean confidence of 0.75.
    assert adaptive_calibration_error(probabilities, targets, n_bins=1) == pytest.approx(0.0)


def plain_brier(probabilities: np.ndarray, targets: np.ndarray, n_bins: int) -> list[float]:
    n, classes = probabilities.shape
    score = reliability = resolution = uncertainty = within = 0.0
    for c in range(classes):
        f, o = probabilities[:, c], (targets == c).astype(float)
        score += np.mean((f - o) ** 2)
        uncertainty += o.mean() * (1 - o.mean())
        bins = np.minimum((f * n_bins).astype(int), n_bins - 1)
        for b in set(bins):
            fb, ob = f[bins == b], o[bins == b]
            share = len(fb) / n
            reliability += share * (fb.mean() - ob.mean()) ** 2
            resolution += share * (ob.mean() - o.mean()) ** 2
            within += share * (fb.var() - 2 * np.mean((fb - fb.mean()) * (ob - ob.mean())))
    return [score, reliability, resolution, uncertainty, within]


@given(st.integers(1, 40), st.integers(2, 5), st.integers(1, 20), seeds())
def test_brier_score_against_loops_and_its_identity(
    n: int, classes: int, bins: int, seed: int
) -> None:
    probabilities = (2 * normal(n, classes, seed=seed)).softmax(dim=1)
    targets = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    got = brier_score(probabilities, targets, n_bins=bins)
    parts = [got.score, got.reliability, got.resolution, got.uncertainty, got.within_bins]
    want = plain_brier(probabilities.numpy(), targets.numpy(), bins)
    assert parts == pytest.approx(want, abs=IDENTITY)
    total = got.reliability - got.resolution + got.uncertainty + got.within_bins
    assert got.score == pytest.approx(total, abs=IDENTITY)


def test_brier_score_of_few_forecasts_needs_no_term_within_bins() -> None:
    # Murphy's three terms alone, where a bin holds one value: 0.8 three times of 4, 0.2 never.
    rain = torch.tensor([0.8] * 4 + [0.2] * 4, dtype=torch.float64)
    targets = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0])
    got = brier_score(torch.stack([1 - rain, rain], dim=1), targets, n_bins=10)
    assert got.within_bins == pytest.approx(0.0, abs=IDENTITY)
    assert got.reliability == pytest.approx(2 * (0.5 * 0.05**2 + 0.5 * 0.2**2))
    assert got.resolution == pytest.approx(2 * 0.375**2)
    assert got.uncertainty == pytest.approx(2 * 0.375 * 0.625)


def test_negative_log_likelihood_by_hand() -> None:
    probabilities = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    got = negative_log_likelihood(probabilities, torch.tensor([0, 1]))
    assert got == pytest.approx((np.log(4) + np.log(2)) / 2)
    assert negative_log_likelihood(torch.eye(2), torch.tensor([1, 1])) == np.inf


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="n_bins must be at least 1, got n_bins=0"):
        expected_calibration_error(torch.eye(2), torch.arange(2), n_bins=0)
    for probabilities, targets in (
        (torch.eye(2), torch.arange(3)),
        (torch.zeros(0, 2), torch.zeros(0).long()),
        (torch.ones(2), torch.arange(2)),
    ):
        with pytest.raises(ValueError, match=r"probabilities must have shape \(n, classes\)"):
            expected_calibration_error(probabilities, targets)
    for row in ([0.7, 0.7], [1.5, -0.5], [float("nan"), 0.5]):
        with pytest.raises(ValueError, match="probabilities must be rows that sum to 1, got sums"):
            expected_calibration_error(torch.tensor([row]), torch.tensor([0]))


def test_terms_carry_the_scatter_of_the_error_over_runs_and_examples() -> None:
    """Two predictors of one law, K runs crossed with m examples: neither is better calibrated."""
    from lora_bounds.trial.effects import crossed
    from lora_bounds.trial.frequency import judge_frequency

    rng, runs, examples, repeats, level = np.random.default_rng(0), 6, 200, 150, 0.05
    wrong = 0
    for _ in range(repeats):
        ease = rng.normal(1.0, 1.5, size=(examples, 1))
        logits = (
            1.5 * ease + rng.normal(size=(2, runs, 1, 1)) + rng.normal(size=(2, runs, examples, 1))
        )
        right = rng.random((2, runs, examples)) < 1 / (1 + np.exp(-(logits[..., 0] - 0.5)))
        sure = torch.tensor(1 / (1 + np.exp(-np.abs(logits))))
        probabilities = torch.cat([sure, 1 - sure], dim=-1)
        answer = torch.tensor((right == (logits[..., 0] > 0)).astype(np.int64))
        terms = [
            [calibration_terms(p, 1 - a).numpy() for p, a in zip(*pair, strict=True)]
            for pair in zip(probabilities, answer, strict=True)
        ]
        difference = np.subtract(*np.array(terms))
        effect = crossed(
            difference.mean(axis=1),
            example_variance=float(difference.mean(axis=0).var(ddof=1)),
            examples=examples,
        )
        wrong += effect.low(level) > 0.0
    found = judge_frequency(
        name="", failures=wrong, trials=repeats, probability=level, error_probability=1e-3
    )
    assert not found.rejected, wrong
