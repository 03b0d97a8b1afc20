"""The N-instance loss, three ways (arXiv 2404.09610, Eq. 7)."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import (
    LoRADropoutConfig,
    adapt,
    enumerate_masks,
    instance_loss,
    sample_masks,
    trainable_parameters,
    use_masks,
)
from lora_dropout.training.objective import instance_losses
from tests.lora_dropout.strategies import (
    ALGEBRA,
    Shape,
    close,
    laws,
    normal,
    one_layer,
    seeded,
    seeds,
    two_layers,
)

losses = st.sampled_from([F.mse_loss, F.cross_entropy])


def config(law: str = "row_column", p: float = 0.4) -> LoRADropoutConfig:
    return LoRADropoutConfig(rank=2, dropout=p, mask=law)  # type: ignore[arg-type]


def value_and_gradient(model: nn.Module, loss: Tensor) -> tuple[Tensor, Tensor]:
    grads = torch.autograd.grad(loss, list(trainable_parameters(model).values()))
    return loss.detach(), torch.cat([g.flatten() for g in grads])


@given(laws(), st.sampled_from(["lora", "adalora"]), st.integers(1, 4), st.integers(1, 5), seeds())
def test_loop_and_batched_agree(law: str, kind: str, n: int, size: int, seed: int) -> None:
    settings = LoRADropoutConfig(rank=2, dropout=0.4, mask=law, adapter=kind)  # type: ignore[arg-type]
    model, x = two_layers(settings, seed=seed), normal(size, 5, seed=seed)
    y = torch.arange(size) % 3
    masks = sample_masks(model, seeds=torch.arange(n) + seed)
    results = []
    for mode in ("loop", "batched"):
        loss = instance_loss(model, x, y, masks=masks, mode=mode)  # type: ignore[arg-type]
        results.append(value_and_gradient(model, loss))
    naive = []
    for r in range(n):
        with use_masks(model, masks.select(r)):
            naive.append(F.cross_entropy(model(x), y).detach())
    close(results[0][0], torch.stack(naive).mean(), ALGEBRA)
    close(results[0][0], results[1][0], ALGEBRA)
    close(results[0][1], results[1][1], ALGEBRA)


@settings(max_examples=12)
@given(st.sampled_from(["row_column", "rank", "entrywise"]), losses, st.integers(2, 4), seeds())
def test_grouped_and_batched_have_the_same_expectation(
    law: str, loss_fn, size: int, seed: int
) -> None:
    # All pairs of masks, so exact; sizes 3 is not a multiple of N = 2.
    model = one_layer(Shape(2, 2, 1), LoRADropoutConfig(rank=1, dropout=0.3, mask=law), seed=seed)
    x = normal(size, 2, seed=seed)
    y = normal(size, 2, seed=seed + 1).softmax(dim=1)
    masks, probability = enumerate_masks(model)
    expected = {}
    for mode in ("grouped", "batched"):
        total: Tensor = torch.zeros((), dtype=x.dtype)
        for pair in itertools.product(range(masks.n_instances), repeat=2):
            chosen = masks.gather(torch.tensor(pair))
            weight = probability[list(pair)].prod()
            total = total + weight * instance_loss(
                model, x, y, masks=chosen, mode=mode, loss_fn=loss_fn
            )
        expected[mode] = value_and_gradient(model, total)
    close(expected["grouped"][0], expected["batched"][0], ALGEBRA)
    close(expected["grouped"][1], expected["batched"][1], ALGEBRA)


def test_grouped_deals_out_blocks() -> None:
    model, x, y = two_layers(config()), normal(5, 5, seed=1), normal(5, 3, seed=2)
    masks = sample_masks(model, seeds=torch.arange(2))
    parts = []
    for r, rows in enumerate((slice(0, 3), slice(3, 5))):
        with use_masks(model, masks.select(r)):
            parts.append((model(x[rows]) - y[rows]).square())
    got = instance_loss(model, x, y, masks=masks, mode="grouped", loss_fn=F.mse_loss)
    close(got, torch.cat(parts).mean(), ALGEBRA)


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, *, x: Tensor, shift: Tensor) -> Tensor:
        return self.fc(x) + shift[:, None]


@pytest.mark.parametrize("mode", ["loop", "batched", "grouped"])
def test_mappings_are_passed_by_keyword(mode: str) -> None:
    model = adapt(seeded(Keyword(), 1), config()).double()
    x, y = normal(4, 5, seed=1), torch.arange(4) % 3
    masks = sample_masks(model, seeds=torch.arange(2))
    named = {"x": x, "shift": torch.zeros(4).double()}
    with_names = instance_loss(model, named, y, masks=masks, mode=mode)  # type: ignore[arg-type]
    assert torch.isfinite(with_names)


class RelativePositions(nn.Module):
    """Sends a table that has no batch dimension through an adapted layer, as DeBERTa does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)
        self.table = nn.Parameter(torch.ones(1, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.fc(self.table)


@pytest.mark.parametrize("mode", ["batched", "grouped"])
def test_layers_fed_without_the_batch_are_an_error(mode: str) -> None:
    model = adapt(RelativePositions(), config())
    masks = sample_masks(model, seeds=torch.arange(2))
    x, y = torch.ones(4, 5), torch.zeros(4).long()
    with pytest.raises(ValueError, match=r"layer 'fc' must get the batch .*: it sees no batch"):
        instance_loss(model, x, y, masks=masks, mode=mode)  # type: ignore[arg-type]
    assert torch.isfinite(instance_loss(model, x, y, masks=masks, mode="loop"))


def test_model_that_drops_the_batch() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).mean(dim=0, keepdim=True)

    model = adapt(Flat(), config())
    with pytest.raises(ValueError, match=r"model must keep the batch first, got outputs \(1, 3\)"):
        instance_loss(model, torch.ones(4, 5), torch.zeros(4), masks=sample_masks(model))


def test_bad_input() -> None:
    model = two_layers(config())
    masks, x, y = sample_masks(model), normal(4, 5, seed=1), torch.zeros(4).long()
    with pytest.raises(ValueError, match=r"mode must be one of .*, got mode='all'"):
        instance_loss(model, x, y, masks=masks, mode="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inputs must not be empty, got batch sizes"):
        instance_loss(model, x[:0], y[:0], masks=masks)
    with pytest.raises(ValueError, match="targets must have the batch size 4 of inputs, got 3"):
        instance_loss(model, x, y[:3], masks=masks)


def test_the_loss_is_batched_unless_told() -> None:
    model, x = two_layers(config()), normal(3, 5, seed=0)
    y, masks = torch.arange(3), sample_masks(model, seeds=torch.arange(2))
    (term,) = instance_losses(model, x, y, masks=masks)
    assert torch.equal(term, instance_loss(model, x, y, masks=masks, mode="batched"))


def test_instance_losses_name_what_does_not_fit() -> None:
    model, x = two_layers(config()), normal(3, 5, seed=0)
    y, masks = torch.arange(3), sample_masks(model, seeds=torch.arange(2))
    with pytest.raises(TypeError, match=r"^masks must be masks of sample_masks, got masks=None$"):
        next(instance_losses(model, x, y, masks=None))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"batch size 3 of inputs, got a single number$"):
        next(instance_losses(model, x, y[0], masks=masks))
    with pytest.raises(ValueError, match=r"batch size 3 of inputs, got 2$"):
        next(instance_losses(model, x, y[:2], masks=masks))
