"""Eq. 7 of a linear layer: the risk of the mean update plus a penalty, which is Eq. 11's lambda."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_bounds.bounds.laws import MASK_LAWS
from lora_bounds.bounds.sparsity import (
    induced_regularization,
    induced_regularizer,
    sparsity_penalty,
)
from lora_bounds.claims.linear_layer.layers_by_enumeration import (
    LAYER_RATES,
    draw_layer,
    layer_objective,
    layer_ok,
    random_layer,
)
from lora_bounds.claims.symbolic_masks import diagonal, generic_layer, symbolic_updates
from lora_bounds.exact.linear import masked_objective
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Sides, equal, pair
from lora_bounds.trial.enumeration import masked_updates, mean_and_variance
from lora_bounds.trial.evidence import ALGEBRA, Sweep, agreement, proof, sweep, unseen
from lora_bounds.trial.proof import Argument, Proof
from lora_bounds.trial.search import Problem


def prove_induced_regularizer() -> Proof:
    """Prove the induced regulariser and lambda = s^2 / (2(1-q)) for Sigma = s^2 I."""
    import sympy

    argument = Argument(
        "Loss (1/2) norm(y - hhat)^2, E = k^2 Delta the mean update. The expected LoRA-Dropout "
        "objective is the risk of E plus (1/2)[(p/k) tr(E Sigma E^T) + (p/k^2) tr(E D E^T)]. For "
        "Sigma = s^2 I this is lambda q norm(E)_F^2 with lambda = s^2/(2(1-q)); written in the raw "
        "Delta it is (s^2/2) q(1-q) norm(Delta)_F^2."
    )
    b, a, sigma, p = generic_layer(2, 1, 2)
    k, q = 1 - p, 2 * p - p**2
    delta = b * a
    # E (1/2) norm(y - Delta_m x)^2 = (1/2)(E norm(y)^2 - 2 tr(Delta_m C^T) + tr(Delta_m Sigma
    # Delta_m^T)), C = E y x^T with y counted from W0 x.
    cross = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"c{i}{j}"))
    energy = sympy.Symbol("yy")

    def risk(update: sympy.Matrix) -> sympy.Expr:
        fit = (update * cross.T).trace()
        return (energy - 2 * fit + (update * sigma * update.T).trace()) / 2

    objective = sum(prob * risk(update) for update, prob in symbolic_updates("row_column", b, a, p))
    mean = k**2 * delta
    penalty = (
        p / k * (mean * sigma * mean.T).trace()
        + p / k**2 * (mean * diagonal(sigma) * mean.T).trace()
    ) / 2
    argument.zero(
        "expected masked loss = risk(E) + penalty(E), 2 x 2 update, all 16 masks",
        objective - risk(mean) - penalty,
    )
    s = sympy.Symbol("s")
    isotropic = {sigma[0, 0]: s**2, sigma[1, 1]: s**2, sigma[0, 1]: 0}
    norm_mean = sum(e**2 for e in mean)
    norm_delta = sum(e**2 for e in delta)
    argument.zero("p/k + p/k^2 = q/(1-q)", p / k + p / k**2 - q / (1 - q))
    argument.zero(
        "Sigma = s^2 I: penalty = lambda q norm(E)^2 with lambda = s^2/(2(1-q))",
        penalty.subs(isotropic) - s**2 / (2 * (1 - q)) * q * norm_mean,
    )
    argument.zero(
        "the same in the raw update: (s^2/2) q (1-q) norm(Delta)^2",
        penalty.subs(isotropic) - s**2 / 2 * q * (1 - q) * norm_delta,
    )
    argument.argued(
        "any shape: the mask moments are those of the linear layer, proved for any shape"
    )
    return argument.done()


def objectives() -> Sweep:
    """Returns the expected masked loss against summation over masks, for every law."""
    rng, slacks = np.random.default_rng(10), []
    for _ in range(300):
        b, a, sigma, cross = random_layer(rng)
        for law in MASK_LAWS:
            for p in LAYER_RATES:
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
        b, a, sigma, _ = random_layer(rng)
        scale = float(rng.uniform(0.2, 3))
        for p in LAYER_RATES:
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


def penalty_sides(share: Callable[[float], float]) -> Sides:
    """Claim that the induced penalty at Sigma = s^2 I is share(p) * s^2 q norm(E)^2."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        scale = problem["sigma"][0]
        isotropic = problem | {"sigma": (scale, 0, scale), "cross": (0, 0)}
        p = problem["p"]
        q, kept = 2 * p - p * p, (1 - p) ** 2
        norm = sum((kept * u) ** 2 for u in problem["update"])
        penalty = layer_objective(isotropic, problem["update"]) - scale * norm / 2
        return equal(float(penalty), share(float(p)) * float(scale * q * norm))

    return sides


def lambda_true(p: float) -> float:
    """Take lambda / s^2 from the library."""
    return float(induced_regularization(dropout=p, input_scale=1.0))


CLAIMS = (
    Claim(
        id="Linear layer, objective",
        paper_item="Eq. 7, linear layer",
        statement="The expected masked loss is the risk of the mean update plus half the variance.",
        assumptions=("squared loss (1/2) norm^2",),
        evidence=(proof(prove_induced_regularizer), sweep(objectives)),
        recorded=Verdict.PROVED,
        formula="E loss = risk(E) + V/2",
        functions=("exact.linear.masked_objective",),
    ),
    Claim(
        id="Linear layer, induced regulariser",
        paper_item="Eq. 11, exact lambda",
        statement=(
            "With isotropic inputs LoRA Dropout is Eq. 11 exactly, at lambda = s^2/(2(1-q)): "
            "lambda is not free."
        ),
        assumptions=("squared loss", "Sigma = s^2 I for the identity with Eq. 11"),
        evidence=(proof(prove_induced_regularizer), sweep(induced_regularizers)),
        recorded=Verdict.PROVED,
        formula="(1/2) [(p/k) tr(E S E^T) + (p/k^2) tr(E diag(S) E^T)]",
        functions=("bounds.sparsity.induced_regularizer", "bounds.sparsity.induced_regularization"),
        controls=(
            pair(
                "exact lambda, factor 2 lost",
                "lambda = s^2/(1-q)",
                draw_layer,
                layer_ok,
                false=penalty_sides(lambda p: 1 / (1 - p) ** 2),
                true=penalty_sides(lambda_true),
            ),
            pair(
                "exact lambda, 1/(1-q) lost",
                "lambda = s^2/2",
                draw_layer,
                layer_ok,
                false=penalty_sides(lambda p: 0.5),
                true=penalty_sides(lambda_true),
            ),
        ),
    ),
)
