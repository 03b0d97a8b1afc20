"""Fig. 4 on a linear layer: k^2 B A is the free ensemble, and scale alone can give the order."""

import numpy as np

from lora_bounds.claims.linear_layer.layers_by_enumeration import random_layer
from lora_bounds.claims.linear_layer.mask_moments import prove_variance_table
from lora_bounds.exact.linear import mean_factor, trained_update
from lora_bounds.rounding import Array
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.enumeration import masked_updates
from lora_bounds.trial.evidence import ALGEBRA, Sweep, agreement, proof, sweep, unseen


def scaled_update_is_the_ensemble() -> Sweep:
    """Returns k^2 B A x against the mean output over every mask."""
    rng, slacks = np.random.default_rng(24), []
    for _ in range(500):
        b, a, _, _ = random_layer(rng)
        p, x = float(rng.uniform(0, 1)), rng.standard_normal(3)
        updates, probability = masked_updates("row_column", b, a, p)
        scaled = mean_factor(law="row_column", dropout=p) * (b @ a) @ x
        slacks.append(agreement(scaled, probability @ (updates @ x), ALGEBRA))
    return Sweep("500 random 2 x 3 layers and inputs, every mask", slacks, unseen(500))


def scale_risks(truth: Array, noise: float, n: int, p: float) -> tuple[float, float]:
    """Expected excess risks after masked training: of the ensemble, and of B A without masks.

    One output, isotropic inputs both in the sample and afresh (Sigma = I), Gaussian target noise:
    the risks are quadratic in the noise, so unit vectors of noise give the expectation.
    """
    d = truth.size
    x, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, n), d))
    x = x * np.sqrt(n)
    factor = mean_factor(law="row_column", dropout=p)

    def trained(targets: Array) -> Array:
        cross = (targets @ x / n)[None]
        return trained_update(second_moment=x.T @ x / n, cross_moment=cross, dropout=p)[0]

    raw = trained(x @ truth)
    spread = sum(float(np.sum(trained(unit) ** 2)) for unit in np.eye(n)) * noise**2
    ensemble = float(np.sum((factor * raw - truth) ** 2)) + factor**2 * spread
    return ensemble, float(np.sum((raw - truth) ** 2)) + spread


def order_from_scale() -> Sweep:
    """Returns how far the order of the two risks is on the side that the criterion says."""
    rng, slacks = np.random.default_rng(23), []
    for _ in range(500):
        d = int(rng.integers(1, 4))
        n, p = int(rng.integers(d + 1, 15)), float(rng.uniform(0.05, 0.95))
        truth, noise = rng.standard_normal(d), float(10 ** rng.uniform(-1.5, 1.5))
        kept = (1 - p) ** 2
        ensemble, raw = scale_risks(truth, noise, n, p)
        noisy = (1 + kept) * noise**2 * d / n - (1 - kept) * float(truth @ truth)
        slacks.append(float(np.sign(noisy)) * (raw - ensemble) / (raw + ensemble))
    return Sweep("500 random problems, d <= 3, n < 15, p 0.05 to 0.95", slacks, unseen(500))


CLAIMS = (
    Claim(
        id="Linear layer, free ensemble",
        paper_item="Eq. 8, linear layer",
        statement="Scaling B A by k^2 at inference is the infinite ensemble, at no cost.",
        assumptions=("linear layer",),
        evidence=(proof(prove_variance_table), sweep(scaled_update_is_the_ensemble)),
        recorded=Verdict.PROVED,
        formula="E over masks of Bhat Ahat x = k^2 B A x",
        functions=("exact.linear.mean_factor",),
    ),
    Claim(
        id="Fig. 4, order from scale alone",
        paper_item="Fig. 4, Drop against Drop_train",
        statement=(
            "A scale mismatch alone can produce the order of Fig. 4: the ensemble (k^2 B A) beats "
            "mask-free inference (B A) exactly if noise is large, and loses if it is small."
        ),
        assumptions=("linear layer with one output", "isotropic inputs, Sigma = I"),
        evidence=(sweep(order_from_scale),),
        recorded=Verdict.HOLDS,
        formula="Drop < Drop_train  iff  (1 + k^2) sigma^2 d/n > (1 - k^2) norm(theta*)^2",
        functions=("exact.linear.trained_update", "exact.linear.mean_factor"),
    ),
)
