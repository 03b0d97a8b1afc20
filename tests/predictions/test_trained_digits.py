"""Predictions about adapters of the digits transformer: minutes, so not in the profile `ci`."""

import os
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lora_dropout import LoRADropoutConfig, adapt
from lora_dropout.replicas import Replica, Replicas, fit_replicas
from lora_dropout.tasks.digits import pretrain_digits
from paper_figures.experiments.digits_setup import losses, means_over, population, sample
from paper_figures.experiments.digits_setup import settings_for as settings_of_run
from tests.predictions.checks import check_page_trend

pytestmark = pytest.mark.skipif(
    os.environ.get("HYPOTHESIS_PROFILE", "ci") == "ci",
    reason="the digits transformer takes minutes: HYPOTHESIS_PROFILE=thorough or nightly",
)
RATES = (0.0, 0.25, 0.5, 0.7)
SEEDS = 10
FEW = max(2, settings.default.max_examples // 250)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Problem:
    """Shifted digits; paste its repr to replay it."""

    n: int
    rank: int
    label_noise: float

    def model(self) -> nn.Module:
        """The pretrained base with adapters on its blocks."""
        config = LoRADropoutConfig(
            rank=self.rank, alpha=2.0 * self.rank, dropout=0.5, target_modules=r"blocks\..*"
        )
        generator = torch.Generator().manual_seed(0)
        return adapt(pretrain_digits(progress=False), config, generator=generator)


@cache
def _runs(problem: Problem) -> tuple[nn.Module, Replicas, list[tuple[int, ...]]]:
    model, (pool, _) = problem.model(), population(label_noise=problem.label_noise)
    replicas = [
        Replica(
            seed=seed,
            init_seed=seed,
            dropout=rate,
            examples=sample(problem.n, seed=seed, population_size=len(pool[1])),
        )
        for seed in range(SEEDS)
        for rate in RATES
    ]
    config = settings_of_run(steps=120, n=problem.n, n_instances=4)
    runs = fit_replicas(model, pool, replicas, config=config, progress=False)
    return model, runs, [replica.examples or () for replica in replicas]


problems = st.builds(
    Problem, st.sampled_from([32, 64]), st.sampled_from([4, 8]), st.sampled_from([0.0, 0.4])
)


@settings(max_examples=FEW)
@given(problems)
def test_training_loss_rises_with_p(problem: Problem) -> None:
    model, runs, samples = _runs(problem)
    pool, _ = population(label_noise=problem.label_noise)
    seen = means_over(losses(runs.outputs(model, pool[0]), pool[1]), samples)
    check_page_trend(seen.view(SEEDS, -1).numpy(), "increasing", least_effect=0.5)


@settings(max_examples=FEW)
@given(problems.filter(lambda problem: problem.label_noise > 0))
def test_the_gap_falls_with_p_where_noise_dominates(problem: Problem) -> None:
    model, runs, samples = _runs(problem)
    pool, test = population(label_noise=problem.label_noise)
    train = means_over(losses(runs.outputs(model, pool[0]), pool[1]), samples)
    risk = losses(runs.outputs(model, test[0]), test[1]).double().mean(dim=1)
    check_page_trend((risk - train).view(SEEDS, -1).numpy(), "decreasing", least_effect=0.5)


@settings(max_examples=FEW)
@given(problems)
def test_the_ensemble_s_loss_falls_with_its_size(problem: Problem) -> None:
    """Disjoint ensembles of 1, 2, 4 and 8 out of the same 8 members, at each p above 0."""
    model, runs, _ = _runs(problem)
    _, (images, labels) = population(label_noise=problem.label_noise)
    members = torch.stack(
        [
            runs.outputs(model, images, inference="ensemble", n_instances=1, seed=s).softmax(-1)
            for s in range(8)
        ]
    )
    columns = []
    for size in (1, 2, 4, 8):
        mixed = members.unflatten(0, (8 // size, size)).mean(dim=1).log()
        columns.append(torch.stack([losses(block, labels).mean(dim=1) for block in mixed]).mean(0))
    table = torch.stack(columns, dim=1).view(SEEDS, len(RATES), 4)[:, 1:].flatten(0, 1)
    assert (table.diff(dim=1) <= 1e-6).all()  # exact: convexity, over all disjoint blocks
    check_page_trend(table.double().numpy(), "decreasing", least_effect=0.9)
