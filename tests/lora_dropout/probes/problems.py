"""Small problems in float64 with known answers."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from lora_dropout import LoRADropoutConfig, adapt, adapters
from lora_dropout.probes.adapter_objective import AdapterObjective
from tests.lora_dropout.strategies import fill, normal

N1, N2, EXAMPLES = 3, 4, 20


def linear_data(n: int = EXAMPLES, *, n1: int = N1, n2: int = N2, seed: int = 0):
    """Correlated inputs, noisy linear targets."""
    x = normal(n, n2, seed=seed) @ normal(n2, n2, seed=100)
    return x, x @ normal(n2, n1, seed=101) + 0.5 * normal(n, n1, seed=seed + 1)


def class_data(n: int = EXAMPLES, *, n2: int = 5, classes: int = 3, seed: int = 0):
    x = normal(n, n2, seed=seed)
    return x, torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed + 1))


def linear_model(*, rank: int = 2, n1: int = N1, n2: int = N2, **config: object) -> nn.Module:
    """One adapted linear layer without bias, in float64."""
    base = nn.Sequential(nn.Linear(n2, n1, bias=False, dtype=torch.float64))
    with torch.no_grad():
        base[0].weight.copy_(0.3 * normal(n1, n2, seed=5))
    settings = LoRADropoutConfig(**{"rank": rank, "alpha": 2.0 * rank, "dropout": 0.5, **config})
    return fill(adapt(base, settings), 6)


def set_least_squares(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Put the best update of the layer's rank (of the raw model) into its factors."""
    layer = adapters(model)["0"]
    rank = layer.config.rank
    residual = y - x @ layer.base_layer.weight.T
    root = torch.linalg.cholesky(x.T @ x)
    U, s, V = torch.linalg.svd(residual.T @ x @ torch.linalg.inv(root).T, full_matrices=False)
    with torch.no_grad():
        layer.lora_B.copy_(U[:, :rank] * s[:rank].sqrt() / layer.scaling)
        layer.lora_A.copy_(s[:rank].sqrt()[:, None] * V[:rank] @ torch.linalg.inv(root))


def stationary_point(objective: AdapterObjective) -> Tensor:
    """Descend from the model's point to a gradient of about 1e-9, by Newton steps at the end."""
    found = minimize(
        lambda t: objective.value(torch.from_numpy(t)),
        objective.point().numpy(),
        jac=lambda t: objective.gradient(torch.from_numpy(t)).numpy(),
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10000, "ftol": 0, "gtol": 1e-6, "maxcor": 50},
    )
    theta = torch.from_numpy(np.array(found.x))
    for _ in range(10):
        hessian = objective.hessian_products(theta, torch.eye(len(theta), dtype=theta.dtype))
        step = torch.linalg.lstsq(hessian, objective.gradient(theta)[:, None], driver="gelsd")[0]
        theta = theta - step[:, 0]
    return theta
