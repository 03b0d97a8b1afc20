"""Every bound of the audit is evaluated under the model's own mask law."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_bounds.bounds.judge import Judgement
from lora_dropout import LAWS, FitConfig, LoRADropoutConfig, adapt, adapters, trainable_parameters
from lora_dropout.audit import Audit, audit
from lora_dropout.audit.constants import copy_of_parameters
from lora_dropout.audit.gibbs_bound import WIDTHS

N, LAMBDA, DELTA = 60, 0.2, 0.05
FIT = FitConfig(epochs=5, batch_size=10, learning_rate=0.05, n_instances=2, regularization=LAMBDA)


def _data(n: int, seed: int, *tokens: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, *tokens, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x.flatten(1)[:, 0] > 0).long()


class OverTokens(nn.Module):
    """A linear layer on each token, and the mean of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean(dim=1)


def _model(net: type[nn.Module] | None = None, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2)) if net is None else net()
    config = LoRADropoutConfig(**{"rank": 1, "alpha": 1.0, **changes})
    return adapt(model, config, generator=torch.Generator().manual_seed(1))


def _trained(**changes: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model away from its start, as after training."""
    model = _model(**changes)
    start = copy_of_parameters(model)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=random))
    return model, start


def _audit(model: nn.Module, *tokens: int, **changes: Any) -> Audit:
    settings: dict[str, Any] = {"n_draws": 5, "progress": False, "delta": DELTA, **changes}
    return audit(model, _data(N, 1, *tokens), _data(80, 2, *tokens), **settings)


def _numbers(found: Audit) -> list[Any]:
    """All that the audit says of the model, but for the rate that it was told."""
    c = found.constants
    shown = str(found)
    assert "p=" not in shown
    return [
        shown, found.judgements, found.yardstick, found.gap, found.ensemble_gap, c.facts,
        (c.drop_probability, c.distance, c.rho, c.eta, c.gradient_norm, c.stability, c.moves),
    ]  # fmt: skip


@pytest.mark.parametrize("adapter", ["lora", "adalora"])
def test_a_rate_without_effect_leaves_every_number_alone(adapter: str) -> None:
    found = [
        _numbers(_audit(_model(mask="none", dropout=p, adapter=adapter), config=FIT, left_out=3))
        for p in (0.0, 0.5, 0.99, 1.0)
    ]
    assert all(each[:3] == found[0][:3] and each[5:] == found[0][5:] for each in found)
    assert all(each[3].gap == found[0][3].gap for each in found)
    assert all(each[4].gap == found[0][4].gap for each in found)


@pytest.mark.parametrize("law", LAWS)
def test_a_law_that_drops_nothing_is_no_law(law: str) -> None:
    """At p = 0 all laws are one; what differs is the order of sums in a pass."""
    (model, start), (bare, _) = _trained(mask=law, dropout=0.0), _trained(mask="none", dropout=0.4)
    ours, plain = (
        _audit(each, initial=start, regularization=LAMBDA).judgements for each in (model, bare)
    )
    assert [j.name for j in ours] == [j.name for j in plain]
    assert [j.bound for j in ours] == pytest.approx([j.bound for j in plain], rel=1e-6)


# q of Eq. 11, and what of the squared moves of A, B and E is in use, with T tokens an example.
RIGHT = {
    "row_column": lambda p, t: (2 * p - p * p, 1 - p, 1 - p, 1.0),
    "rank": lambda p, t: (p, 1 - p, 1 - p, 1 - p),
    "activation": lambda p, t: (p, 1 - p**t, 1.0, 1.0),
    "entrywise": lambda p, t: (p, 1.0, 1.0, 1.0),
    "none": lambda p, t: (0.0, 1.0, 1.0, 1.0),
}


def _kl_inverse(q: float, limit: float) -> float:
    """The largest r with kl(q || r) <= limit, by bisection."""

    def kl(r: float) -> float:
        left = q * math.log(q / r) if q > 0 else 0.0
        return left + ((1 - q) * math.log((1 - q) / (1 - r)) if q < 1 else 0.0)

    low, high = q, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < 1.0 and kl(middle) <= limit else (low, middle)
    return low


def _by_name(found: Audit, start: str) -> Judgement:
    return next(j for j in found.judgements if j.name.startswith(start))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("adapter", "p", "tokens"), [("lora", 0.3, ()), ("adalora", 0.8, (3,))])
def test_each_bound_takes_the_law(
    law: str, adapter: str, p: float, tokens: tuple[int, ...]
) -> None:
    net = OverTokens if tokens else None
    model, start = _trained(net=net, mask=law, dropout=p, adapter=adapter)
    found = _audit(model, *tokens, initial=start, regularization=LAMBDA)
    c = found.constants
    q, *factors = RIGHT[law](p, math.prod(tokens))

    def chebyshev(beta: float) -> float:  # Lemma 4.3
        square = found.loss_range**2 + 12 * found.loss_range * N * beta
        return found.gap.train + math.sqrt(square / (2 * N * DELTA))

    def over(slope: float, curvature: float) -> float:
        return slope / curvature if curvature > 0 else math.inf

    stability = over(2 * c.eta**2 / N, c.convexity + 2 * LAMBDA * q)
    assert _by_name(found, "Thm 4.4").bound == pytest.approx(chebyshev(stability), rel=1e-9)
    uniform = over(c.rho**2 / N, 2 * LAMBDA * q)
    lemma = _by_name(found, "Lemma 4.3, uniform").bound
    assert lemma == pytest.approx(chebyshev(uniform), rel=1e-9)

    judged = found.judgements[-1]
    width = min(WIDTHS, key=lambda w: abs(w - float(judged.name.split()[-1])))
    norm = sum(
        factor * float((parameter.detach() - start[name]).double().square().sum())
        for name, parameter in trainable_parameters(model).items()
        for kind, factor in zip("ABE", factors, strict=True)
        if f"lora_{kind}" in name
    )
    risk = (judged.bound - judged.gap_bound) / found.loss_range
    price = math.log(2 * math.sqrt(N) * 2 * len(WIDTHS) / DELTA)
    limit = (norm / (2 * width**2) + price) / N
    assert judged.bound == pytest.approx(found.loss_range * _kl_inverse(risk, limit), rel=1e-7)


def test_the_curvature_that_a_bound_divides_by_is_no_rounding() -> None:
    """A flat direction: what is found of its eigenvalue is an accident."""
    found = _audit(_model(mask="none"), config=FIT, left_out=3)
    least, leading = found.constants.curvature.least, found.constants.curvature.leading
    assert least is not None
    assert leading is not None
    assert abs(least) <= 1e-6 * leading
    assert found.constants.convexity == 0.0
    assert _by_name(found, "Thm 4.4").bound == math.inf


def test_what_no_bound_covers_is_refused_by_name() -> None:
    model = _model(dropout=0.5)
    model[0].base_layer.bias.requires_grad_(True)  # type: ignore[index, union-attr]
    with pytest.raises(ValueError, match=r"factors alone, got '0.base_layer.bias' trained too"):
        _audit(model, config=FIT)
    two = adapt(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), LoRADropoutConfig(rank=1))
    first = next(iter(adapters(two).values()))
    first.config = replace(first.config, dropout=0.1)
    with pytest.raises(ValueError, match=r"layers '0' and '1' differ: got .*dropout=0\.1.*0\.5"):
        _audit(two, config=FIT)


def test_the_orthogonality_term_of_adalora_is_named() -> None:
    found = _audit(_model(adapter="adalora"), config=FIT, left_out=3)
    assert found.constants.facts.get("minimisers") is not True
    assert "minimisers" in _by_name(found, "Thm 4.4").violated
    assert "AdaLoRA's orthogonality term (weight 0.1)" in str(found)
    without = _audit(_model(adapter="adalora"), config=replace(FIT, orthogonality=0.0), left_out=3)
    assert without.notes == ()
