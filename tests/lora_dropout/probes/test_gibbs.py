"""The randomised predictor: its mean on a linear layer is known in closed form."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lora_dropout import LoRADropoutConfig, adapt, trainable_parameters
from lora_dropout.probes.gibbs import gibbs_risk, squared_distance


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(dim=1).mean() / 2


def _model(dropout: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).double()
    adapt(model, LoRADropoutConfig(rank=1, alpha=1.0, dropout=dropout))
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, dtype=parameter.dtype))
    return model


def _exact_mean(model: nn.Module, x: Tensor, y: Tensor, p: float, s: float) -> float:
    """Sum over all 2^5 masks; over the noise by second moments of products of independents."""
    layer = model[0]  # type: ignore[index]
    A, B = layer.lora_A.detach()[0], layer.lora_B.detach()[:, 0]
    base = x @ layer.base_layer.weight.detach().T
    total = 0.0
    for code in range(32):
        bits = torch.tensor([(code >> i) & 1 for i in range(5)], dtype=torch.float64)
        rows, columns = bits[:2], bits[2:]
        chance = float(torch.where(bits == 1, 1 - p, p).prod())
        inner = (x * columns) @ A  # mean of A.x; its variance is s^2 |x * columns|^2
        spread = s**2 * (x * columns).square().sum(dim=1)
        error = y - base
        for out in range(2):
            mean = rows[out] * B[out]
            square = rows[out] * (B[out] ** 2 + s**2)
            second = square * (inner**2 + spread)
            each = error[:, out] ** 2 - 2 * error[:, out] * mean * inner + second
            total += chance * float(each.mean()) / 2
    return total


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_mean_over_draws_is_the_exact_one(p: float) -> None:
    model = _model(p)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    seen = gibbs_risk(model, (x, y), loss_fn=_squared, widths=(0.1, 0.5), n_draws=1000)
    for width, losses in zip(seen.widths, seen.losses, strict=True):
        error = losses.std(ddof=1) / np.sqrt(len(losses))
        assert losses.mean() == pytest.approx(_exact_mean(model, x, y, p, width), abs=5 * error)


def test_the_model_is_left_as_it_was() -> None:
    model = _model(0.5).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    data = (torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64))

    def broken(outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("no loss today")

    first = gibbs_risk(model, data, loss_fn=_squared, widths=(0.3,), n_draws=5, seed=3)
    again = gibbs_risk(model, data, loss_fn=_squared, widths=(0.3,), n_draws=5, seed=3)
    assert (first.losses == again.losses).all()
    with pytest.raises(ValueError, match=r"targets must fit loss_fn .* no loss today"):
        gibbs_risk(model, data, loss_fn=broken, widths=(0.3,))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_squared_distance_by_hand() -> None:
    model = _model(0.5)
    initial = {k: v.detach().clone() for k, v in trainable_parameters(model).items()}
    assert squared_distance(model, initial) == 0.0
    with torch.no_grad():
        next(iter(trainable_parameters(model).values())).add_(2.0)  # lora_A: three entries
    assert squared_distance(model, initial) == pytest.approx(12.0)
    initial.popitem()
    with pytest.raises(ValueError, match=r"initial must hold '0.lora_B' of shape \(2, 1\), got"):
        squared_distance(model, initial)


def test_bad_input() -> None:
    data = (torch.randn(2, 3), torch.randn(2, 2))
    with pytest.raises(ValueError, match="widths must be positive and finite, got widths=0"):
        gibbs_risk(_model(0.5), data, loss_fn=_squared, widths=(0,))
    with pytest.raises(ValueError, match="n_draws must be at least 1, got n_draws=0"):
        gibbs_risk(_model(0.5), data, loss_fn=_squared, widths=(1,), n_draws=0)
