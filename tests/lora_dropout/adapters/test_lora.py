"""Adapter layers: limits, modes, fresh masks, dtypes, gradients."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_dropout import (
    AdaLoRALinear,
    LoRADropoutConfig,
    LoRALinear,
    adapters,
    enumerate_masks,
    sample_masks,
    use_masks,
)
from tests.lora_dropout.strategies import (
    ALGEBRA,
    HALF,
    IDENTITY,
    Shape,
    close,
    dtypes,
    fill,
    laws,
    normal,
    one_layer,
    seeds,
    shapes,
    two_layers,
)

kinds = st.sampled_from(["lora", "adalora"])


def plain_lora(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """W0 x + b + alpha/r B A x with nothing masked, as LoRA does it."""
    layer = adapters(model)["0"]
    A = layer.lora_A if layer.config.adapter == "lora" else layer.lora_A * layer.lora_E
    scaled = layer.lora_B * (layer.config.alpha / layer.config.rank)
    return layer.base_layer(x) + nn.functional.linear(nn.functional.linear(x, A), scaled)


@given(laws(), shapes(), kinds, st.booleans(), st.integers(1, 3), dtypes(), seeds())
def test_rate_zero_is_plain_lora(
    law: str, shape: Shape, kind: str, rescale: bool, n: int, dtype: torch.dtype, seed: int
) -> None:
    settings = LoRADropoutConfig(
        rank=shape.rank, alpha=3.0, dropout=0.0, mask=law, rescale=rescale, adapter=kind
    )
    model = one_layer(shape, settings, seed=seed, dtype=dtype)
    x = normal(2 * n, 3, shape.n2, seed=seed, dtype=dtype)
    plain = plain_lora(model, x)
    masks = sample_masks(model, seeds=torch.arange(n))
    with use_masks(model, masks.select(0)):
        one = model(x)
    if law in ("row_column", "rank"):
        assert torch.equal(one, plain)  # not one bit of difference
    tier = 1e-5 if dtype == torch.float32 else IDENTITY  # another order of the products
    close(one, plain, tier)
    with use_masks(model, masks):
        close(model(x), plain, tier)
    for mode in ("mean", "raw"):
        with use_masks(model, mode):
            assert torch.equal(model(x), plain)


@given(laws(), shapes(), kinds, st.booleans(), st.integers(1, 3), dtypes(), seeds())
def test_rate_one_is_the_base(
    law: str, shape: Shape, kind: str, rescale: bool, n: int, dtype: torch.dtype, seed: int
) -> None:
    settings = LoRADropoutConfig(
        rank=shape.rank, dropout=1.0, mask=law, rescale=rescale, adapter=kind
    )
    model = one_layer(shape, settings, seed=seed, dtype=dtype)
    x = normal(2 * n, 3, shape.n2, seed=seed, dtype=dtype)
    base = adapters(model)["0"].base_layer(x)
    with use_masks(model, sample_masks(model, n_instances=n)):
        assert torch.equal(model(x), base)
    with use_masks(model, "mean"):
        assert torch.equal(model(x), base)
    assert torch.equal(model.train()(x), base)
    assert torch.equal(model.eval()(x), base)


@given(laws(), kinds, st.booleans(), st.sampled_from([0.2, 0.5]), seeds())
def test_mean_mode_is_the_mean_over_all_masks(
    law: str, kind: str, rescale: bool, p: float, seed: int
) -> None:
    shape = Shape(2, 3, 2)
    settings = LoRADropoutConfig(
        rank=2, alpha=3.0, dropout=p, mask=law, rescale=rescale, adapter=kind
    )
    model = one_layer(shape, settings, seed=seed)
    masks, probability = enumerate_masks(model)
    x = normal(1, 3, seed=seed)
    with use_masks(model, masks):
        outputs = model(x.expand(masks.n_instances, 3))
    with use_masks(model, "mean"):
        close(probability @ outputs, model(x)[0], ALGEBRA)


@given(shapes(), kinds, seeds())
def test_a_new_adapter_changes_nothing(shape: Shape, kind: str, seed: int) -> None:
    make = {"lora": LoRALinear, "adalora": AdaLoRALinear}[kind]
    base = nn.Linear(shape.n2, shape.n1)
    layer = make(base, LoRADropoutConfig(rank=shape.rank, adapter=kind), name="x")
    x = normal(3, shape.n2, seed=seed, dtype=torch.float32)
    assert torch.equal(layer.train()(x), base(x))
    assert torch.equal(layer.eval()(x), base(x))
    assert not any(p.requires_grad for p in base.parameters())
    assert all(p.requires_grad for p in layer.parameters(recurse=False))


def test_initial_factors() -> None:
    lora = LoRALinear(nn.Linear(400, 300), LoRADropoutConfig(rank=100), name="x")
    assert lora.lora_A.abs().max() <= 400**-0.5
    assert float(lora.lora_A.detach().std()) == pytest.approx((1200) ** -0.5, rel=0.02)  # uniform
    ada = AdaLoRALinear(nn.Linear(400, 300), LoRADropoutConfig(rank=100, adapter="adalora"))
    for factor in (ada.lora_A, ada.lora_B):
        assert float(factor.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert (ada.lora_E == 0).all()


def test_inference_setting_governs_eval_mode() -> None:
    x = normal(3, 4, seed=1)
    for inference in ("mean", "raw"):
        settings = LoRADropoutConfig(rank=2, dropout=0.3, inference=inference)
        model = one_layer(Shape(3, 4, 2), settings).eval()
        with use_masks(model, inference):
            wanted = model(x)
        assert torch.equal(model(x), wanted)
        other = "raw" if inference == "mean" else "mean"
        with use_masks(model, other):
            assert not torch.equal(model(x), wanted)


@pytest.mark.parametrize("law", ["row_column", "rank", "activation", "entrywise"])
def test_training_mode_draws_a_fresh_mask_each_time(law: str) -> None:
    model = two_layers(LoRADropoutConfig(rank=2, mask=law)).train()  # type: ignore[arg-type]
    x = normal(6, 5, seed=1)
    torch.manual_seed(3)
    outputs = [model(x) for _ in range(8)]
    assert not all(torch.equal(outputs[0], other) for other in outputs[1:])
    torch.manual_seed(3)
    assert all(torch.equal(model(x), output) for output in outputs)


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_fresh_masks_survive_activation_checkpointing(seed: int, reentrant: bool) -> None:
    model = two_layers(LoRADropoutConfig(rank=2)).train()
    x = normal(6, 5, seed=1).requires_grad_()

    def gradients(module: nn.Module) -> list[torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(seed)
        module(x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain, recomputed = gradients(model), gradients(Checkpointed(model, reentrant))
    assert len(plain) == len(recomputed) == 4
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


@pytest.mark.parametrize("law", ["row_column", "rank", "activation", "entrywise", "none"])
@pytest.mark.parametrize("kind", ["lora", "adalora"])
@pytest.mark.parametrize("n", [1, 3])
def test_half_precision_base(law: str, kind: str, n: int) -> None:
    settings = LoRADropoutConfig(rank=2, dropout=0.4, mask=law, adapter=kind)  # type: ignore[arg-type]
    exact = one_layer(Shape(3, 4, 2), settings)
    half = one_layer(Shape(3, 4, 2), settings, dtype=torch.bfloat16)
    assert adapters(half)["0"].lora_A.dtype == torch.float32
    x = normal(6, 4, seed=1)
    masks = sample_masks(exact, seeds=torch.arange(n))
    with use_masks(exact, masks), use_masks(half, masks):
        out = half(x.bfloat16())
        assert out.dtype == torch.bfloat16
        close(out.double(), exact(x), HALF)
        out.float().sum().backward()
    assert torch.isfinite(adapters(half)["0"].lora_B.grad).all()


@pytest.mark.parametrize("law", ["row_column", "rank", "activation", "entrywise", "none"])
def test_autocast(law: str) -> None:
    settings = LoRADropoutConfig(rank=2, dropout=0.4, mask=law)  # type: ignore[arg-type]
    model = one_layer(Shape(3, 4, 2), settings, dtype=torch.float32)
    x = normal(6, 4, seed=1, dtype=torch.float32)
    with use_masks(model, sample_masks(model, seeds=torch.arange(3))):
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)
    assert half.dtype == torch.bfloat16
    close(half.float(), exact, HALF)


@given(seeds())
def test_orthogonality_against_a_loop(seed: int) -> None:
    layer = adapters(
        one_layer(Shape(4, 5, 3), LoRADropoutConfig(rank=3, adapter="adalora"), seed=seed)
    )["0"]
    P, Q, total = layer.lora_B.detach(), layer.lora_A.detach(), 0.0
    for i in range(3):
        for j in range(3):
            same = float(i == j)
            total += (float(P[:, i] @ P[:, j]) - same) ** 2 + (float(Q[i] @ Q[j]) - same) ** 2
    assert layer.orthogonality().item() == pytest.approx(total, rel=ALGEBRA)


@given(shapes(), st.floats(0.5, 8.0), seeds())
def test_adalora_equals_its_dense_product(shape: Shape, alpha: float, seed: int) -> None:
    settings = LoRADropoutConfig(rank=shape.rank, alpha=alpha, dropout=0.0, adapter="adalora")
    model = one_layer(shape, settings, seed=seed)
    layer, x = adapters(model)["0"], normal(3, shape.n2, seed=seed)
    dense = layer.lora_B @ torch.diag(layer.lora_E[:, 0]) @ layer.lora_A * alpha / shape.rank
    close(model(x), x @ (layer.base_layer.weight + dense).T + layer.base_layer.bias, ALGEBRA)


@given(seeds(), st.sampled_from([0.2, 0.6]))
def test_adalora_masks_rows_of_p_and_columns_of_q(seed: int, p: float) -> None:
    model = one_layer(
        Shape(3, 4, 2), LoRADropoutConfig(rank=2, dropout=p, adapter="adalora"), seed=seed
    )
    layer, x, masks = (
        adapters(model)["0"],
        normal(3, 4, seed=seed),
        sample_masks(model, seeds=torch.tensor([seed])),
    )
    mask = masks.layers["0"]
    P = mask.rows[0][:, None] * layer.lora_B
    Q = layer.lora_A * mask.columns[0]
    dense = P @ torch.diag(layer.lora_E[:, 0]) @ Q * layer.scaling
    with use_masks(model, masks):
        close(model(x), layer.base_layer(x) + x @ dense.T, ALGEBRA)


def test_a_layer_survives_pickling() -> None:
    model = two_layers(LoRADropoutConfig(rank=2)).eval()
    x = normal(2, 5, seed=1)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"rank must be at most 3, .* layer 'fc', got rank=4"):
        LoRALinear(nn.Linear(3, 9), LoRADropoutConfig(rank=4), name="fc")
    with pytest.raises(TypeError, match=r"base_layer must be an nn.Linear, got Conv1d"):
        LoRALinear(nn.Conv1d(3, 9, 1), LoRADropoutConfig(rank=1))  # type: ignore[arg-type]
    model = one_layer(Shape(3, 4, 2), LoRADropoutConfig(rank=2))
    with pytest.raises(ValueError, match="one device, got x on meta, A on cpu"):
        model(torch.zeros(2, 4, device="meta"))


def test_a_model_that_does_not_get_the_batch_first_is_an_error() -> None:
    model = one_layer(Shape(3, 4, 2), LoRADropoutConfig(rank=2))
    masks = sample_masks(model, seeds=torch.arange(2))
    x = torch.zeros(6, 5, 4).double()
    with use_masks(model, masks, rows=6):
        with pytest.raises(ValueError, match=r"layer '0' met 2 masks outside of a forward pass"):
            model[0](x)
        model(x)
        # Nobody knows whether the model's own inputs were flattened examples or tokens first.
        for wrong in (x[:1], x.transpose(0, 1), x[:4], x.flatten(0, 1)):
            with pytest.raises(ValueError, match=r"model must get the batch of 6 rows"):
                model(wrong)
    with use_masks(model, masks.select(0), rows=6):
        model(x[:1])  # one mask fits anything


def test_repr_names_the_settings() -> None:
    model = fill(one_layer(Shape(3, 4, 2), LoRADropoutConfig(rank=2, dropout=0.25)), 1)
    assert "rank=2, dropout=0.25, mask='row_column'" in repr(model)
