"""Expected calibration error, thin over torchmetrics."""

from torch import Tensor

from lora_dropout.checks import check_count

# torchmetrics puts a confidence of exactly 1 into a bin of its own, beyond the last.
_BELOW_ONE = 1.0 - 2.0**-20


def expected_calibration_error(
    probabilities: Tensor, targets: Tensor, *, n_bins: int = 15
) -> float:
    """Expected calibration error of the top label, over equal-width bins.

    Args:
        probabilities: Shape (n, classes), rows sum to 1.
        targets: Class indices, shape (n,).
        n_bins: Number of bins, each with its lower edge; the last has both.

    Returns:
        The sum over bins of the share of examples times |accuracy - mean confidence|, in [0, 1].

    Raises:
        ValueError: If shapes do not fit or a row is no probability vector.
    """
    # Here, not above: torchmetrics imports transformers where it is installed, which takes seconds.
    from torchmetrics.functional.classification import multiclass_calibration_error

    check_count("n_bins", n_bins)
    if probabilities.dim() != 2 or targets.shape != probabilities.shape[:1] or len(targets) == 0:
        raise ValueError(
            "probabilities must have shape (n, classes) and targets (n,) with n > 0, "
            f"got {tuple(probabilities.shape)} and {tuple(targets.shape)}"
        )
    probabilities = probabilities.float()
    totals = probabilities.sum(dim=1)
    if not ((totals - 1).abs() < 1e-3).all() or (probabilities < 0).any():
        raise ValueError(
            f"probabilities must be rows that sum to 1, got sums {totals.tolist()[:5]}"
        )
    error = multiclass_calibration_error(
        probabilities.clamp(max=_BELOW_ONE), targets, probabilities.shape[1], n_bins
    )
    return float(error)
