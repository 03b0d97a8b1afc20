"""The flat view of the objective against plain autograd, one example and one mask at a time."""

import pytest
import torch
from torch.nn import functional as F

from lora_dropout import (
    LoRADropoutConfig,
    adapt,
    instance_loss,
    merge,
    sample_masks,
    trainable_parameters,
    use_masks,
)
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.curvature import curvature
from lora_dropout.tasks.vit import VisionTransformer
from tests.lora_dropout.probes.problems import class_data
from tests.lora_dropout.strategies import ALGEBRA, IDENTITY, close, fill, generator, normal
from tests.lora_dropout.strategies import two_layers as two_layers_of

LAWS = ("row_column", "rank", "entrywise")


def two_layers(**config):
    return two_layers_of(LoRADropoutConfig(**{"rank": 2, "dropout": 0.4, **config}))


def plain_gradients(model, x, y, masks):
    """Loop over examples; backward of the N-instance loss, one mask a pass."""
    parameters = list(trainable_parameters(model).values())
    rows = []
    for i in range(len(y)):
        loss = instance_loss(model, x[i : i + 1], y[i : i + 1], masks=masks, mode="loop")
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(rows)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("max_rows", [7, 1024])
def test_losses_and_gradients(law: str, max_rows: int) -> None:
    model, (x, y) = two_layers(mask=law), class_data(9)
    masks = sample_masks(model, n_instances=3, generator=generator(1))
    center = normal(len(AdapterObjective(model, (x, y)).point()), seed=3)
    objective = AdapterObjective(
        model, (x, y), masks=masks, weight=0.3, center=center, max_rows=max_rows
    )
    theta = objective.point()
    want = torch.stack(
        [
            instance_loss(model, x[i : i + 1], y[i : i + 1], masks=masks, mode="loop")
            for i in range(9)
        ]
    )
    want = want.detach()
    close(objective.losses(theta), want, IDENTITY)
    gradients = plain_gradients(model, x, y, masks)
    close(objective.example_gradients(theta), gradients, ALGEBRA)
    close(objective.gradient(theta), gradients.mean(0) + 0.6 * (theta - center), ALGEBRA)
    value = float(want.mean() + 0.3 * (theta - center).square().sum())
    assert objective.value(theta) == pytest.approx(value, rel=IDENTITY)
    # Other points than the model's, one an example.
    points = theta + 0.1 * normal(4, len(theta), seed=4)
    some = torch.tensor([8, 2, 2, 0])
    pairs = torch.stack([objective.losses(t)[i] for t, i in zip(points, some, strict=True)])
    close(objective.pair_losses(points, some), pairs, IDENTITY)
    one_by_one = [objective.example_gradients(t)[i] for t, i in zip(points, some, strict=True)]
    close(objective.example_gradients(points, some), torch.stack(one_by_one), ALGEBRA)
    close(objective.flatten(objective.unflatten(theta)), theta, 0.0)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("max_rows", [7, 1024])
def test_curvature_products_against_double_backward(masked: bool, max_rows: int) -> None:
    model, (x, y) = two_layers(), class_data(9)
    masks = sample_masks(model, n_instances=2, generator=generator(1)) if masked else "mean"
    objective = AdapterObjective(model, (x, y), masks=masks, weight=0.3, max_rows=max_rows)
    theta = objective.point()

    def value(t):
        outputs = torch.func.functional_call(model, objective.unflatten(t), (x,))
        return F.cross_entropy(outputs, y)

    if masked:
        halves = []
        for index in range(2):
            with use_masks(model, masks.select(index)):
                halves.append(torch.autograd.functional.hessian(value, theta))
        want = (halves[0] + halves[1]) / 2
    else:
        with use_masks(model, "mean"):
            want = torch.autograd.functional.hessian(value, theta)
    want = want + 0.6 * torch.eye(len(theta), dtype=torch.float64)
    got = objective.hessian_products(theta, torch.eye(len(theta), dtype=torch.float64))
    close(got, want, ALGEBRA)


def test_gauss_newton_products_against_jacobians() -> None:
    model, (x, y) = two_layers(), class_data(9)
    objective = AdapterObjective(model, (x, y), weight=0.3)
    theta = objective.point()
    with use_masks(model, "mean"):
        jacobian = torch.autograd.functional.jacobian(
            lambda t: torch.func.functional_call(model, objective.unflatten(t), (x,)), theta
        )
        p = model(x).softmax(dim=1).detach()
    want = 0.6 * torch.eye(len(theta), dtype=torch.float64)
    for i in range(len(y)):
        curved = torch.diag(p[i]) - torch.outer(p[i], p[i])
        want += jacobian[i].T @ curved @ jacobian[i] / len(y)
    got = objective.gauss_newton_products(theta, torch.eye(len(theta), dtype=torch.float64))
    close(got, want, ALGEBRA)


def test_a_transformer_in_single_precision_is_evaluated_in_double() -> None:
    base = VisionTransformer(image_size=4, patch_size=2, width=8, depth=1, heads=2, n_classes=3)
    settings = LoRADropoutConfig(rank=2, target_modules=r".*(query|value)")
    model = fill(adapt(base, settings, generator=generator(0)), 1)
    x, y = torch.randn(6, 4, 4, generator=generator(2)), torch.tensor([0, 1, 2, 0, 1, 2])
    objective = AdapterObjective(model, (x, y))
    theta, direction = objective.point(), normal(1, len(objective.point()), seed=3)
    step = 1e-5 * direction[0]
    slope = (objective.gradient(theta + step) - objective.gradient(theta - step)) / 2e-5
    close(objective.hessian_products(theta, direction)[0], slope, 1e-7)
    assert next(model.parameters()).dtype == torch.float32  # the model is as it was
    assert model.training


def test_bad_input() -> None:
    model, data = two_layers(), class_data(4)
    objective = AdapterObjective(model, data)
    with pytest.raises(ValueError, match=r"theta must have shape \(\d+,\), got \(3,\)"):
        objective.losses(torch.zeros(3))
    with pytest.raises(ValueError, match="weight must be non-negative and finite, got weight=-1"):
        AdapterObjective(model, data, weight=-1)
    with pytest.raises(ValueError, match=r"center must have shape .* got \(2,\)"):
        AdapterObjective(model, data, center=torch.zeros(2))
    dropped = two_layers(mask="activation")
    masks = sample_masks(dropped, generator=generator(0))
    with pytest.raises(ValueError, match="masks of law 'activation' go by an example's place"):
        view = AdapterObjective(dropped, data, masks=masks)
        view.example_gradients(view.point())
    with pytest.raises(ValueError, match=r"model must be unmerged, layers \['0', '2'\] are merged"):
        AdapterObjective(merge(model), data)


def test_the_penalty_is_on_factors_alone() -> None:
    model = two_layers(target_modules=("0",), modules_to_save=("2",))
    objective = AdapterObjective(model, class_data(6), weight=0.3)
    theta = objective.point()
    values = objective.unflatten(theta)
    factors = [value for name, value in values.items() if "lora_" in name]
    assert len(factors) == 2 and len(values) == 4
    want = 0.3 * sum(float(value.square().sum()) for value in factors)
    assert float(objective.penalty(theta)) == pytest.approx(want, rel=IDENTITY)
    bare = AdapterObjective(model, class_data(6))
    pull = objective.gradient(theta) - bare.gradient(theta)
    close(pull, 0.6 * theta * objective.penalized, ALGEBRA)
    identity = torch.eye(len(theta), dtype=torch.float64)
    added = objective.hessian_products(theta, identity) - bare.hessian_products(theta, identity)
    close(added, torch.diag(0.6 * objective.penalized), ALGEBRA)
    assert curvature(objective).loss_least is None
    assert curvature(bare).loss_least == curvature(bare).least
