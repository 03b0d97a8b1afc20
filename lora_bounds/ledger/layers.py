"""Sweeps on the linear layer: closed forms against summation over masks and iteration."""

import numpy as np

from lora_bounds.bounds.laws import MASK_LAWS, LawName
from lora_bounds.bounds.sparsity import (
    drop_probability,
    induced_regularization,
    induced_regularizer,
    sparsity_penalty,
)
from lora_bounds.exact.linear import (
    QuadraticLaw,
    effective_moment,
    mask_variance,
    masked_objective,
    mean_factor,
    minimizer,
    trained_update,
)
from lora_bounds.ledger.enumeration import masked_updates, mean_and_variance
from lora_bounds.ledger.evidence import (
    ALGEBRA,
    QUADRATURE,
    Sweep,
    agreement,
    unseen,
)
from lora_bounds.rounding import Array

_RATES = (0.1, 0.3, 0.5, 0.8)


def _layer(rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Returns B (2, 2), A (2, 3), Sigma (3, 3) and G (2, 3)."""
    root = rng.standard_normal((3, 4))
    b, a, cross = (rng.standard_normal(shape) for shape in ((2, 2), (2, 3), (2, 3)))
    return b, a, root @ root.T / 4, cross


def _table_row(law: LawName) -> Sweep:
    rng, slacks = np.random.default_rng(9), []
    for _ in range(500):
        b, a, sigma, _ = _layer(rng)
        for p in _RATES:
            mean, variance = mean_and_variance(*masked_updates(law, b, a, p), sigma)
            found = mask_variance(law=law, b=b, a=a, second_moment=sigma, dropout=p)
            slacks.append(agreement(found, variance, ALGEBRA))
            slacks.append(agreement(mean_factor(law=law, dropout=p) * (b @ a), mean, ALGEBRA))
    return Sweep("500 random 2 x 3 layers of rank 2, every mask, 4 rates", slacks, unseen(500))


def row_column_row() -> Sweep:
    """Returns mean and variance under LoRA Dropout against summation over masks."""
    return _table_row("row_column")


def activation_row() -> Sweep:
    """Returns mean and variance under activation dropout against summation over masks."""
    return _table_row("activation")


def rank_row() -> Sweep:
    """Returns mean and variance under rank masks against summation over masks."""
    return _table_row("rank")


def entrywise_row() -> Sweep:
    """Returns mean and variance under entrywise masks against summation over masks."""
    return _table_row("entrywise")


def objectives() -> Sweep:
    """Returns the expected masked loss against summation over masks, for every law."""
    rng, slacks = np.random.default_rng(10), []
    for _ in range(300):
        b, a, sigma, cross = _layer(rng)
        for law in MASK_LAWS:
            for p in _RATES:
                updates, probability = masked_updates(law, b, a, p)
                quadratic = np.einsum("kij,jl,kil->k", updates, sigma, updates)
                losses = (5.0 - 2 * np.einsum("kij,ij->k", updates, cross) + quadratic) / 2
                formula = masked_objective(
                    law=law,
                    b=b,
                    a=a,
                    second_moment=sigma,
                    cross_moment=cross,
                    target_moment=5.0,
                    dropout=p,
                )
                slacks.append(agreement(formula, probability @ losses, ALGEBRA))
    return Sweep("300 random layers, five laws, 4 rates, every mask", slacks, unseen(300))


def induced_regularizers() -> Sweep:
    """Returns the induced regulariser against half the mask variance, and Eq. 11 at its lambda."""
    rng, slacks = np.random.default_rng(11), []
    for _ in range(500):
        b, a, sigma, _ = _layer(rng)
        scale = float(rng.uniform(0.2, 3))
        for p in _RATES:
            mean = (1 - p) ** 2 * (b @ a)
            half = mean_and_variance(*masked_updates("row_column", b, a, p), sigma)[1] / 2
            found = induced_regularizer(mean_update=mean, second_moment=sigma, dropout=p)
            slacks.append(agreement(found, half, ALGEBRA))
            isotropic = induced_regularizer(
                mean_update=mean, second_moment=scale**2 * np.eye(3), dropout=p
            )
            penalty = sparsity_penalty(
                dropout=p,
                regularization=induced_regularization(dropout=p, input_scale=scale),
                squared_norm=float((mean**2).sum()),
            )
            slacks.append(agreement(isotropic, penalty, ALGEBRA))
    return Sweep("500 random layers, 4 rates, every mask", slacks, unseen(500))


def dropout_at_rate_q() -> Sweep:
    """Returns M of LoRA Dropout at p against M of dropout at q, for diagonal Sigma."""
    rng, slacks = np.random.default_rng(12), []
    for p in np.linspace(0, 0.99, 100):
        q = float(drop_probability(dropout=p))
        sigma = np.diag(rng.uniform(0.1, 3, 4))
        ours = effective_moment(law="row_column", second_moment=sigma, dropout=float(p))
        usual = effective_moment(law="activation", second_moment=sigma, dropout=q)
        slacks.append(agreement(ours / usual.max(), usual / usual.max(), ALGEBRA))
    return Sweep("100 rates in [0, 0.99], random diagonal Sigma", slacks)


def minimizers() -> Sweep:
    """Returns objective at other updates of rank r minus that at the closed-form minimiser.

    The others are random ones near and far, and the end of 200 alternating exact minimisations
    over B and over A, which no closed form enters.
    """
    rng, slacks = np.random.default_rng(13), []
    laws: tuple[QuadraticLaw, ...] = ("row_column", "activation")
    for _ in range(150):
        b, a, sigma, cross = _layer(rng)
        for law in laws:
            p, rank = float(rng.uniform(0, 0.9)), int(rng.integers(1, 3))
            moment = effective_moment(law=law, second_moment=sigma, dropout=p)

            def value(update: Array, moment: Array = moment, cross: Array = cross) -> float:
                return float(np.sum((update @ moment) * update) / 2 - np.sum(update * cross))

            best = minimizer(law=law, second_moment=sigma, cross_moment=cross, dropout=p, rank=rank)
            left, right, free = b[:, :rank], a[:rank], cross @ np.linalg.inv(moment)
            for _ in range(200):
                left = cross @ right.T @ np.linalg.pinv(right @ moment @ right.T)
                right = np.linalg.pinv(left) @ free
            found = value(left @ right)
            room = ALGEBRA * (1 + abs(found))
            slacks.append(found - value(best) + room)
            slacks.append(QUADRATURE * (1 + abs(found)) - abs(found - value(best)))
            for size in (1e-3, 0.1, 10.0):
                step = size * rng.standard_normal((2, rank)) @ rng.standard_normal((rank, 3))
                u, s, v = np.linalg.svd(best + step, full_matrices=False)
                slacks.append(value((u[:, :rank] * s[:rank]) @ v[:rank]) - value(best) + room)
    return Sweep("150 random layers, two laws, ranks 1 and 2", slacks, unseen(300))


def raw_updates() -> Sweep:
    """Returns B A at the minimum against E / k^2, and against its limits at p = 0 and p = 1."""
    rng, slacks = np.random.default_rng(14), []
    for _ in range(500):
        _, _, sigma, cross = _layer(rng)
        p = float(rng.uniform(0, 0.95))
        moments = {"second_moment": sigma, "cross_moment": cross}
        mean = minimizer(law="row_column", dropout=p, second_moment=sigma, cross_moment=cross)
        ends = (
            (trained_update(dropout=p, **moments), mean / (1 - p) ** 2),
            (trained_update(dropout=0.0, **moments), cross @ np.linalg.inv(sigma)),
            (trained_update(dropout=1.0, **moments), cross / np.diag(sigma)),
            (
                trained_update(dropout=p, second_moment=2 * np.eye(3), cross_moment=cross),
                cross / 2,
            ),
        )
        slacks += [agreement(got, want, ALGEBRA) for got, want in ends]
    return Sweep("500 random layers, p in [0, 0.95] and the limits", slacks, unseen(500))


def scale_risks(truth: Array, noise: float, n: int, p: float) -> tuple[float, float]:
    """Expected excess risks after masked training: of the ensemble, and of B A without masks.

    One output, isotropic inputs both in the sample and afresh (Sigma = I), Gaussian target noise:
    the risks are quadratic in the noise, so unit vectors of noise give the expectation.

    Args:
        truth: theta*, of shape (d,).
        noise: standard deviation of the target noise.
        n: sample size, at least d.
        p: the rate.

    Returns:
        E norm(k^2 B A - theta*)^2 and E norm(B A - theta*)^2.
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


def scaled_update_is_the_ensemble() -> Sweep:
    """Returns k^2 B A x against the mean output over every mask."""
    rng, slacks = np.random.default_rng(24), []
    for _ in range(500):
        b, a, _, _ = _layer(rng)
        p, x = float(rng.uniform(0, 1)), rng.standard_normal(3)
        updates, probability = masked_updates("row_column", b, a, p)
        scaled = mean_factor(law="row_column", dropout=p) * (b @ a) @ x
        slacks.append(agreement(scaled, probability @ (updates @ x), ALGEBRA))
    return Sweep("500 random 2 x 3 layers and inputs, every mask", slacks, unseen(500))
