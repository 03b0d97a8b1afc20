"""Gap, loss range and single-example losses against sums written out."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_dropout import LoRADropoutConfig, evaluate, predict, sample_masks, use_masks
from lora_dropout.probes.example_losses import (
    ClippedCrossEntropy,
    ZeroOneLoss,
    example_losses,
    sure_bound,
)
from lora_dropout.probes.gap import generalization_gap
from lora_dropout.probes.intervals import (
    clopper_pearson_interval,
    empirical_bernstein_interval,
    t_interval,
)
from tests.lora_dropout.probes.problems import class_data, linear_data, linear_model
from tests.lora_dropout.strategies import IDENTITY, close, generator, normal, two_layers


def test_losses_of_single_examples() -> None:
    outputs, targets = 3 * normal(7, 4, seed=0), torch.tensor([0, 1, 2, 3, 3, 3, 0])
    plain = -outputs.log_softmax(dim=1)[torch.arange(7), targets]
    close(example_losses(F.cross_entropy, outputs, targets), plain, IDENTITY)
    clipped = ClippedCrossEntropy(bound=2.0)
    assert (plain > 2).any() and (plain < 2).any()
    close(example_losses(clipped, outputs, targets), plain.clamp(max=2.0), IDENTITY)
    wrong = (outputs.argmax(dim=1) != targets).double()
    close(example_losses(ZeroOneLoss(), outputs, targets), wrong, 0.0)
    for loss in (clipped, ZeroOneLoss(), F.cross_entropy):
        mean = example_losses(loss, outputs, targets).mean()
        close(mean, loss(outputs, targets), IDENTITY)
    assert (sure_bound(clipped), sure_bound(ZeroOneLoss())) == (2.0, 1.0)
    assert sure_bound(F.cross_entropy) is None


@pytest.mark.parametrize("inference", ["ensemble", "mean", "raw"])
def test_gap_against_evaluate(inference: str) -> None:
    model = two_layers(LoRADropoutConfig(rank=2, dropout=0.4))
    train, held_out = class_data(30), class_data(40, seed=7)
    got = generalization_gap(model, train, held_out, inference=inference, n_instances=3, seed=5)
    losses = [
        evaluate(model, data, inference=inference, n_instances=3, generator=generator(5))["loss"]
        for data in (train, held_out)
    ]
    assert (got.train, got.held_out) == pytest.approx(tuple(losses), rel=1e-12)
    assert got.gap == pytest.approx(losses[1] - losses[0], abs=1e-12)
    assert (got.method, got.inference) == ("t", inference)
    want = t_interval(got.held_out_losses)
    assert (got.risk.low, got.risk.high) == (want.low, want.high)
    assert got.interval.low == pytest.approx(want.low - got.train)
    assert got.interval.high == pytest.approx(want.high - got.train)
    assert got.interval.low < got.gap < got.interval.high


def test_gap_of_bounded_losses() -> None:
    model = two_layers(LoRADropoutConfig(rank=2, dropout=0.4))
    train, held_out = class_data(30), class_data(40, seed=7)
    got = generalization_gap(model, train, held_out, loss_fn=ZeroOneLoss(), inference="mean")
    wrong = predict(model, held_out[0], inference="mean").argmax(dim=1) != held_out[1]
    want = clopper_pearson_interval(int(wrong.sum()), 40)
    assert got.method == "clopper_pearson" and got.risk == want
    clipped = ClippedCrossEntropy(0.5)
    got = generalization_gap(model, train, held_out, loss_fn=clipped, inference="mean")
    assert got.method == "empirical_bernstein" and (got.held_out_losses <= 0.5).all()
    want = empirical_bernstein_interval(got.held_out_losses, span=0.5)
    assert got.risk.high == min(want.high, 0.5) and got.risk.low == max(want.low, 0.0)


def test_gap_of_a_regression_ensemble_averages_outputs() -> None:
    model, data = linear_model(), linear_data(10)
    got = generalization_gap(model, data, data, loss_fn=F.mse_loss, n_instances=3, seed=5)
    masks = sample_masks(model, n_instances=3, generator=generator(5))
    members = []
    for index in range(3):
        with use_masks(model, masks.select(index)):
            members.append(model(data[0]).detach())
    want = (torch.stack(members).mean(0) - data[1]).square().mean(dim=1).numpy()
    np.testing.assert_allclose(got.train_losses, want, rtol=1e-12)
    assert got.gap == 0.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="bound must be positive and finite, got bound=0"):
        ClippedCrossEntropy(0)
