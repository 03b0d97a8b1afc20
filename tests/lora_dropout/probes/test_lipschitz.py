"""Slopes against closed forms, and the order lower bound <= truth <= upper bound."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_dropout import LoRADropoutConfig, adapters, sample_masks
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.lipschitz import (
    ball_lipschitz,
    linear_layer_lipschitz,
    segment_lipschitz,
)
from tests.lora_dropout.probes.problems import N1, class_data, linear_data, linear_model
from tests.lora_dropout.strategies import ALGEBRA, generator, normal, two_layers


def quadratic_problem(weight: float = 0.0) -> AdapterObjective:
    """A frozen A makes the model linear in what is trained, B alone."""
    model, data = linear_model(dropout=0.0, mask="none"), linear_data()
    adapters(model)["0"].lora_A.requires_grad_(False)
    return AdapterObjective(model, data, loss_fn=F.mse_loss, weight=weight)


def test_segment_of_a_quadratic_is_exact() -> None:
    objective = quadratic_problem(weight=0.2)
    layer = adapters(objective.model)["0"]
    u = objective.point()
    v = u + normal(len(u), seed=1)
    got = segment_lipschitz(objective, u, v, n_points=2, quadratic=True)
    assert got.direction == "exact"
    assert got.distance == pytest.approx(float((u - v).norm()))
    # By hand: gradient in B of (1/n1) ||r||^2 with r = W0 x + s B z - y is (2 s / n1) r z'.
    x, y = objective.inputs, objective.targets
    z = x @ layer.lora_A.detach().T
    worst, pulled, losses = np.zeros(len(y)), np.zeros(len(y)), []
    for share in np.linspace(0, 1, 101):
        point = u + share * (v - u)
        B = point.view(N1, 2)
        r = x @ layer.base_layer.weight.T + layer.scaling * z @ B.T - y
        gradient = 2 * layer.scaling / N1 * torch.einsum("ni,nj->nij", r, z).flatten(1)
        worst = np.maximum(worst, gradient.norm(dim=1).numpy())
        pulled = np.maximum(pulled, (gradient + 0.4 * point).norm(dim=1).numpy())
        losses.append(r.square().mean(dim=1) + 0.2 * point.square().sum())
    np.testing.assert_allclose(got.gradient_norms, worst, rtol=ALGEBRA)
    np.testing.assert_allclose(got.regularized_gradient_norms, pulled, rtol=ALGEBRA)
    secant = (losses[-1] - losses[0]).abs().numpy() / got.distance
    np.testing.assert_allclose(got.regularized_secants, secant, rtol=1e-8)
    assert (got.secants <= got.gradient_norms * (1 + 1e-12)).all()
    assert (got.rho, got.eta) == (got.gradient_norms.max(), got.regularized_gradient_norms.max())


def test_a_false_claim_of_a_quadratic_is_refused() -> None:
    model, data = linear_model(), linear_data()  # quadratic in B A, not in (A, B)
    objective = AdapterObjective(model, data, loss_fn=F.mse_loss)
    u = objective.point()
    with pytest.raises(ValueError, match="quadratic=True needs gradients that are affine"):
        segment_lipschitz(objective, u, u + 1, quadratic=True)


def test_more_points_find_no_less_and_secants_stay_below() -> None:
    objective = AdapterObjective(two_layers(LoRADropoutConfig(rank=2)), class_data(8), weight=0.1)
    u = objective.point()
    v = u + 0.5 * normal(len(u), seed=2)
    coarse = segment_lipschitz(objective, u, v, n_points=2)
    fine = segment_lipschitz(objective, u, v, n_points=21)
    assert coarse.direction == fine.direction == "lower"
    assert (fine.gradient_norms >= coarse.gradient_norms).all()
    assert (fine.gradient_norms > coarse.gradient_norms * 1.001).any()
    # The mean value theorem, with a grid fine enough for these two layers.
    assert (fine.secants <= fine.gradient_norms * 1.01).all()
    assert (fine.regularized_secants <= fine.regularized_gradient_norms * 1.01).all()
    change = (objective.losses(u) - objective.losses(v)).abs().numpy()
    np.testing.assert_allclose(fine.secants * fine.distance, change, atol=1e-12)


def test_a_segment_of_no_length() -> None:
    objective = quadratic_problem()
    u = objective.point()
    got = segment_lipschitz(objective, u, u)
    assert got.distance == 0 and (got.secants == 0).all() and (got.gradient_norms > 0).all()


def test_ball_of_a_quadratic_reaches_its_known_maximum() -> None:
    # The gradient norm is (2 s / n1) ||r|| ||z||, and over ||dB|| <= D the residual r can grow by
    # s D ||z||: in the direction r z'.
    objective = quadratic_problem()
    layer, radius = adapters(objective.model)["0"], 0.7
    x, y = objective.inputs, objective.targets
    z = (x @ layer.lora_A.detach().T).norm(dim=1)
    r = (objective.model(x) - y).detach().norm(dim=1)
    s = layer.scaling
    want = (2 * s / N1 * (r + s * radius * z) * z).numpy()
    got = ball_lipschitz(objective, objective.point(), radius, generator=generator(0))
    assert got.direction == "lower"
    assert (got.gradient_norms <= want * (1 + 1e-12)).all()  # never above the truth
    np.testing.assert_allclose(got.gradient_norms, want, rtol=1e-6)  # and here it finds it


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("masked", [True, False])
def test_search_stays_below_the_bound_by_norms(loss: str, masked: bool) -> None:
    model = linear_model()
    data = linear_data() if loss == "mse" else class_data(n2=4)
    function = F.mse_loss if loss == "mse" else F.cross_entropy
    masks = sample_masks(model, n_instances=2, generator=generator(0)) if masked else "raw"
    objective = AdapterObjective(model, data, loss_fn=function, masks=masks)
    for radius in (1e-3, 1.0):
        upper = linear_layer_lipschitz(model, data, radius, loss=loss)
        lower = ball_lipschitz(objective, objective.point(), radius, generator=generator(1))
        assert (lower.gradient_norms <= upper).all()
    if not masked:
        assert lower.rho > 0.05 * upper.max()  # neither is idle


def test_bound_by_norms_is_attained_by_aligned_vectors() -> None:
    # Rank 1, n1 = n2 = 1, factors a = b: everything in the derivation is an equality.
    model = linear_model(rank=1, n1=1, n2=1, alpha=1.0)
    layer = adapters(model)["0"]
    with torch.no_grad():
        layer.lora_A.fill_(0.6)
        layer.lora_B.fill_(0.6)
        layer.base_layer.weight.fill_(1.0)
    data = (torch.tensor([[2.0]]).double(), torch.tensor([[-1.0]]).double())
    objective = AdapterObjective(model, data, loss_fn=F.mse_loss, masks="raw")
    upper = linear_layer_lipschitz(model, data, 0.5, loss="mse")
    lower = ball_lipschitz(objective, objective.point(), 0.5, generator=generator(1))
    assert lower.rho == pytest.approx(upper[0], rel=1e-4)


def test_bad_input() -> None:
    objective = quadratic_problem()
    u = objective.point()
    with pytest.raises(ValueError, match="n_points must be at least 2, got n_points=1"):
        segment_lipschitz(objective, u, u, n_points=1)
    with pytest.raises(ValueError, match="radius must be positive and finite, got radius=0"):
        ball_lipschitz(objective, u, 0)
    with pytest.raises(ValueError, match="loss must be one of 'cross_entropy', 'mse'"):
        linear_layer_lipschitz(objective.model, linear_data(), 1.0, loss="hinge")
    with pytest.raises(ValueError, match="model must be one LoRA layer on a tensor"):
        linear_layer_lipschitz(
            two_layers(LoRADropoutConfig(rank=2)), linear_data(), 1.0, loss="mse"
        )
    for config in ({"rescale": True}, {"mask": "activation"}, {"mask": "entrywise"}):
        with pytest.raises(ValueError, match="masks must keep or drop whole rows, columns or"):
            linear_layer_lipschitz(linear_model(**config), linear_data(), 1.0, loss="mse")
