"""Claims on the test-time ensemble: Eq. 8, Thm 4.5, A.3, and what finite N does."""

from itertools import product

import numpy as np

from lora_bounds.bounds.ensemble_risk import (
    EnsembleLosses,
    cross_entropy_losses,
    ensemble_excess,
    ensemble_loss,
    logistic_losses,
    squared_losses,
)
from lora_bounds.ledger.evidence import (
    ALGEBRA,
    Sweep,
    agreement,
    counterexample,
    proof,
    sweep,
    unseen,
)
from lora_bounds.rounding import Array
from lora_bounds.trial.claim import Claim, Verdict


def _every_loss(rng: np.random.Generator, members: int) -> list[EnsembleLosses]:
    scale = 10 ** rng.uniform(-2, 2)
    outputs = scale * rng.standard_normal((members, 20))
    classes = int(rng.integers(2, 6))
    logits = scale * rng.standard_normal((members, 20, classes))
    label = rng.integers(0, classes, 20)
    return [
        squared_losses(outputs=outputs, target=rng.standard_normal(20)),
        logistic_losses(logits=outputs, target=rng.choice([-1.0, 1.0], 20)),
        cross_entropy_losses(logits=logits, label=label, average="probabilities"),
        cross_entropy_losses(logits=logits, label=label, average="logits"),
    ]


def jensen_gaps() -> Sweep:
    """Returns mean member minus ensemble, relative, for four convex losses."""
    rng, slacks = np.random.default_rng(6), []
    for _ in range(1000):
        for losses in _every_loss(rng, int(rng.integers(1, 9))):
            room = ALGEBRA * (1 + np.abs(losses.mean_member))
            slacks.append(
                float(
                    np.min(
                        (losses.mean_member - losses.ensemble + room)
                        / (1 + np.abs(losses.mean_member))
                    )
                )
            )
    scope = (
        "1000 x 20 random ensembles of 1 to 8; squared, logistic, cross-entropy in both averages"
    )
    return Sweep(scope, slacks, unseen(1000))


def _sequences(values: Array, size: int) -> Array:
    """Returns every sequence of ``size`` equally likely members, members first."""
    return np.array(list(product(values, repeat=size))).T


def larger_ensembles() -> Sweep:
    """Returns how much the expected loss falls from N to N+1, over all sequences of members."""
    rng, slacks = np.random.default_rng(7), []
    for _ in range(500):
        values = 10 ** rng.uniform(-1, 1) * rng.standard_normal(3)
        for name in ("squared", "logistic"):
            target = float(rng.standard_normal()) if name == "squared" else 1.0
            means = []
            for size in range(1, 7):
                outputs = _sequences(values, size)
                losses = (
                    squared_losses(outputs=outputs, target=target)
                    if name == "squared"
                    else logistic_losses(logits=outputs, target=target)
                )
                means.append(float(np.mean(losses.ensemble)))
            slacks += list(-np.diff(means) + ALGEBRA * (1 + max(means)))
    return Sweep("500 random laws on 3 outputs, N 1 to 6, all sequences", slacks, unseen(500))


def excess_is_variance_over_size() -> Sweep:
    """Returns loss(mean) + V/N against the mean over all sequences of N members."""
    rng, slacks = np.random.default_rng(8), []
    for _ in range(500):
        values, target = rng.standard_normal(3), float(rng.standard_normal())
        limit, variance = float((values.mean() - target) ** 2), float(values.var())
        for size in range(1, 7):
            found = np.mean(
                squared_losses(outputs=_sequences(values, size), target=target).ensemble
            )
            formula = ensemble_loss(infinite_loss=limit, variance=variance, n_instances=size)
            excess = ensemble_excess(variance=variance, n_instances=size)
            slacks.append(agreement(formula, found, ALGEBRA))
            slacks.append(agreement(limit + np.asarray(excess), found, ALGEBRA))
    return Sweep("500 random laws on 3 outputs, N 1 to 6, all sequences", slacks, unseen(500))


CLAIMS = (
    Claim(
        id="Eq. 8",
        paper_item="Eq. 8, squared loss",
        statement="An ensemble of N independent members sits exactly V/N above the infinite one.",
        assumptions=("squared loss norm(y - output)^2; with the factor 1/2 it is V/(2N)",),
        evidence=(proof("ensemble-variance"), sweep(excess_is_variance_over_size)),
        recorded=Verdict.PROVED,
        formula="E loss(average of N) = loss(mean) + V/N",
        functions=(
            "bounds.ensemble_risk.ensemble_excess",
            "bounds.ensemble_risk.ensemble_loss",
            "bounds.ensemble_risk.squared_losses",
        ),
    ),
    Claim(
        id="Thm 4.5",
        paper_item="Thm 4.5",
        statement="For a loss convex in the output the ensemble is no worse than the mean member.",
        assumptions=("the loss is convex in the final activation",),
        evidence=(proof("jensen"), sweep(jensen_gaps)),
        recorded=Verdict.PROVED,
        formula="E loss(E_theta M(x; theta), y) <= E_theta E loss(M(x; theta), y)",
        functions=(
            "bounds.ensemble_risk.squared_losses",
            "bounds.ensemble_risk.logistic_losses",
            "bounds.ensemble_risk.cross_entropy_losses",
        ),
    ),
    Claim(
        id="A.3",
        paper_item="A.3",
        statement="The same for a loss that is convex in the parameters.",
        assumptions=("theta -> loss(M(x; theta), y) is convex",),
        evidence=(counterexample("a3-parameters"),),
        recorded=Verdict.REFUTED,
        formula="loss(E_theta M(x; theta), y) <= E_theta loss(M(x; theta), y)",
    ),
    Claim(
        id="Audit 10, mask-free network",
        paper_item="Thm 4.5, against the mask-free network",
        statement="The ensemble is no worse than the network without masks.",
        assumptions=("squared loss",),
        evidence=(counterexample("ensemble-vs-mask-free"),),
        recorded=Verdict.REFUTED,
        formula="loss(E_theta M(x; theta)) <= loss(M(x; theta without masks))",
        functions=("bounds.ensemble_risk.squared_losses",),
    ),
    Claim(
        id="Audit 10, 0-1 error",
        paper_item="Thm 4.5, 0-1 error",
        statement="The 0-1 error of the ensemble is at most that of the mean member.",
        assumptions=(),
        evidence=(counterexample("ensemble-zero-one"),),
        recorded=Verdict.REFUTED,
        formula="error(E_theta M(x; theta)) <= E_theta error(M(x; theta))",
    ),
    Claim(
        id="Audit 11",
        paper_item="Eq. 8, finite N",
        statement="The expected loss of the average of N members does not rise with N.",
        assumptions=("exchangeable members", "the loss is convex in the output"),
        evidence=(proof("ensemble-size"), sweep(larger_ensembles)),
        recorded=Verdict.PROVED,
        formula="E loss(average of N+1) <= E loss(average of N)",
        functions=("bounds.ensemble_risk.squared_losses", "bounds.ensemble_risk.logistic_losses"),
    ),
    Claim(
        id="T4",
        paper_item="T4",
        statement="The ensemble is no worse than the mean member, and no worse as N grows.",
        assumptions=("the loss is convex in the output", "independent masks"),
        evidence=(
            proof("jensen"),
            proof("ensemble-size"),
            sweep(jensen_gaps),
            sweep(larger_ensembles),
        ),
        recorded=Verdict.PROVED,
        formula="loss(N = infinity) <= ... <= loss(N = 2) <= loss(N = 1) = mean member",
        functions=("bounds.ensemble_risk.squared_losses", "bounds.ensemble_risk.logistic_losses"),
    ),
)
