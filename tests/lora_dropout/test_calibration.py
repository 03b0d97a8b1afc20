"""Expected calibration error against a second implementation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from lora_dropout import expected_calibration_error
from tests.lora_dropout.strategies import SINGLE, normal, seeds


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


def test_confidence_of_exactly_one() -> None:
    # One certain and wrong, one of confidence 0.96 and right: one bin, so the two offset.
    probabilities = torch.tensor([[1.0, 0.0], [0.96, 0.04]])
    targets = torch.tensor([1, 0])
    got = expected_calibration_error(probabilities, targets, n_bins=10)
    want = plain_ece(probabilities.numpy(), targets.numpy(), 10)
    assert want == pytest.approx(0.48, abs=1e-6)
    assert got == pytest.approx(want, abs=SINGLE)
    # The fault that this guards against; if it goes, the clamp may go too.
    assert float(multiclass_calibration_error(probabilities, targets, 2, 10)) == pytest.approx(0.52)


def test_edges_belong_to_the_upper_bin() -> None:
    probabilities = torch.tensor([[0.75, 0.25], [0.80, 0.20], [0.70, 0.30]])
    targets = torch.tensor([0, 1, 0])
    want = plain_ece(probabilities.numpy(), targets.numpy(), 4)
    got = expected_calibration_error(probabilities, targets, n_bins=4)
    assert got == pytest.approx(want, abs=SINGLE)


def test_known_values() -> None:
    assert expected_calibration_error(torch.eye(3), torch.arange(3)) == pytest.approx(0, abs=1e-5)
    wrong = expected_calibration_error(torch.eye(3), (torch.arange(3) + 1) % 3)
    assert wrong == pytest.approx(1, abs=1e-5)
    half = expected_calibration_error(torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1]))
    assert half == pytest.approx(0, abs=1e-6)


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
