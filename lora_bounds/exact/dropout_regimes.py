"""The generalization gap of LoRA Dropout itself on a linear layer: does it fall with p?

The layer has squared loss, one output (outputs add up) and full rank, and it is at the minimum of
its expected masked loss on the sample: B A = Xᵀy/n (k S + p diag S)⁻¹ with S = XᵀX/n, k = 1-p. The
infinite ensemble predicts with k² B A, mask-free inference with B A. There is no free λ.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from lora_bounds.domains import (
    Call,
    OneNonNegative,
    Reals,
    Repetitions,
    SecondMoment,
    Seed,
    Vector,
    Whole,
    checked,
    exact,
    kernel_of,
    short,
)
from lora_bounds.exact.ridge_regimes import SpectralRisks, shrinkage_risks
from lora_bounds.exact.spectra import Spectrum
from lora_bounds.rounding import Array, Numbers

Inference: TypeAlias = Literal["ensemble", "raw"]


class _PositiveDefinite(SecondMoment):
    """A matrix E[x xᵀ] that has an inverse."""

    def _read(self, name: str, value: Any, call: Call) -> Any:
        array = super()._read(name, value, call)
        try:
            np.linalg.cholesky(array)
        except np.linalg.LinAlgError:
            raise ValueError(f"{name} must be positive definite, got {short(value)}") from None
        return array


@checked
def dropout_limit_risks(
    *,
    aspect_spectrum: Spectrum,
    dropout: Annotated[Any, Reals("(0, 1]")],
    signal_power: OneNonNegative,
    noise_variance: OneNonNegative,
) -> SpectralRisks:
    """Compute the limit of the ensemble's expected risks for isotropic Gaussian inputs.

    As n and d grow with n/d fixed, diag S tends to the identity, so that the ensemble tends to
    the shrunken ridge predictor with μ g(μ) = k² μ / (k μ + p).

    Args:
        aspect_spectrum: `lora_bounds.exact.spectra.marchenko_pastur` at n/d.
        dropout: the rate p, in (0, 1].
        signal_power: S = ‖θ*‖², at least 0.
        noise_variance: σ², at least 0.

    Returns:
        The risks, of the shape of ``dropout``.
    """
    p = dropout[..., None]
    mu, kept = aspect_spectrum.values, 1.0 - p
    risks: SpectralRisks = kernel_of(shrinkage_risks)(
        spectrum=aspect_spectrum,
        shrinkage=kept**2 * mu / (kept * mu + p),
        signal_power=signal_power,
        noise_variance=noise_variance,
    )
    return risks


@checked
def dropout_turning_ratio(
    *, aspect_spectrum: Spectrum, dropout: Annotated[Any, Reals("(0, 1)")]
) -> Numbers:
    """Compute the ratio σ²/S under which the limit of the ensemble's gap rises with p.

    Args:
        aspect_spectrum: `lora_bounds.exact.spectra.marchenko_pastur` at n/d.
        dropout: the rate p, in (0, 1).

    Returns:
        The ratio; negative where the gap falls whatever the noise.

    >>> from lora_bounds.exact.spectra import marchenko_pastur
    >>> rates = np.linspace(0.001, 0.999, 999)
    >>> ratio = dropout_turning_ratio(aspect_spectrum=marchenko_pastur(aspect=1e6), dropout=rates)
    >>> round(float(ratio.max()), 3)
    0.201
    """
    p = dropout[..., None]
    # A node at 0 counts for nothing in every sum; at 1 it divides nothing by 0.
    kernel, kept = aspect_spectrum.values == 0.0, 1.0 - p
    mu = np.where(kernel, 1.0, aspect_spectrum.values)
    weights = np.where(kernel, 0.0, aspect_spectrum.weights)
    factor = kept**2 / (kept * mu + p)
    # -dg/dp, positive; the signal part of the gap changes by (1-μ)(1-μg) μ of it, and so on.
    slope = weights * mu * (kept**2 * (1.0 + mu) + 2.0 * kept * p) / (kept * mu + p) ** 2
    signal = np.sum(slope * (1.0 - mu) * (1.0 - mu * factor), axis=-1)
    noise = np.sum(slope * (1.0 + factor - mu * factor), axis=-1)
    return np.asarray(aspect_spectrum.aspect * signal / noise)


@dataclass(frozen=True, eq=False)
class SampledRisks:
    """Risks of the trained layer for sampled inputs; the expectation over the rest is exact.

    Each table has one sample of inputs a row and one rate a column. Rows are independent, rates
    within a row share their inputs. The signal parts are per unit of signal power, the noise parts
    per unit of noise variance.

    Attributes:
        dropout: the rates, of shape (rates,).
        signal_train: shape (samples, rates).
        signal_test: shape (samples, rates).
        noise_train: shape (samples, rates).
        noise_test: shape (samples, rates).
    """

    dropout: Array
    signal_train: Array
    signal_test: Array
    noise_train: Array
    noise_test: Array

    def train(self, *, noise_to_signal: float) -> Array:
        """The empirical risks at signal power 1.

        Args:
            noise_to_signal: σ²/S, at least 0.

        Returns:
            Shape (samples, rates).
        """
        return self.signal_train + noise_to_signal * self.noise_train

    def test(self, *, noise_to_signal: float) -> Array:
        """The risks on fresh data at signal power 1.

        Args:
            noise_to_signal: σ²/S, at least 0.

        Returns:
            Shape (samples, rates).
        """
        return self.signal_test + noise_to_signal * self.noise_test

    def gap(self, *, noise_to_signal: float) -> Array:
        """The generalization gaps at signal power 1.

        Args:
            noise_to_signal: σ²/S, at least 0.

        Returns:
            Shape (samples, rates).
        """
        return self.test(noise_to_signal=noise_to_signal) - self.train(
            noise_to_signal=noise_to_signal
        )


@exact
def sampled_dropout_risks(
    *,
    n: Repetitions,
    second_moment: Annotated[Any, _PositiveDefinite()],
    dropout: Annotated[Any, Vector("", "(0, 1]")],
    samples: Annotated[int, Whole(2, 10**9)],
    seed: Seed,
    inference: Inference = "ensemble",
) -> SampledRisks:
    """Compute the risks of the trained layer over sampled Gaussian inputs, for any Σ.

    Targets are xᵀθ* plus noise; the expectation over the noise, over fresh inputs and over the
    direction of θ* (uniform, scaled to a mean signal power E θ*ᵀΣθ* = 1) is exact.

    Args:
        n: number of examples, at least 1.
        second_moment: Σ, of shape (d, d), positive definite.
        dropout: rates p in (0, 1], of shape (rates,).
        samples: number of samples of inputs, at least 2.
        seed: seed of the inputs.
        inference: ``"ensemble"`` for k² B A, ``"raw"`` for B A.

    Returns:
        The tables.
    """
    rates, sigma, d = dropout, second_moment, len(second_moment)
    root = np.linalg.cholesky(sigma)
    x = np.random.default_rng(seed).standard_normal((samples, n, d)) @ root.T
    moment = np.swapaxes(x, 1, 2) @ x / n
    diagonal = np.einsum("kii->ki", moment)[:, :, None] * np.eye(d)
    power = float(np.trace(sigma))
    tables = np.empty((4, samples, rates.size))
    for column, p in enumerate(rates.tolist()):
        kept = 1.0 - p
        factor = np.linalg.inv(kept * moment + p * diagonal)
        if inference == "ensemble":
            factor = kept**2 * factor
        fit = factor @ moment
        error = fit - np.eye(d)
        squares = error @ np.swapaxes(error, 1, 2) / power
        spread = fit @ np.swapaxes(factor, 1, 2) / n
        fitted = (2.0 * np.einsum("kii->k", fit) - np.einsum("kij,kji->k", fit, fit)) / n
        tables[0, :, column] = np.einsum("kji,kjl,kli->k", error, moment, error) / power
        tables[1, :, column] = np.einsum("ij,kji->k", sigma, squares)
        tables[2, :, column] = 1.0 - fitted
        tables[3, :, column] = 1.0 + np.einsum("ij,kji->k", sigma, spread)
    return SampledRisks(rates, *(tables / 2.0))
