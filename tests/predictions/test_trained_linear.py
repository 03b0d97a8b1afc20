"""Predictions about trained linear layers; planted faults must be caught by the same checks.

Closed forms are written out here once more, so that they are an oracle of their own: with
k = 1 - p, S the sample's second moment and G = mean(y x'), LoRA Dropout's mean update minimises at
E = G (S/k + (p/k^2) diag S)^-1, ordinary scaled dropout at rate q at G (S + (q/(1-q)) diag S)^-1.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lora_bounds import drop_probability
from lora_bounds.trial.trends import page_trend
from lora_dropout import FitConfig, LoRADropoutConfig, adapt, predict
from lora_dropout.adapters.update import Place
from lora_dropout.probes.retraining import replace_one
from lora_dropout.replicas import Replica, fit_replicas

# Where masks are drawn and put to use.
masked_layer = importlib.import_module("lora_dropout.adapters.layer")

IN, OUT, N = 4, 3, 32
SEEDS = 8
FEW = max(2, settings.default.max_examples // 20)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Problem:
    """A regression sample; paste its repr to replay it."""

    seed: int
    correlation: float
    noise: float

    def data(self, n: int = N) -> tuple[Tensor, Tensor]:
        """Inputs whose sample second moment is 1 on the diagonal, `correlation` off it."""
        generator = torch.Generator().manual_seed(self.seed)
        raw = torch.randn(n, IN, generator=generator, dtype=torch.float64)
        white = torch.linalg.qr(raw)[0] * n**0.5
        moment = torch.full((IN, IN), self.correlation, dtype=torch.float64)
        moment.fill_diagonal_(1.0)
        x = white @ torch.linalg.cholesky(moment).T
        truth = torch.randn(OUT, IN, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, OUT, generator=generator, dtype=torch.float64)
        return x, x @ truth.T + self.noise * noise


def _problems(correlation: st.SearchStrategy[float]) -> st.SearchStrategy[Problem]:
    return st.builds(Problem, st.integers(0, 999), correlation, st.floats(0.0, 1.0))


def _model(mask: str, dropout: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(IN, OUT, bias=False)).double()
    nn.init.zeros_(model[0].weight)
    return adapt(
        model,
        LoRADropoutConfig(rank=OUT, alpha=OUT, dropout=dropout, mask=mask),  # type: ignore[arg-type]
        generator=torch.Generator().manual_seed(1),
    )


CONFIG = FitConfig(epochs=300, batch_size=N, learning_rate=0.05, schedule="linear", n_instances=16)


def _trained_update(problem: Problem, mask: str, dropout: float) -> Tensor:
    """Mean update over eight seeds, as a matrix: what the mean network does to the unit vectors."""
    model = _model(mask, dropout)
    trained = fit_replicas(
        model,
        problem.data(),
        [Replica(seed=seed, init_seed=seed) for seed in range(SEEDS)],
        config=CONFIG,
        loss_fn=F.mse_loss,
        progress=False,
    )
    units = torch.eye(IN, dtype=torch.float64)
    return trained.outputs(model, units, inference="mean", average="logits").mean(dim=0).T


def _closed_form(problem: Problem, mask: str, rate: float) -> Tensor:
    x, y = problem.data()
    S, G, k = x.T @ x / N, y.T @ x / N, 1.0 - rate
    diagonal = torch.diag(torch.diag(S))
    if mask == "row_column":
        return G @ torch.linalg.inv(S / k + rate / k**2 * diagonal)
    return G @ torch.linalg.inv(S + rate / k * diagonal)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def check_equal_to_ordinary_dropout(
    problem: Problem, p: float, rate_of: Callable[[float], float]
) -> None:
    """LoRA Dropout at p ends where ordinary dropout at rate_of(p) ends: isotropic inputs only."""
    ours = _trained_update(problem, "row_column", p)
    usual = _trained_update(problem, "activation", rate_of(p))
    expected = _closed_form(problem, "row_column", p)
    assert _distance(_closed_form(problem, "activation", rate_of(p)), expected) < 1e-9
    assert _distance(ours, expected) < 0.05
    assert _distance(usual, expected) < 0.05


@settings(max_examples=FEW)
@given(_problems(st.just(0.0)), st.sampled_from([0.2, 0.35, 0.5]))
def test_isotropic_inputs_make_it_ordinary_dropout(problem: Problem, p: float) -> None:
    check_equal_to_ordinary_dropout(problem, p, lambda p: float(drop_probability(dropout=p)))  # type: ignore[arg-type]


def test_q_replaced_by_p_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_equal_to_ordinary_dropout(Problem(3, 0.0, 0.3), 0.5, lambda p: p)


def test_correlated_inputs_part_the_two() -> None:
    """Each ends at its own closed form, and these are further apart than the training noise."""
    problem, p = Problem(0, 0.8, 0.1), 0.5
    q = float(drop_probability(dropout=p))  # type: ignore[arg-type]
    ours, usual = _closed_form(problem, "row_column", p), _closed_form(problem, "activation", q)
    apart = _distance(usual, ours)
    assert apart > 0.2
    assert _distance(_trained_update(problem, "row_column", p), ours) < apart / 4
    assert _distance(_trained_update(problem, "activation", q), usual) < apart / 4


@settings(max_examples=FEW)
@given(_problems(st.sampled_from([0.0, 0.5])))
def test_training_risk_rises_with_p(problem: Problem) -> None:
    rates, data = (0.0, 0.2, 0.4, 0.6), problem.data()
    model = _model("row_column", 0.5)
    trained = fit_replicas(
        model,
        data,
        [Replica(seed=seed, init_seed=seed, dropout=p) for seed in range(SEEDS) for p in rates],
        config=CONFIG,
        loss_fn=F.mse_loss,
        progress=False,
    )
    outputs = trained.outputs(model, data[0], inference="mean", average="logits")
    risks = (outputs - data[1]).square().mean(dim=(1, 2)).view(SEEDS, len(rates))
    found = page_trend(risks.numpy(), direction="increasing")
    assert found.p_value < 1e-4
    assert found.effect_size > 0.9


@cache
def _stability_and_gap(n_samples: int) -> list[tuple[float, float]]:
    """Signed replace-one stability and gap of each sample, from the same training."""
    config = FitConfig(
        epochs=100, batch_size=8, learning_rate=0.05, schedule="linear", n_instances=4
    )
    law, pairs = Problem(0, 0.3, 1.0), []
    x, y = law.data(400)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(7))
    for part in order[: n_samples * 16].split(16):
        sample, spare = part[:8], part[8:]
        found = replace_one(
            _model("row_column", 0.3),
            (x[sample], y[sample]),
            (x[spare], y[spare]),
            config=config,
            loss_fn=F.mse_loss,
            progress=False,
        )
        model = _model("row_column", 0.3)
        with torch.no_grad():
            A, B = model[0].lora_A, model[0].lora_B
            A.copy_(torch.from_numpy(found.full[0][: A.numel()]).view_as(A))
            B.copy_(torch.from_numpy(found.full[0][A.numel() :]).view_as(B))
        errors = (predict(model, x, inference="mean", average="logits") - y).square().mean(dim=1)
        fresh = torch.ones(400, dtype=torch.bool)
        fresh[sample] = False
        pairs.append((found.loss.signed, float(errors[fresh].mean() - errors[sample].mean())))
    return pairs


def check_the_gap_is_replace_one_stability(n_samples: int, factor: float = 1.0) -> None:
    """E[R - Rhat] = E[l(z_i; S^{i<-z'}) - l(z_i; S)]: both sides from the same samples, paired."""
    pairs = _stability_and_gap(n_samples)
    seen = torch.tensor([factor * signed - gap for signed, gap in pairs], dtype=torch.float64)
    error = float(seen.std() / len(seen) ** 0.5)
    assert abs(float(seen.mean())) < 4.0 * error
    assert error < 0.5


def test_the_gap_is_signed_replace_one_stability() -> None:
    check_the_gap_is_replace_one_stability(16)


def test_a_quarter_of_the_stability_is_not_the_gap() -> None:
    with pytest.raises(AssertionError):
        check_the_gap_is_replace_one_stability(16, factor=0.25)


def check_one_mask_a_pass(model: nn.Module) -> None:
    """Every example of a pass meets the same mask: equal inputs give equal outputs."""
    model.train()
    x = torch.randn(1, IN, dtype=torch.float64).expand(16, IN)
    outputs = model(x)
    assert (outputs == outputs[0]).all()


def check_no_mask_at_evaluation(model: nn.Module) -> None:
    """A plain forward in eval mode is deterministic, and the mean network."""
    model.eval()
    x = torch.randn(16, IN, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        torch.testing.assert_close(model(x), predict(model, x, inference="mean"))


def _untrained(dropout: float = 0.5) -> nn.Module:
    model = _model("row_column", dropout)
    nn.init.normal_(model[0].lora_B)  # type: ignore[index]
    return model


def test_masks_are_shared_in_training_and_off_at_evaluation() -> None:
    check_one_mask_a_pass(_untrained())
    check_no_mask_at_evaluation(_untrained())


def test_a_mask_that_is_not_shared_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = masked_layer.draw_layer_masks

    def one_each(layers: Any, seeds: Tensor, **arguments: Any) -> Any:
        return right(layers, seeds + torch.arange(16), **arguments)

    monkeypatch.setattr(masked_layer, "draw_layer_masks", one_each)
    monkeypatch.setattr(masked_layer.MaskedLayer, "_place", lambda *given: Place(0, 1, 1))
    with pytest.raises(AssertionError):
        check_one_mask_a_pass(_untrained())


def test_masks_on_at_evaluation_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = masked_layer.MaskedLayer._mask_and_factor

    def always(self: Any, device: torch.device) -> Any:
        self.training = True
        try:
            return right(self, device)
        finally:
            self.training = False

    monkeypatch.setattr(masked_layer.MaskedLayer, "_mask_and_factor", always)
    with pytest.raises(AssertionError):
        check_no_mask_at_evaluation(_untrained())
