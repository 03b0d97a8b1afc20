"""The laws of `lora_bounds.bounds.laws` against the masks that models really run under."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch import Tensor, nn

import lora_bounds
from lora_bounds.bounds.laws import MASK_LAWS, LawName, mask_law
from lora_dropout import (
    LAWS,
    LoRADropoutConfig,
    adapt,
    masked_layers,
    mean_factor,
    sample_masks,
    trainable_parameters,
    use_masks,
)
from lora_dropout.peft import attach
from lora_dropout.probes.gibbs import gibbs_kl, squared_distance
from lora_dropout.probes.realised_sparsity import realised_sparsity
from lora_dropout.training.penalty import drop_probability
from tests.lora_dropout.strategies import generator

N1, N2, RANK = 40, 48, 2
KINDS = ("lora", "adalora", "head and bias", "peft lora", "peft adalora")
RATES = (0.3, 0.8)
DRAWS = 40


class Net(nn.Module):
    """Tokens through an adapted layer, their mean through a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(N2, N1), nn.Linear(N1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(dim=1))


def make(kind: str, law: str, p: float) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = Net().double()
    if kind.startswith("peft"):
        common: dict[str, Any] = {
            "target_modules": ["body"], "modules_to_save": ["head"], "bias": "all",
        }  # fmt: skip
        peft = (
            LoraConfig(r=RANK, **common)
            if kind == "peft lora"
            else AdaLoraConfig(init_r=RANK, target_r=1, total_step=9, tinit=1, tfinal=1, **common)
        )
        if kind == "peft adalora":
            peft.bias = "none"  # which PEFT asks for there
        model = attach(
            get_peft_model(model, peft), mask=law, dropout=p, rescale=False, inference="raw"
        )  # type: ignore[arg-type]
        for name, parameter in model.named_parameters():
            if "ranknum" in name:  # no factor; PEFT sets it free on a base in float64
                parameter.requires_grad_(False)
    else:
        config = LoRADropoutConfig(
            rank=RANK, adapter="adalora" if kind == "adalora" else "lora", target_modules=("body",),
            modules_to_save=("head",) if kind == "head and bias" else (), mask=law, dropout=p,
        )  # type: ignore[arg-type]  # fmt: skip
        adapt(model, config)
        if kind == "head and bias":
            model.body.base_layer.bias.requires_grad_(True)
    random = generator(1)
    with torch.no_grad():
        for name, parameter in sorted(trainable_parameters(model).items()):
            if "bias" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random))
    return model.eval()


def within(found: Tensor, expected: float, slack: float = 0.0) -> None:
    """The mean of independent draws is what was expected, to five standard errors."""
    error = float(found.std()) / len(found) ** 0.5
    assert abs(float(found.mean()) - expected) <= 5.0 * error + slack + 1e-12 * max(1.0, expected)


@pytest.mark.parametrize("law", MASK_LAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_drop_rate_and_mean(kind: str, law: LawName) -> None:
    for p in RATES:
        model = make(kind, law, p)
        (layer,) = masked_layers(model).values()
        masks = sample_masks(model, n_instances=DRAWS, generator=generator(2))
        rows = torch.eye(N2, dtype=torch.float64)
        with torch.no_grad():
            layer.base_layer.weight.zero_()  # the update alone, and its zeros exact
            layer.base_layer.bias.zero_()
            with use_masks(model, "raw"):
                raw = layer(rows)
            with use_masks(layer, masks):
                drawn = layer(rows.repeat(DRAWS, 1)).view(DRAWS, *raw.shape)
        found = mask_law(law)
        zeros = (drawn == 0.0).double().mean(dim=(1, 2))
        within(zeros, float(found.drop_probability(dropout=p, rank=RANK)))
        within((drawn * raw).sum(dim=(1, 2)) / raw.square().sum(), mean_factor(law, p))
        if law in ("row_column", "rank", "entrywise"):
            sparsity = realised_sparsity(model, n_draws=5, generator=generator(3))
            expected = found.drop_probability(dropout=p, rank=RANK)
            assert sparsity.expected == pytest.approx(expected)


def in_use(model: nn.Module, x: Tensor, n_draws: int) -> Mapping[str, Tensor]:
    """Which entries of the trained tensors the output hangs on, draw by draw."""
    masks = sample_masks(model, n_instances=n_draws, generator=generator(2))
    parameters = trainable_parameters(model)
    weights = torch.randn(3, generator=generator(3), dtype=torch.float64)
    used = []
    for draw in range(n_draws):
        with use_masks(model, masks.select(draw)):
            output = (model(x) * weights).sum()
        used.append([g != 0.0 for g in torch.autograd.grad(output, list(parameters.values()))])
    return {
        name: torch.stack(parts)
        for name, parts in zip(parameters, zip(*used, strict=True), strict=True)
    }


@pytest.mark.parametrize("law", MASK_LAWS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("p", "tokens"), [(0.3, 1), (0.8, 3)])
def test_the_divergence_counts_what_masks_leave_in_use(
    kind: str, law: LawName, p: float, tokens: int
) -> None:
    model, width = make(kind, law, p), 0.7
    random = generator(5)
    initial = {
        name: (parameter - torch.randn(parameter.shape, generator=random)).detach()
        for name, parameter in trainable_parameters(model).items()
    }
    x = torch.randn(4, tokens, N2, generator=random, dtype=torch.float64)
    used = in_use(model, x[:1], DRAWS)
    cost = torch.zeros(DRAWS, dtype=torch.float64)
    for name, parameter in trainable_parameters(model).items():
        squares = (parameter.detach() - initial[name]).square() / (2.0 * width**2)
        cost += (used[name] * squares).flatten(1).sum(dim=1)
        kind_of = next((k for k in "ABE" if f"lora_{k}" in name), "other")
        factor = mask_law(law).kl_factor(kind_of, dropout=p, rows=tokens)  # type: ignore[arg-type]
        within(used[name].double().flatten(1).mean(dim=1), float(factor), slack=p**N1 + p**N2)
    found = gibbs_kl(model, x, initial=initial, widths=(width, 2 * width))
    within(cost, found[0], slack=found[0] * (p**N1 + p**N2))
    assert found[1] == pytest.approx(found[0] / 4)
    whole = squared_distance(model, initial) / (2.0 * width**2)
    assert found[0] <= whole * (1 + 1e-12)
    if law == "none":
        assert found[0] == pytest.approx(whole)


class Twice(nn.Module):
    """Calls its layer on the tokens and on positions that all examples share."""

    def __init__(self, *, routed: bool = False) -> None:
        super().__init__()
        self.body, self.routed = nn.Linear(N2, N1), routed
        self.register_buffer("positions", torch.randn(5, N2, generator=generator(7)))

    def forward(self, x: Tensor) -> Tensor:
        if self.routed:  # to each layer of a mixture of experts, the rows that ask for it
            return self.body(x.flatten(0, 1)[x.flatten(0, 1)[:, 0] > 0]).sum() * x.mean(dim=(1, 2))
        return self.body(x).mean(dim=1) + self.body(self.positions).mean(dim=0)


def test_rows_that_no_count_limits_cost_in_full() -> None:
    """A layer whose rows hang on the example, or on more than it: nothing is sure to be unused."""
    x = torch.randn(6, 2, N2, generator=generator(1))
    for routed in (False, True):
        model = adapt(
            Twice(routed=routed), LoRADropoutConfig(rank=1, mask="activation", dropout=0.9)
        )
        initial = {n: p.detach() + 1.0 for n, p in trainable_parameters(model).items()}
        moved = squared_distance(model, initial)
        assert gibbs_kl(model, x, initial=initial, widths=[1.0])[0] == pytest.approx(moved / 2)
    model.train()
    gibbs_kl(model, x, initial=initial, widths=[1.0])
    assert model.training  # as it was


def test_layers_count_by_their_own_law_and_shared_tensors_in_full() -> None:
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    adapt(model, LoRADropoutConfig(rank=1, dropout=0.5))
    initial = {n: p.detach() + 1.0 for n, p in trainable_parameters(model).items()}
    x = torch.randn(3, 6)
    assert gibbs_kl(model, x, initial=initial, widths=[1.0])[0] == pytest.approx(0.5 * 24 / 2)
    first, second = model
    first.config = LoRADropoutConfig(rank=1, dropout=0.9, mask="rank")
    assert gibbs_kl(model, x, initial=initial, widths=[1.0])[0] == pytest.approx(
        (0.1 * 12 + 0.5 * 12) / 2
    )
    with pytest.raises(ValueError, match=r"one mask law and rate, got .*0\.9.*0\.5"):
        realised_sparsity(model)
    second.lora_A = first.lora_A  # in use while either layer's mask keeps its column
    shared = {n: initial[n] for n in trainable_parameters(model)}
    assert gibbs_kl(model, x, initial=shared, widths=[1.0])[0] == pytest.approx(
        (6 + 0.1 * 6 + 0.5 * 6) / 2
    )


def test_both_packages_say_the_same() -> None:
    assert LAWS == MASK_LAWS == lora_bounds.MASK_LAWS
    for law in LAWS:
        for p in (0.0, 0.3, 0.5, 1.0):
            assert mean_factor(law, p) == lora_bounds.mean_factor(law=law, dropout=p)
            assert mean_factor(law, p) == LoRADropoutConfig(mask=law, dropout=p).mean_factor
            assert drop_probability(law, p) == mask_law(law).drop_probability(dropout=p)
            if (law, p) != ("activation", 1.0):
                assert mean_factor(law, p) == lora_bounds.mask_moments(law=law, dropout=p).mean
    assert np.allclose([mean_factor("entrywise", 0.5), drop_probability("entrywise", 0.5)], 0.5)
