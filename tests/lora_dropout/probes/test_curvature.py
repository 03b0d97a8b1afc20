"""Eigenvalues against Hessians written out by hand, and the gauge claims."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_dropout import LoRADropoutConfig, adapters, sample_masks
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.curvature import Spectrum, curvature
from lora_dropout.probes.gauge import gauge_space
from tests.lora_dropout.probes.problems import (
    N1,
    N2,
    class_data,
    linear_data,
    linear_model,
    set_least_squares,
    stationary_point,
)
from tests.lora_dropout.strategies import ALGEBRA, close, generator, normal, two_layers

FLAT = 1e-9  # an eigenvalue of exactly 0, beside ones of order 1


def hand_made_hessian(model, x, y, rank: int) -> torch.Tensor:
    """Of (1/(n n1)) ||(W0 + s B A) x - y||^2 in (A, B): its quadratic form, polarised."""
    layer = adapters(model)["0"]
    A, B, s = layer.lora_A.detach(), layer.lora_B.detach(), layer.scaling
    residual = x @ (layer.base_layer.weight + s * B @ A).T - y

    def form(v):
        dA, dB = v[: rank * N2].view(rank, N2), v[rank * N2 :].view(N1, rank)
        first = s * x @ (dB @ A + B @ dA).T
        second = 2 * s * x @ (dB @ dA).T
        return 2 * (first.square() + residual * second).mean()

    unit = torch.eye(rank * (N1 + N2), dtype=torch.float64)
    alone = torch.stack([form(v) for v in unit])
    both = torch.stack([torch.stack([form(u + v) for v in unit]) for u in unit])
    return (both - alone - alone[:, None]) / 2


@pytest.mark.parametrize("rank", [1, 2])
def test_linear_adapter_against_its_hessian_by_hand(rank: int) -> None:
    model, (x, y) = linear_model(rank=rank), linear_data()
    objective = AdapterObjective(model, (x, y), loss_fn=F.mse_loss, masks="raw", weight=0.25)
    want = torch.linalg.eigvalsh(hand_made_hessian(model, x, y, rank)).numpy() + 0.5
    got = curvature(objective)
    np.testing.assert_allclose(got.eigenvalues, want, rtol=0, atol=ALGEBRA * want[-1])
    assert (got.least, got.leading) == (got.eigenvalues[0], got.eigenvalues[-1])
    assert got.loss_least == pytest.approx(want[0] - 0.5, abs=ALGEBRA * want[-1])
    assert (got.method, got.direction, got.converged) == ("dense", "exact", True)
    assert got.gradient_norm == pytest.approx(float(objective.gradient(objective.point()).norm()))
    assert got.residual < 1e-12 * want[-1]


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_lanczos_agrees_with_dense(matrix: str) -> None:
    model = two_layers(LoRADropoutConfig(rank=2, dropout=0.4))
    objective = AdapterObjective(model, class_data(30), weight=0.05)
    dense = curvature(objective, matrix=matrix)
    lanczos = curvature(objective, matrix=matrix, max_dense=0, tolerance=1e-10)
    assert lanczos.method == "lanczos" and lanczos.direction == "upper"
    assert lanczos.eigenvalues is None
    for name in ("least", "leading", "gauge_least", "gauge_leading", "off_gauge_least"):
        assert getattr(lanczos, name) == pytest.approx(getattr(dense, name), abs=1e-7), name
    # Inner estimates: never outside the spectrum.
    assert lanczos.least >= dense.least - 1e-12 and lanczos.leading <= dense.leading + 1e-12
    if matrix == "gauss_newton":
        assert dense.loss_least >= -1e-12
    else:
        assert dense.loss_least < -1e-3  # not convex in the factors


def test_lanczos_that_does_not_converge_gives_no_number() -> None:
    model, data = linear_model(rank=8, n1=16, n2=16), linear_data(n1=16, n2=16)
    objective = AdapterObjective(model, data, loss_fn=F.mse_loss)
    got = curvature(objective, max_dense=0, tolerance=1e-14, max_iterations=1)
    assert got.least is None and got.loss_least is None and got.residual is None
    assert not got.converged and got.off_gauge_least is None
    # What is known is kept.
    assert got.leading == pytest.approx(curvature(objective).leading, rel=1e-6)
    assert got.gradient_norm > 0


def test_spectra_of_plain_matrices() -> None:
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.standard_normal((40, 40)))[0]
    for values in (
        np.linspace(-3, 2, 40),
        np.linspace(-2, 3, 40),
        np.linspace(1, 2, 40),
        np.linspace(-2, -1, 40),
        np.r_[np.zeros(38), -1.0, 5.0],
        np.zeros(40),
        np.full(40, 2.0),
    ):
        matrix = (basis * values) @ basis.T
        for max_dense in (0, 100):
            got = Spectrum(max_dense, 1e-10, None, 0).extremes(lambda v, m=matrix: v @ m, 40)
            assert got.least == pytest.approx(values.min(), abs=1e-8)
            assert got.leading == pytest.approx(values.max(), abs=1e-8)


@pytest.mark.parametrize("law", ["row_column", "entrywise", "activation", "rank"])
def test_gauge_dimension(law: str) -> None:
    model = linear_model(mask=law)
    data = linear_data()
    mask_free = AdapterObjective(model, data, loss_fn=F.mse_loss)
    assert gauge_space(mask_free).dimension == 4
    masks = sample_masks(model, n_instances=2, generator=generator(0))
    masked = AdapterObjective(model, data, loss_fn=F.mse_loss, masks=masks)
    assert gauge_space(masked).dimension == (2 if law == "rank" else 4)
    # At the usual start B = 0, where G only moves A: r * rank(A) directions, all in A.
    with torch.no_grad():
        adapters(model)["0"].lora_B.zero_()
    assert gauge_space(mask_free).dimension == 4
    with torch.no_grad():
        adapters(model)["0"].lora_A[1] = adapters(model)["0"].lora_A[0]
    assert gauge_space(mask_free).dimension == 2


@pytest.mark.parametrize("adapter", ["lora", "adalora"])
@pytest.mark.parametrize("law", ["row_column", "entrywise", "rank"])
@pytest.mark.parametrize("masked", [True, False])
def test_gauge_directions_leave_the_loss_alone(adapter: str, law: str, masked: bool) -> None:
    model, data = linear_model(mask=law, adapter=adapter), linear_data()
    masks = sample_masks(model, n_instances=3, generator=generator(0)) if masked else "mean"
    objective = AdapterObjective(model, data, loss_fn=F.mse_loss, masks=masks)
    space = gauge_space(objective)
    diagonal = masked and law == "rank"
    extra = 2 if adapter == "adalora" else 0
    assert space.dimension == (2 if diagonal else 4) + extra
    basis = space.vectors(torch.eye(space.dimension, dtype=torch.float64))
    close(basis @ basis.T, torch.eye(space.dimension, dtype=torch.float64), ALGEBRA)
    close(space.coordinates(basis), torch.eye(space.dimension, dtype=torch.float64), ALGEBRA)
    # Every loss is constant to first order along them: each example's gradient is orthogonal.
    gradients = objective.example_gradients(objective.point())
    close(gradients @ basis.T, torch.zeros(len(gradients), space.dimension).double(), ALGEBRA)
    # Not an empty statement: random directions are not orthogonal.
    assert (gradients @ normal(len(basis.T), seed=9)).abs().min() > 1e-3


@pytest.mark.parametrize("law", ["row_column", "entrywise"])
def test_gauge_curvature_is_minus_the_gradient_along_the_orbit(law: str) -> None:
    # 0 = d^2/dt^2 f(exp(-tX) A, B exp(tX)) = c'' . gradient + c' H c' at any point.
    model, data = linear_model(mask=law), linear_data()
    masks = sample_masks(model, n_instances=3, generator=generator(0))
    objective = AdapterObjective(model, data, loss_fn=F.mse_loss, masks=masks)
    theta = objective.point()
    gradient, (A, B) = objective.gradient(theta), objective.unflatten(theta).values()
    for seed in range(5):
        X = normal(2, 2, seed=seed)
        first = torch.cat([(-X @ A).flatten(), (B @ X).flatten()])
        second = torch.cat([(X @ X @ A).flatten(), (B @ X @ X).flatten()])
        curved = first @ objective.hessian_products(theta, first[None])[0]
        assert float(curved) == pytest.approx(-float(second @ gradient), rel=1e-9)
        assert abs(curved) > 1e-3  # away from stationary points the gauge is not flat


def test_gauge_is_flat_at_a_stationary_point_of_the_loss() -> None:
    model, (x, y) = linear_model(), linear_data()
    objective = AdapterObjective(model, (x, y), loss_fn=F.mse_loss, masks="raw")
    before = curvature(objective)
    assert before.gradient_norm > 0.1 and max(-before.gauge_least, before.gauge_leading) > 0.1
    set_least_squares(model, x, y)
    found = curvature(objective)
    assert found.gradient_norm < 1e-12
    assert abs(found.gauge_least) < FLAT and abs(found.gauge_leading) < FLAT
    assert found.least < FLAT  # so Lmin <= 0 there
    assert np.sum(np.abs(found.eigenvalues) < FLAT) == found.gauge_dimension == 4
    assert found.off_gauge_least > 1e-3  # all the flatness is gauge


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_penalty_around_zero_curves_the_gauge_but_not_its_rotations(rank: int) -> None:
    # ||A||^2 + ||B||^2 is the same after (Q' A, B Q) for orthogonal Q: r (r-1) / 2 directions stay
    # flat whatever the weight, so the Hessian of the loss alone has Lmin <= -2 weight there.
    weight = 0.02
    model, data = linear_model(rank=rank), linear_data()
    objective = AdapterObjective(model, data, loss_fn=F.mse_loss, masks="raw", weight=weight)
    theta = stationary_point(objective)
    found = curvature(objective, theta)
    assert found.gradient_norm < 1e-10
    flat = int(np.sum(np.abs(found.eigenvalues) < FLAT))
    assert flat == rank * (rank - 1) // 2
    assert found.least > -FLAT  # a minimum
    if rank > 1:
        assert found.loss_least == pytest.approx(-2 * weight, abs=FLAT)
    # Symmetric generators curve by exactly 4 weight.
    assert found.gauge_leading == pytest.approx(4 * weight, abs=FLAT)


def test_penalty_around_the_start_leaves_negative_curvature_of_the_loss() -> None:
    # v' H_L v = 2 weight (theta - theta0) . c'' at a stationary point of the regularised loss.
    weight = 0.02
    model, data = linear_model(), linear_data()
    layer = adapters(model)["0"]
    with torch.no_grad():
        layer.lora_B.zero_()
    center = AdapterObjective(model, data, loss_fn=F.mse_loss).point()
    objective = AdapterObjective(
        model, data, loss_fn=F.mse_loss, masks="raw", weight=weight, center=center
    )
    with torch.no_grad():
        layer.lora_B.copy_(0.1 * normal(N1, 2, seed=8))
    theta = stationary_point(objective)
    found = curvature(objective, theta)
    assert found.gradient_norm < 1e-10 and found.least > -FLAT
    A, B = objective.unflatten(theta).values()
    for seed in range(5):
        X = normal(2, 2, seed=seed)
        first = torch.cat([(-X @ A).flatten(), (B @ X).flatten()])
        second = torch.cat([(X @ X @ A).flatten(), (B @ X @ X).flatten()])
        curved = first @ objective.hessian_products(theta, first[None])[0]
        alone = curved - 2 * weight * first.square().sum()
        assert float(alone) == pytest.approx(
            float(2 * weight * second @ (theta - center)), abs=FLAT
        )
    assert found.loss_least < -1e-4  # the lemma's "positive semidefinite Hessian" is violated
