"""Training in float32 and bf16 against float64, by what rounding can do to it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import (
    LoRADropoutConfig,
    adapt,
    instance_losses,
    sample_masks,
    trainable_parameters,
)
from lora_dropout.tasks.digits import digits_target, pretrain_digits

STEPS, SHAKE = 5, 1e-9


def small() -> nn.Module:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    made = adapt(base, LoRADropoutConfig(rank=2, dropout=0.3))
    with torch.no_grad():
        for parameter in trainable_parameters(made).values():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.3)
    return made


def transformer() -> nn.Module:
    model = pretrain_digits(epochs=1, progress=False).double()
    config = LoRADropoutConfig(rank=2, dropout=0.3)
    return adapt(model, config, generator=torch.Generator().manual_seed(0))


def descend(
    model: nn.Module, x: Tensor, y: Tensor, *, bf16: bool = False, shake: float = 0
) -> Tensor:
    """Plain gradient descent under fixed masks; the factors at the end, in float64."""
    parameters = [*trainable_parameters(model).values()]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.mul_(1 + shake * noise.to(parameter))
    for step in range(STEPS):
        masks = sample_masks(model, seeds=torch.tensor([2 * step, 2 * step + 1]))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = sum(instance_losses(model, x, y, masks=masks, loss_fn=F.cross_entropy))
        grads = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, grads, strict=True):
                parameter.sub_(0.2 * slope)
    return torch.cat([parameter.detach().double().flatten() for parameter in parameters])


# The last: terms in the longest chain of sums of one step, forward and backward. Its error is about
# sqrt(k) unit roundoffs (Higham and Mary 2019, Theorem 2.4, lambda = 4: above 4 sqrt(k) u with
# probability 2 exp(-8) under its model).
@pytest.mark.parametrize(("make", "chain"), [(small, 64), (transformer, 512)])
def test_low_precision_errs_by_rounding(make: Callable[[], nn.Module], chain: int) -> None:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = torch.arange(16) % 3
    if make is transformer:
        x, y = digits_target(seed=0, n_train=16, n_validation=10).train
        x = x.double()
    model = make()
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def again() -> nn.Module:
        model.double().load_state_dict(state)
        return model

    start = torch.cat([p.detach().flatten() for p in trainable_parameters(model).values()])
    exact = descend(again(), x, y)
    growth = float((descend(again(), x, y, shake=SHAKE) - exact).norm() / exact.norm()) / SHAKE
    moved = float((exact - start).norm() / exact.norm())
    for unit, bf16 in ((2.0**-24, False), (2.0**-8, True)):
        rounded = descend(again().float(), x.float(), y, bf16=bf16)
        error = float((rounded - exact).norm() / exact.norm())
        # Rounding enters with every step, in proportion to what the steps move, and at the start;
        # what has entered grows.
        assert 0 < error <= max(growth, 1.0) * unit * (1 + moved * 4 * chain**0.5)
