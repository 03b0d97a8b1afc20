"""Every bound against the measured gap: the audit of digits adapters over n and lambda."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_dropout.audit import audit
from lora_dropout.training.fit_config import FitConfig
from paper_figures.experiments.digits_setup import adapted_base, population, sample, settings_for

QUESTION = (
    "Digits transformer at p = 0.5: what does each bound say with measured constants, beside the "
    "measured gap, without the penalty of Eq. 11 (as the paper trains) and with it?"
)


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        sizes: Numbers n of training examples.
        regularizations: Weights lambda of Eq. 11's penalty.
        left_out: Examples left out for the stability.
        steps: Optimiser steps.
        n_instances: Mask draws N a step.
        n_draws: Draws for the PAC-Bayes bound.
        delta: Failure probability of each bound, and of each interval that it is held against.
        pretrain_epochs: Length of the pretraining.
    """

    sizes: tuple[int, ...] = (64, 512)
    regularizations: tuple[float, ...] = (0.0, 0.01)
    left_out: int = 8
    steps: int = 120
    n_instances: int = 4
    n_draws: int = 100
    delta: float = 0.0002
    pretrain_epochs: int = 40


def run(settings: Settings, *, folder: Path) -> dict[str, Any]:
    """Train, measure and judge.

    Args:
        settings: The settings.
        folder: Where unfinished runs are kept.

    Returns:
        `gap`, `gap_low`, `gap_high`, `ensemble_gap`, `stability`, `least_curvature`, `rho`, `eta`,
        `gradient_norm`, `bounds` (on the gap) and `names`, `status`, `violated` of the bounds; each
        of shape (sizes, regularizations, ...). An infinite bound, or an unknown curvature, is None.
    """
    pool, test = population(label_noise=0.0)
    columns: dict[str, list[list[Any]]] = {}
    for n in settings.sizes:
        row: dict[str, list[Any]] = {}
        for lam in settings.regularizations:
            model = adapted_base(dropout=0.5, pretrain_epochs=settings.pretrain_epochs)
            chosen = list(sample(n, run=0, block=n, population_size=len(pool[1])))
            base = settings_for(steps=settings.steps, n=n, n_instances=settings.n_instances)
            found = audit(
                model,
                (pool[0][chosen], pool[1][chosen]),  # type: ignore[index]
                test,
                config=FitConfig(**{**vars(base), "regularization": lam}),
                left_out=settings.left_out,
                n_draws=settings.n_draws,
                delta=settings.delta,
                folder=folder / f"n-{n}-lambda-{lam}",
            )
            print(found)
            c = found.constants
            cell = {
                "gap": found.gap.gap,
                "gap_low": found.gap.interval.low,
                "gap_high": found.gap.interval.high,
                "ensemble_gap": found.ensemble_gap.gap,
                "stability": None if c.stability is None else c.stability[0],
                "least_curvature": c.curvature.least,
                "rho": c.rho,
                "eta": c.eta,
                "gradient_norm": c.gradient_norm,
                "bounds": [_finite(j.gap_bound) for j in found.judgements],
                "names": [j.name for j in found.judgements],
                "status": [str(j.status) for j in found.judgements],
                "violated": [list(j.violated) for j in found.judgements],
            }
            for name, value in cell.items():
                row.setdefault(name, []).append(value)
        for name, values in row.items():
            columns.setdefault(name, []).append(values)
    return columns


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
