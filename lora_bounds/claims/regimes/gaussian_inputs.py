"""Exact gaps of ridge regression over the penalty, for Gaussian inputs of random sizes."""

import numpy as np

from lora_bounds.exact.ridge_regimes import ridge_risks
from lora_bounds.exact.spectra import wishart_spectrum
from lora_bounds.rounding import Array

GAUSSIAN = "isotropic Gaussian inputs, targets linear in them plus noise, theta0 = 0"


WEIGHTS = np.geomspace(1e-4, 1e4, 161)


def shapes(seed: int, count: int) -> list[tuple[int, int]]:
    """Returns random n and d, uniform in the log, up to 64."""
    rng = np.random.default_rng(seed)
    return [(int(a), int(b)) for a, b in np.exp(rng.uniform(0.0, np.log(65), (count, 2)))]


def gap_over_weights(n: int, d: int, ratio: float) -> Array:
    """Exact gap at each of `WEIGHTS`, at this ratio of noise variance to signal power."""
    spectrum = wishart_spectrum(n=n, d=d)
    found = ridge_risks(spectrum=spectrum, weight=WEIGHTS, signal_power=1.0, noise_variance=ratio)
    return np.asarray(found.gap)
