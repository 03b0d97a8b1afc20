"""Predictions about trained adapters of a two-layer network, over repeated training.

A run is a fit of `fit_replicas` on a sample of its own; the problem is a few numbers to paste.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lora_bounds import hoeffding, lemma_4_3
from lora_bounds.bounds.ensemble_risk import ensemble_loss
from lora_dropout import FitConfig, LoRADropoutConfig, adapt
from lora_dropout.probes.retraining import leave_one_out
from lora_dropout.replicas import Replica, fit_replicas
from tests.predictions.checks import (
    check_below,
    check_equal,
    check_failure_rate,
    check_monotone,
    check_page_trend,
    check_rate,
)

IN, HIDDEN, CLASSES = 6, 8, 3
FEW = max(2, settings.default.max_examples // 20)  # type: ignore[union-attr]
CONFIG = FitConfig(epochs=60, batch_size=64, learning_rate=0.03, schedule="linear", n_instances=4)


@dataclass(frozen=True)
class Problem:
    """Classification by a random network, some labels replaced by random ones."""

    seed: int
    label_noise: float
    correlation: float = 0.0
    rank: int = 2

    def data(self, n: int, stream: int = 0) -> tuple[Tensor, Tensor]:
        """A sample; streams are independent."""
        draw = torch.Generator().manual_seed(self.seed)
        moment = torch.full((IN, IN), self.correlation, dtype=torch.float64).fill_diagonal_(1.0)
        hidden = torch.randn(IN, HIDDEN, generator=draw, dtype=torch.float64)
        out = torch.randn(HIDDEN, CLASSES, generator=draw, dtype=torch.float64)
        draw.manual_seed(1000 * self.seed + stream + 1)
        x = torch.randn(n, IN, generator=draw, dtype=torch.float64)
        x = x @ torch.linalg.cholesky(moment).T
        labels = (torch.tanh(x @ hidden) @ out).argmax(dim=1)
        wrong = torch.rand(n, generator=draw, dtype=torch.float64) < self.label_noise
        guess = torch.randint(CLASSES, (n,), generator=draw)
        return x, torch.where(wrong, guess, labels)

    def model(self, dropout: float = 0.5) -> nn.Module:
        """A random base, adapters on both layers."""
        torch.manual_seed(self.seed)
        base = nn.Sequential(nn.Linear(IN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)).double()
        config = LoRADropoutConfig(rank=self.rank, alpha=4.0, dropout=dropout)
        return adapt(base, config, generator=torch.Generator().manual_seed(1))


def _problems(label_noise: st.SearchStrategy[float]) -> st.SearchStrategy[Problem]:
    return st.builds(
        Problem, st.integers(0, 99), label_noise, st.sampled_from([0.0, 0.6]), st.integers(1, 3)
    )


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every run: (K, b, classes) and (b,) -> (K, b)."""
    every = labels.expand(len(logits), -1)
    return F.cross_entropy(logits.transpose(1, 2), every, reduction="none")


def _over_rates(problem: Problem, rates: tuple[float, ...], seeds: int) -> tuple[Tensor, Tensor]:
    """Training and test loss of the mean network, each (seeds, rates); 24 examples a run."""
    n, pool, test = 24, problem.data(24 * seeds), problem.data(1000, stream=1)
    replicas = [
        Replica(seed=s, init_seed=s, dropout=p, examples=tuple(range(n * s, n * s + n)))
        for s in range(seeds)
        for p in rates
    ]
    model = problem.model()
    runs = fit_replicas(model, pool, replicas, config=CONFIG, progress=False)
    seen = _losses(runs.outputs(model, pool[0]), pool[1])
    own = [row[list(r.examples or ())].mean() for row, r in zip(seen, replicas, strict=True)]
    risk = _losses(runs.outputs(model, test[0]), test[1]).mean(dim=1)
    return torch.stack(own).view(seeds, -1), risk.view(seeds, -1)


@settings(max_examples=FEW)
@given(_problems(st.floats(0.0, 0.5)))
def test_training_loss_rises_with_p(problem: Problem) -> None:
    train, _ = _over_rates(problem, (0.0, 0.2, 0.4, 0.6), seeds=12)
    check_page_trend(train.numpy(), "increasing", least_effect=0.5)


@settings(max_examples=FEW)
@given(_problems(st.floats(0.5, 1.0)))
def test_the_gap_falls_with_p_where_noise_dominates(problem: Problem) -> None:
    train, risk = _over_rates(problem, (0.0, 0.2, 0.4, 0.6), seeds=12)
    check_page_trend((risk - train).numpy(), "decreasing", least_effect=0.5)


def _members(problem: Problem, draws: int) -> tuple[Tensor, Tensor]:
    """Outputs of masked networks of one trained adapter, (draws, b, classes), and the labels."""
    model, (x, y) = problem.model(), problem.data(32)
    runs = fit_replicas(model, (x, y), [Replica()], config=CONFIG, progress=False)
    members = [
        runs.outputs(model, x, inference="ensemble", n_instances=1, seed=seed, average="logits")[0]
        for seed in range(draws)
    ]
    return torch.stack(members), y


def _mean_loss_of_ensembles(members: Tensor, labels: Tensor, size: int, loss: str) -> float:
    """Expected loss when members are drawn from these with equal chances: a sum over all draws."""
    found = []
    for chosen in product(range(len(members)), repeat=size):
        if loss == "squared":
            error = members[list(chosen)].mean(dim=0) - F.one_hot(labels, CLASSES)
            found.append(error.square().sum(dim=1).mean())
        else:
            mixed = members[list(chosen)].softmax(dim=-1).mean(dim=0)
            found.append(F.nll_loss(mixed.log(), labels))
    return float(torch.stack(found).mean())


@settings(max_examples=FEW)
@given(_problems(st.floats(0.0, 0.5)))
def test_ensemble_loss_of_trained_members(problem: Problem) -> None:
    members, labels = _members(problem, draws=4)
    sizes = (1, 2, 3)
    squared = [_mean_loss_of_ensembles(members, labels, n, "squared") for n in sizes]
    centre = members.mean(dim=0) - F.one_hot(labels, CLASSES)
    variance = float(members.var(dim=0, correction=0).sum(dim=1).mean())
    bias = float(centre.square().sum(dim=1).mean())
    assert variance > 0
    formula = [ensemble_loss(infinite_loss=bias, variance=variance, n_instances=n) for n in sizes]
    check_equal(squared, formula)
    entropy = [_mean_loss_of_ensembles(members, labels, n, "cross-entropy") for n in sizes]
    check_monotone(entropy, "decreasing")


def _exceeded(runs: int, delta: float, factor: float) -> int:
    """How often the risk of a trained adapter is above a Hoeffding bound from held-out data."""
    problem, n, held = Problem(3, 0.3), 16, 64
    pool, model = problem.data(runs * n), problem.model()
    replicas = [Replica(seed=k, examples=tuple(range(k * n, k * n + n))) for k in range(runs)]
    config = FitConfig(**{**vars(CONFIG), "epochs": 15})
    trained = fit_replicas(model, pool, replicas, config=config, progress=False)

    def errors(data: tuple[Tensor, Tensor]) -> Tensor:
        return (trained.outputs(model, data[0]).argmax(dim=-1) != data[1]).double()

    risk = errors(problem.data(4000, stream=1)).mean(dim=1)
    fresh = errors(problem.data(runs * held, stream=2))
    seen = [row[k * held : (k + 1) * held].mean() for k, row in enumerate(fresh)]
    means = torch.stack(seen).numpy()
    bounds = hoeffding(n=held, delta=delta, empirical_risk=means, loss_range=1.0)
    return int((risk.numpy() > means + factor * (np.asarray(bounds.value) - means)).sum())


def test_a_held_out_bound_fails_no_more_often_than_it_says() -> None:
    check_failure_rate(_exceeded(200, 0.1, 1.0), 200, 0.1)


def test_a_quarter_of_the_bound_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_failure_rate(_exceeded(200, 0.1, 0.25), 200, 0.1)


def test_stability_falls_like_one_over_n() -> None:
    """Full batches and a penalty that governs the solution; a weak one (0.1) gives n^-1.3."""
    sizes, rows = (16, 256), []
    problem = Problem(5, 0.3)
    config = FitConfig(**{**vars(CONFIG), "batch_size": 256, "regularization": 0.3})
    for stream in range(12):
        x, y = problem.data(sizes[-1], stream=stream)
        rows.append(
            [
                leave_one_out(
                    problem.model(),
                    (x[:n], y[:n]),
                    config=config,
                    examples=range(0, n, n // 8),
                    progress=False,
                ).loss.absolute
                for n in sizes
            ]
        )
    check_rate(sizes, rows, expected=-1.0, tolerance=0.25)
    with pytest.raises(AssertionError):
        check_rate(sizes, rows, expected=-0.5, tolerance=0.25)


@settings(max_examples=FEW)
@given(_problems(st.floats(0.0, 0.5)), st.floats(0.05, 0.3))
def test_lemma_4_3_with_measured_stability_holds(problem: Problem, delta: float) -> None:
    """The gap never exceeds the bound; at these sizes it is far below it."""
    x, y = problem.data(16)
    model = problem.model(dropout=0.3)
    found = leave_one_out(model, (x, y), config=CONFIG, progress=False)
    trained = fit_replicas(model, (x, y), [Replica()], config=CONFIG, progress=False)
    train = float(_losses(trained.outputs(model, x), y).mean())
    test = problem.data(1000, stream=1)
    fresh = _losses(trained.outputs(model, test[0]), test[1])
    bound = lemma_4_3(
        stability=found.loss.absolute,
        n=16,
        delta=delta,
        loss_range=float(fresh.max()),
        empirical_risk=train,
    )
    check_below(float(fresh.mean()), bound.value)
