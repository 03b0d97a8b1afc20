"""Measuring a model."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_dropout import LoRADropoutConfig, adapt, ensemble_predict, evaluate, sample_masks
from lora_dropout import expected_calibration_error as ece
from tests.lora_dropout.strategies import generator, normal, two_layers

CONFIG = LoRADropoutConfig(rank=2, dropout=0.4)


def test_classes() -> None:
    model, x, y = two_layers(CONFIG), normal(9, 5, seed=1), torch.arange(9) % 3
    got = evaluate(model, (x, y), n_instances=3, generator=generator(4))
    masks = sample_masks(model, n_instances=3, generator=generator(4))
    logits = ensemble_predict(model, x, masks=masks, average="probabilities")
    assert got["loss"] == pytest.approx(float(F.cross_entropy(logits, y)))
    assert got["accuracy"] == float((logits.argmax(dim=1) == y).double().mean())
    assert got["ece"] == pytest.approx(ece(logits.softmax(dim=1), y))


def test_regression_averages_outputs() -> None:
    model, x, y = two_layers(CONFIG), normal(9, 5, seed=1), normal(9, 3, seed=2)
    got = evaluate(model, (x, y), n_instances=3, generator=generator(4), loss_fn=F.mse_loss)
    masks = sample_masks(model, n_instances=3, generator=generator(4))
    wanted = F.mse_loss(ensemble_predict(model, x, masks=masks, average="logits"), y)
    assert got == {"loss": pytest.approx(float(wanted))}


def test_one_prediction_a_token() -> None:
    model, x = two_layers(CONFIG), normal(4, 6, 5, seed=1)
    y = torch.arange(24).reshape(4, 6) % 3
    got = evaluate(
        model, (x, y), loss_fn=lambda out, t: F.cross_entropy(out.flatten(0, 1), t.flatten())
    )
    assert set(got) == {"loss", "accuracy", "ece"}


def test_bad_data() -> None:
    model, x = two_layers(CONFIG), normal(4, 5, seed=1)
    with pytest.raises(TypeError, match=r"data must be a pair \(inputs, targets\), got list"):
        evaluate(model, [x, x])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data must not be empty, got batch sizes {'data': 0}"):
        evaluate(model, (x[:0], torch.zeros(0)))
    with pytest.raises(ValueError, match="data must have as many targets as inputs, got 3, 4"):
        evaluate(model, (x, torch.zeros(3)))
    with pytest.raises(ValueError, match=r"data must have one batch size, got {'a': 4, 'b': 3}"):
        evaluate(model, ({"a": x, "b": x[:3]}, torch.zeros(4)))


def test_model_on_two_devices() -> None:
    model, x = two_layers(CONFIG), normal(4, 5, seed=1)
    model[2].to("meta")
    with pytest.raises(ValueError, match=r"one device, got parameters on \['cpu', 'meta'\]"):
        evaluate(model, (x, torch.zeros(4).long()))


def test_ignored_targets_do_not_count() -> None:
    model, x = two_layers(CONFIG), normal(6, 5, seed=1)
    labels = torch.tensor([0, -100, 1, 0, -100, 1])
    kept = labels != -100
    some = evaluate(model, (x, labels), inference="mean")
    assert some == pytest.approx(evaluate(model, (x[kept], labels[kept]), inference="mean"))


def test_counts_are_no_classes() -> None:
    model = adapt(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), LoRADropoutConfig(rank=1))
    x, counts = torch.randn(6, 4), torch.tensor([0, 3, 1, 7, 2, 0])
    for loss in (F.poisson_nll_loss, lambda o, t: F.poisson_nll_loss(o, t), F.mse_loss):
        found = evaluate(model, (x, counts), loss_fn=loss, inference="mean")
        assert found.keys() == {"loss"}
    model = adapt(
        nn.Sequential(nn.Linear(4, 3)), LoRADropoutConfig(rank=1)
    )  # several labels, told by integers
    labels = torch.randint(0, 2, (6, 3))  # several to an example
    loss = lambda o, t: F.binary_cross_entropy_with_logits(o, t.float())  # noqa: E731
    found = evaluate(model, (x, labels), loss_fn=loss, inference="mean", average="sigmoids")
    assert found.keys() == {"loss"}
