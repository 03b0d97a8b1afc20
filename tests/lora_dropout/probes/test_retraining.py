"""Stability by retraining against closed forms and against one `fit` a subset."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_bounds.exact import ridge
from lora_dropout import FitConfig, LoRADropoutConfig, adapters, fit, trainable_parameters
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.retraining import leave_one_out, replace_one, summarize
from lora_dropout.seeds import derived_seed
from tests.lora_dropout.probes.problems import class_data, linear_data, linear_model
from tests.lora_dropout.strategies import close, two_layers


def least_squares(n: int = 12) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """One weight; with A frozen, least squares on the feature A x."""
    model = linear_model(rank=1, n1=1, n2=1, dropout=0.0, mask="none")
    return model, linear_data(n, n1=1, n2=1)


CONVERGED = FitConfig(
    epochs=1000, batch_size=64, learning_rate=0.1, schedule="cosine", max_grad_norm=None
)


@pytest.mark.parametrize("convention", ["1/n", "1/(n-1)"])
def test_against_closed_form_leave_one_out(convention: str) -> None:
    model, (x, y) = least_squares()
    layer = adapters(model)["0"]
    layer.lora_A.requires_grad_(False)
    got = leave_one_out(
        model,
        (x, y),
        config=CONVERGED,
        loss_fn=F.mse_loss,
        convention=convention,
        device="cpu",
        progress=False,
    )
    # l = (y - w0 x - (s a x) b)^2: twice the loss of lora_bounds.exact.ridge.
    feature = (layer.scaling * x @ layer.lora_A.detach().T).numpy()
    target = (y - x @ layer.base_layer.weight.T)[:, 0].numpy()
    want = ridge.leave_one_out(inputs=feature, targets=target, regularization=0.0, dropout=0.0)
    np.testing.assert_allclose(got.solutions[0], want.solutions, atol=1e-6)
    np.testing.assert_allclose(got.loss.values[0], 2 * want.loss_changes, atol=1e-6)
    assert got.loss.absolute == pytest.approx(2 * want.hypothesis_stability, rel=1e-4)
    assert (got.loss.values > 0).all()  # what is no longer fitted is predicted worse
    assert got.noise.absolute < 1e-6 and got.weight == 0.0
    np.testing.assert_array_equal(got.regularized.values, got.loss.values)
    close(torch.from_numpy(got.start), layer.lora_B.detach().flatten(), 0.0)  # left as it was


SHORT = FitConfig(epochs=3, batch_size=4, learning_rate=0.02, n_instances=2, regularization=0.3)
QUIET = {"device": "cpu", "progress": False}


def small() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    return two_layers(LoRADropoutConfig(rank=2, dropout=0.4)), class_data(10)


def fitted(x, y, *, seed: int, loss_fn=F.cross_entropy) -> torch.Tensor:
    """One run of `fit`, alone."""
    model, _ = small()
    config = FitConfig(**{**SHORT.__dict__, "seed": seed, "inference": "mean"})
    fit(model, (x, y), config=config, loss_fn=loss_fn, **QUIET)
    return torch.cat([p.detach().flatten() for p in trainable_parameters(model).values()])


def loss_of(theta: torch.Tensor, x, y) -> float:
    model, _ = small()
    with torch.no_grad():
        start = 0
        for p in trainable_parameters(model).values():
            p.copy_(theta[start : start + p.numel()].view(p.shape))
            start += p.numel()
        return float(F.cross_entropy(model.eval()(x), y))


def test_each_run_is_that_of_fit() -> None:
    model, (x, y) = small()
    chosen, seeds = [7, 2], (0, 5)
    got = leave_one_out(
        model, (x, y), config=SHORT, examples=chosen, seeds=seeds, convention="1/(n-1)", **QUIET
    )
    start = torch.cat([p.detach().flatten() for p in trainable_parameters(model).values()])
    q = 1 - 0.6**2
    assert got.weight == pytest.approx(0.3 * q) and got.diverged == 0
    close(torch.from_numpy(got.start), start, 0.0)
    for s, seed in enumerate(seeds):
        full, noise = fitted(x, y, seed=seed), fitted(x, y, seed=derived_seed(seed, "retraining"))
        close(torch.from_numpy(got.full[s]), full, 1e-9)
        assert got.noise_distances[s] == pytest.approx(float((noise - full).norm()), rel=1e-6)
        for k, i in enumerate(chosen):
            rest = [j for j in range(10) if j != i]
            without = fitted(x[rest], y[rest], seed=seed)
            close(torch.from_numpy(got.solutions[s, k]), without, 1e-9)
            one = x[i : i + 1], y[i : i + 1]
            change = loss_of(without, *one) - loss_of(full, *one)
            assert got.loss.values[s, k] == pytest.approx(change, abs=1e-9)
            norms = [float((theta - start).square().sum()) for theta in (without, full)]
            whole = change + 0.3 * q * (norms[0] - norms[1])
            assert got.regularized.values[s, k] == pytest.approx(whole, abs=1e-9)
            assert got.distances[s, k] == pytest.approx(float((without - full).norm()), rel=1e-6)
            moved = loss_of(noise, *one) - loss_of(full, *one)
            assert got.noise.values[s, k] == pytest.approx(moved, abs=1e-9)


def test_removal_under_1_over_n_keeps_order_and_masks() -> None:
    model, (x, y) = small()
    got = leave_one_out(model, (x, y), config=SHORT, examples=[7, 2], **QUIET)

    def without_7(outputs, marked):  # class 9 marks the example whose loss counts 0
        kept = marked != 9
        losses = F.cross_entropy(outputs, torch.where(kept, marked, 0), reduction="none")
        return (losses * kept).sum() / len(marked)

    marked = y.clone()
    marked[7] = 9
    model, _ = small()
    want = fitted_marked(x, marked, without_7)
    close(torch.from_numpy(got.solutions[0, 0]), want, 1e-9)


def fitted_marked(x, marked, loss_fn) -> torch.Tensor:
    """`fit` with a loss that evaluation of classes would not understand: no history between."""
    model, _ = small()
    from lora_dropout.training import fit as training

    original = training._Run.record
    training._Run.record = lambda self, **extra: self.history.append({"train_loss": 0.0})
    try:
        fit(model, (x, marked), config=FitConfig(**{**SHORT.__dict__}), loss_fn=loss_fn, **QUIET)
    finally:
        training._Run.record = original
    return torch.cat([p.detach().flatten() for p in trainable_parameters(model).values()])


def test_common_random_numbers_show_an_example_below_the_noise() -> None:
    model, data = small()
    common = leave_one_out(model, data, config=SHORT, convention="1/n", **QUIET)
    apart = leave_one_out(model, data, config=SHORT, convention="1/(n-1)", **QUIET)
    # Another shuffle and other masks move the solution several times as far as the example.
    assert common.noise_distances == pytest.approx(apart.noise_distances)
    assert common.distances.mean() < 0.5 * common.noise_distances.mean()
    assert apart.distances.mean() > 2 * common.distances.mean()


def test_replaced_examples_are_those_of_fit() -> None:
    model, (x, y) = small()
    spare_x, spare_y = class_data(2, seed=50)
    got = replace_one(model, (x, y), (spare_x, spare_y), config=SHORT, examples=[3, 8], **QUIET)
    full = fitted(x, y, seed=0)
    for k, i in enumerate([3, 8]):
        new_x, new_y = x.clone(), y.clone()
        new_x[i], new_y[i] = spare_x[k], spare_y[k]
        other = fitted(new_x, new_y, seed=0)
        close(torch.from_numpy(got.solutions[0, k]), other, 1e-9)
        one = x[i : i + 1], y[i : i + 1]
        change = loss_of(other, *one) - loss_of(full, *one)
        assert got.loss.values[0, k] == pytest.approx(change, abs=1e-9)
    assert list(got.examples) == [3, 8]


def test_nothing_replaced_is_no_change() -> None:
    model, (x, y) = small()
    got = replace_one(model, (x, y), (x[:3], y[:3]), config=SHORT, **QUIET)
    np.testing.assert_allclose(got.distances, 0, atol=1e-12)
    assert got.loss.absolute < 1e-12 < got.noise.absolute


def test_changes_are_averaged_as_stated() -> None:
    values = np.array([[1.0, -3.0, 2.0], [0.0, 1.0, 5.0]])
    got = summarize(values, 0.9)
    assert got.absolute == 2.0 and got.signed == 1.0
    assert got.absolute_interval.low < 2.0 < got.absolute_interval.high
    per_example = np.array([0.5, 2.0, 3.5])  # |.| averaged over seeds
    half = (got.absolute_interval.high - got.absolute_interval.low) / 2
    assert half == pytest.approx(2.91998558 * per_example.std(ddof=1) / np.sqrt(3))
    assert got.absolute_seed_interval.low == pytest.approx(2.0)  # both seeds have mean 2
    assert summarize(values[:1], 0.9).absolute_seed_interval is None


def test_targets_of_any_shape_carry_a_weight() -> None:
    model, (x, y) = linear_model(), linear_data(6)
    got = leave_one_out(model, (x, y), config=SHORT, loss_fn=F.mse_loss, examples=[0, 4], **QUIET)
    assert got.loss.values.shape == (1, 2) and got.distances.min() > 0
    same = AdapterObjective(model, (x, y), loss_fn=F.mse_loss)
    before = same.losses(torch.from_numpy(got.full[0]))[4]
    after = same.losses(torch.from_numpy(got.solutions[0, 1]))[4]
    assert got.loss.values[0, 1] == pytest.approx(float(after - before), rel=1e-9)


def test_bad_input() -> None:
    model, (x, y) = small()
    for examples in ([1], [1, 1]):
        with pytest.raises(ValueError, match="examples must be 2 or more distinct indices, got"):
            leave_one_out(model, (x, y), config=SHORT, examples=examples, **QUIET)
    with pytest.raises(
        ValueError, match=r"examples must be indices in \[0, 10\), got examples=\[0, 10\]"
    ):
        leave_one_out(model, (x, y), config=SHORT, examples=[0, 10], **QUIET)
    with pytest.raises(ValueError, match="convention must be one of '1/n', '1/\\(n-1\\)'"):
        leave_one_out(model, (x, y), config=SHORT, convention="n", **QUIET)
    with pytest.raises(ValueError, match="seeds must not be empty"):
        leave_one_out(model, (x, y), config=SHORT, seeds=(), **QUIET)
    with pytest.raises(ValueError, match="spares must be as many as examples, got 3 and 2"):
        replace_one(model, (x, y), (x[:3], y[:3]), config=SHORT, examples=[0, 1], **QUIET)
    with pytest.raises(ValueError, match="spares must have the same inputs as train"):
        replace_one(model, (x, y), ({"x": x[:3]}, y[:3]), config=SHORT, **QUIET)
