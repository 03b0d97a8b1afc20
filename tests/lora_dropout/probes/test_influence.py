"""Influence against the derivative of exact solutions, and against retraining."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_dropout import FitConfig, LoRADropoutConfig, adapt, adapters, sample_masks
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.influence import agreement, influence
from lora_dropout.probes.retraining import leave_one_out
from tests.lora_dropout.probes.problems import (
    class_data,
    linear_data,
    linear_model,
    stationary_point,
)
from tests.lora_dropout.strategies import generator, seeded, two_layers


def ridge() -> AdapterObjective:
    """Least squares in B (A frozen), with a penalty: a quadratic with one solution."""
    model = linear_model()
    adapters(model)["0"].lora_A.requires_grad_(False)
    return AdapterObjective(model, linear_data(8), loss_fn=F.mse_loss, weight=0.2)


def classifier(rank: int = 1) -> AdapterObjective:
    model = two_layers(LoRADropoutConfig(rank=rank, dropout=0.0))
    return AdapterObjective(model, class_data(12), weight=0.1)


def left_out(objective: AdapterObjective, theta: torch.Tensor, i: int, share: float) -> np.ndarray:
    """The minimum with the i-th loss counting 1 - share, by Newton steps from `theta`."""
    at = torch.tensor([i])
    eye = torch.eye(len(theta), dtype=theta.dtype)
    n = len(objective.targets)
    one = AdapterObjective(
        objective.model, (objective.inputs[at], objective.targets[at]), loss_fn=objective.loss_fn
    )
    for _ in range(8):
        slope = objective.gradient(theta) - share / n * one.gradient(theta)
        bend = objective.hessian_products(theta, eye) - share / n * one.hessian_products(theta, eye)
        theta = theta - torch.linalg.solve(bend, slope)
    return theta.numpy()


@pytest.mark.parametrize("make", [ridge, classifier])
def test_derivative_of_the_solution_in_the_weight_of_an_example(make) -> None:
    objective = make()
    theta = stationary_point(objective)
    got = influence(objective, theta, damping=0.0, examples=[0, 5])
    assert got.method == "dense" and got.gradient_norm < 1e-8 and got.residual < 1e-8
    for k, i in enumerate([0, 5]):
        both = [left_out(objective, theta, i, share) for share in (1e-4, -1e-4)]
        slope = (both[0] - both[1]) / 2e-4
        np.testing.assert_allclose(got.moves[k], slope, rtol=1e-4, atol=1e-7)


def test_a_quadratic_misses_by_the_leverage() -> None:
    """Leaving out is the step over 1 - h, h the share of the curvature that the example has."""
    objective = ridge()
    theta = stationary_point(objective)
    got = influence(objective, theta, damping=0.0)
    truth = np.stack([left_out(objective, theta, i, 1.0) for i in range(8)]) - theta.numpy()
    layer = adapters(objective.model)["0"]
    feature = (objective.inputs @ layer.lora_A.T * layer.scaling * 0.25).detach()  # (1-p)^2
    # Each output has the curvature 2/3 mean(a a') + 2 * 0.2 on its row of B.
    bend = 2 / 3 * feature.T @ feature / 8 + 0.4 * torch.eye(2, dtype=feature.dtype)
    leverage = 2 / 3 / 8 * torch.einsum("ir,rs,is->i", feature, bend.inverse(), feature).numpy()
    assert leverage.max() > 0.02
    np.testing.assert_allclose(got.moves / (1 - leverage)[:, None], truth, rtol=1e-6, atol=1e-9)
    # The loss at the moved parameters is the loss there, and the first order its tangent.
    exact = [
        objective.losses(theta + torch.from_numpy(got.moves[i]))[i] - objective.losses(theta)[i]
        for i in range(8)
    ]
    np.testing.assert_allclose(got.stepped, exact, atol=1e-12)
    assert (got.changes > 0).all() and (got.stepped > got.changes).all()  # convex


def test_damping_and_conjugate_gradients() -> None:
    objective = classifier()
    theta = stationary_point(objective)
    size, n = len(theta), 12
    for matrix in ("hessian", "gauss_newton"):
        products = getattr(objective, f"{matrix}_products")
        bend = products(theta, torch.eye(size, dtype=theta.dtype)) + 0.5 * torch.eye(size)
        want = torch.linalg.solve(bend, objective.example_gradients(theta).T).T / n
        for most in (0, 512):
            got = influence(
                objective,
                theta,
                damping=0.5,
                matrix=matrix,  # type: ignore[arg-type]
                max_dense=most,
                tolerance=1e-10,
            )
            np.testing.assert_allclose(got.moves, want, rtol=1e-6, atol=1e-9)
            assert got.method == ("dense" if most else "cg") and got.residual < 1e-8
            assert list(got.examples) == list(range(n)) and got.damping == 0.5


def test_a_penalty_about_the_origin_leaves_rotations_flat() -> None:
    """(A, B) -> (BG, G'A) with G orthogonal changes neither B A nor the norm of the factors."""
    objective = classifier(rank=2)
    theta = stationary_point(objective)
    with pytest.raises(ValueError, match="damping must make the curvature positive: its least"):
        influence(objective, theta, damping=0.0)
    assert influence(objective, theta, damping=1e-3).residual < 1e-6


def test_against_retraining() -> None:
    """Of masked runs, with the masks in the objective; first order is right to about a quarter."""
    base = nn.Sequential(
        nn.Linear(5, 4, dtype=torch.float64), nn.Tanh(), nn.Linear(4, 3, dtype=torch.float64)
    )
    model = adapt(seeded(base, 0), LoRADropoutConfig(rank=2, dropout=0.5), generator=generator(1))
    data, masks = (
        class_data(24, seed=4),
        sample_masks(model, n_instances=64, generator=generator(0)),
    )
    config = FitConfig(
        epochs=300, batch_size=24, learning_rate=0.03, schedule="cosine", regularization=0.05
    )
    measured = leave_one_out(model, data, config=config, masks=masks, device="cpu", progress=False)
    objective = AdapterObjective(
        model, data, masks=masks, weight=measured.weight, center=torch.from_numpy(measured.start)
    )
    theta = torch.from_numpy(measured.full[0])
    got = influence(objective, theta, damping=0.0, matrix="gauss_newton")
    actual = measured.loss.values[0]
    found = agreement(got.changes, actual)
    assert found.correlation > 0.9 and found.rank_correlation > 0.85
    assert found.relative_error < 0.35 and 0.8 < found.scale < 1.4
    assert agreement(got.stepped, actual).relative_error < 0.35
    # The same for the parameters, example by example.
    moves = measured.solutions[0] - measured.full[0]
    cosines = np.einsum("ip,ip->i", got.moves, moves) / (
        np.linalg.norm(got.moves, axis=1) * np.linalg.norm(moves, axis=1)
    )
    assert np.median(cosines) > 0.5
    # Negative controls: examples mixed up; 1/n forgotten.
    assert agreement(np.roll(got.changes, 5), actual).relative_error > 0.7
    assert agreement(24 * got.changes, actual).relative_error > 10


def test_agreement_by_hand() -> None:
    got = agreement(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    assert (got.correlation, got.rank_correlation) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (got.relative_error, got.scale) == (pytest.approx(0.5), pytest.approx(2.0))
    nothing = agreement(np.zeros(3), np.array([1.0, 2.0, 2.0]))
    assert nothing.relative_error == 1.0
    assert np.isnan([nothing.correlation, nothing.rank_correlation, nothing.scale]).all()


def test_bad_input() -> None:
    objective = classifier()
    with pytest.raises(ValueError, match=r"examples must be indices in \[0, 12\), got examples="):
        influence(objective, damping=3.0, examples=[12])
    with pytest.raises(ValueError, match="damping must be non-negative and finite, got damping=-1"):
        influence(objective, damping=-1)
    with pytest.raises(ValueError, match="matrix must be one of 'hessian', 'gauss_newton', got"):
        influence(objective, damping=1.0, matrix="fisher")  # type: ignore[arg-type]
    flat = AdapterObjective(objective.model, class_data(12))
    with pytest.raises(ValueError, match="damping must make the curvature positive: its least"):
        influence(flat, damping=0.0)
    with pytest.raises(ArithmeticError, match="damping must make the curvature positive: conj"):
        influence(flat, damping=0.0, max_dense=0)
    with pytest.raises(ArithmeticError, match="conjugate gradients did not reach tolerance=1e-06"):
        influence(
            objective,
            stationary_point(objective),
            damping=0.0,
            max_dense=0,
            max_iterations=1,
        )
    with pytest.raises(ValueError, match="predicted and measured must be vectors of one length"):
        agreement(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="measured must not be all 0, got no change at all"):
        agreement(np.ones(3), np.zeros(3))
