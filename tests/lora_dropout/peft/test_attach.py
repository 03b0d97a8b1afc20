"""Masks on PEFT models: the update by its definition, PEFT's format untouched, refusals."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import (
    LoRADropoutConfig,
    Masks,
    adapt,
    adapters,
    ensemble_predict,
    instance_loss,
    load_adapter,
    sample_masks,
    save_adapter,
    use_masks,
)
from lora_dropout.adapters.layer import masked_layers
from lora_dropout.peft import attach, attached_config, detach
from lora_dropout.peft.attached_layer import AttachedLayer
from lora_dropout.training.fit import fit
from lora_dropout.training.fit_config import FitConfig
from tests.local_files import ENCODER, local_files
from tests.lora_dropout.peft.models import (
    SHAPES,
    TARGETS,
    base_model,
    batch,
    peft_config,
    peft_model,
    randomize,
)
from tests.lora_dropout.strategies import close, fill, generator

ROUTE = 2e-5  # float32, the same product in another order
ADALORA = 1e-4  # PEFT divides by rank + 1e-5
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(params=[(shape, kind) for shape in SHAPES for kind in ("lora", "adalora")])
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


def unlabelled(shape: str, **more: int) -> dict[str, Tensor]:
    return {k: v for k, v in batch(shape, **more).items() if k != "labels"}


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).logits


def delta(layer: nn.Module, adapter: str = "default") -> Tensor:
    """PEFT's own update, (out_features, in_features)."""
    weight = layer.get_delta_weight(adapter)
    return weight.T if layer.fan_in_fan_out else weight


# --- the update -------------------------------------------------------------------------------


@pytest.mark.parametrize("rescale", [True, False])
def test_masked_layer_by_the_definition(case: tuple[str, str], rescale: bool) -> None:
    model = peft_model(*case).eval()
    model = attach(model, dropout=0.4, rescale=rescale, inference="raw")
    masks = sample_masks(model, n_instances=3, generator=generator(1))
    for name, layer in masked_layers(model).items():
        x = torch.randn(6, 4, layer.in_features, generator=generator(2))
        mask = masks.layers[name]
        # Under masks of the model, its own forward pass would say where the examples are.
        with use_masks(layer, Masks({name: mask}, 3), rows=6), torch.no_grad():
            found = layer(x)
        for r in range(3):
            assert mask.rows is not None and mask.columns is not None
            kept = delta(layer) * mask.rows[r][:, None] * mask.columns[r][None]
            scale = 1 / 0.36 if rescale else 1.0
            block = x[2 * r : 2 * r + 2]
            close(found[2 * r : 2 * r + 2], layer.base_layer(block) + scale * block @ kept.T, ROUTE)


@pytest.mark.parametrize("law", ["row_column", "rank", "activation", "entrywise", "none"])
def test_agrees_with_an_adapted_model(law: str) -> None:
    ours = fill(
        adapt(base_model("bert"), LoRADropoutConfig(
            rank=2, alpha=3, dropout=0.4, mask=law, rescale=True,  # type: ignore[arg-type]
            target_modules=tuple(TARGETS["bert"]),
        )), 3,
    )  # fmt: skip
    theirs = attach(peft_model("bert"), dropout=0.4, mask=law)  # type: ignore[arg-type]
    assert masked_layers(ours).keys() == masked_layers(theirs).keys()
    with torch.no_grad():
        for name, layer in adapters(ours).items():
            other = masked_layers(theirs)[name]
            other.lora_A["default"].weight.copy_(layer.lora_A)
            other.lora_B["default"].weight.copy_(layer.lora_B)
    inputs, labels = unlabelled("bert"), batch("bert")["labels"]
    ends = []
    for model in (ours, theirs):
        masks = sample_masks(model, n_instances=2, generator=generator(4))
        loss = instance_loss(model, inputs, labels, masks=masks)
        ends.append((loss.detach(), ensemble_predict(model, inputs, masks=masks)))
    for a, b in zip(*ends, strict=True):
        close(a, b, ROUTE)


def test_train_draws_masks_and_eval_is_peft(case: tuple[str, str]) -> None:
    plain = peft_model(*case).eval()
    inputs = unlabelled(case[0])
    expected = logits(plain, inputs)
    model = attach(peft_model(*case)).eval()
    assert torch.equal(logits(model, inputs), expected)
    model.train()
    torch.manual_seed(0)
    first, second = logits(model, inputs), logits(model, inputs)
    torch.manual_seed(0)
    assert torch.equal(logits(model, inputs), first)
    assert not torch.equal(first, second)
    assert not torch.equal(first, expected)
    with model.disable_adapter():
        close(logits(model, inputs), logits(base_model(case[0]), inputs), ROUTE)


def test_detach_restores_exactly(case: tuple[str, str]) -> None:
    model = peft_model(*case).eval()
    state = {k: t.clone() for k, t in model.state_dict().items()}
    modules = {n: (type(m), sorted(m.__dict__)) for n, m in model.named_modules()}
    attach(model)
    assert model.state_dict().keys() == state.keys()
    detach(model)
    assert {n: (type(m), sorted(m.__dict__)) for n, m in model.named_modules()} == modules
    assert all(torch.equal(t, state[k]) for k, t in model.state_dict().items())
    with pytest.raises(ValueError, match="model must have masks"):
        detach(model)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_fresh_masks_survive_gradient_checkpointing(shape: str, reentrant: bool) -> None:
    model = attach(peft_model(shape)).train()
    model.enable_input_require_grads()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(3)
        model(**batch(shape)).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    again = gradients()
    assert len(plain) == len(again) > 4
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_a_base_that_is_no_linear_module() -> None:
    class Quantised(nn.Linear):
        """Stored in 8 bits, as a quantised base is: no weight that a layer could read."""

        def forward(self, x: Tensor) -> Tensor:
            steps = (self.weight * 16).round().to(torch.int8)
            return F.linear(x, steps.to(x.dtype) / 16, self.bias).to(torch.bfloat16)

    torch.manual_seed(0)
    net = nn.Sequential(Quantised(6, 5))
    model = randomize(get_peft_model(net, LoraConfig(r=2, target_modules=["0"])))
    attach(model)
    (layer,) = masked_layers(model).values()
    masks = sample_masks(model, generator=generator(1))
    x = torch.randn(4, 6, generator=generator(2))
    with use_masks(model, masks):
        out = model(x)
    mask = masks.layers["0"]
    kept = delta(layer) * mask.rows[0][:, None] * mask.columns[0][None] * 4  # type: ignore[index]
    assert out.dtype == torch.bfloat16
    close(out.float(), (net[0].base_layer(x) + (x @ kept.T).to(torch.bfloat16)).float(), 0.0)


def test_bf16_base(case: tuple[str, str]) -> None:
    shape, kind = case
    model = base_model(shape).to(torch.bfloat16)
    model = attach(randomize(get_peft_model(model, peft_config(shape, kind)))).train()
    loss = model(**batch(shape)).loss
    loss.backward()
    factors = {n: p for n, p in model.named_parameters() if "lora_" in n and p.requires_grad}
    assert all(p.dtype == torch.float32 for p in factors.values())
    assert all(torch.isfinite(p.grad).all() for p in factors.values())


def test_compiles_once_for_all_masks() -> None:
    """The pass and its gradients, in one graph."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model = attach(peft_model("llama")).train()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    part = batch("llama")
    for step in range(3):
        masks, found = sample_masks(model, n_instances=2, generator=generator(step)), []
        for network in (model, compiled):
            model.zero_grad()
            with use_masks(model, masks, rows=6):
                loss = network(**part).loss
                loss.backward()
            trained = [p.grad.clone() for p in model.parameters() if p.grad is not None]
            found.append([loss.detach(), *trained])
        for a, b in zip(*found, strict=True):
            close(a, b, ROUTE)
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_copies_and_pickles() -> None:
    model = attach(peft_model("bert"), dropout=0.3).eval()
    inputs = unlabelled("bert")
    masks = sample_masks(model, n_instances=2, generator=generator(1))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert attached_config(other) == attached_config(model)
        assert torch.equal(
            ensemble_predict(other, inputs, masks=masks),
            ensemble_predict(model, inputs, masks=masks),
        )
        detach(other)
    assert attached_config(model).dropout == 0.3


def test_fit_trains_an_attached_model() -> None:
    model = attach(peft_model("bert"), n_instances=2)
    data = (unlabelled("bert"), batch("bert")["labels"])
    settings = FitConfig(epochs=6, batch_size=6, learning_rate=0.02, n_instances=2)
    history = fit(model, data, config=settings, progress=False).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


# --- adapters ---------------------------------------------------------------------------------


def two_adapters() -> nn.Module:
    model = get_peft_model(base_model("llama"), peft_config("llama"))
    model.add_adapter("other", peft_config("llama", r=3, lora_alpha=2, use_rslora=True))
    return randomize(model)


def test_switching_and_joining_adapters() -> None:
    model = two_adapters().eval()
    inputs = unlabelled("llama")
    expected = {}
    for name in ("default", "other"):
        model.set_adapter(name)
        expected[name] = logits(model, inputs)
    attach(model)
    for name, rank in (("default", 2), ("other", 3)):
        model.set_adapter(name)
        assert torch.equal(logits(model, inputs), expected[name])
        assert {layer.spec.rank for layer in masked_layers(model).values()} == {rank}
    model.base_model.set_adapter(["default", "other"])
    masks = sample_masks(model, n_instances=1, generator=generator(1))
    name, layer = next(iter(masked_layers(model).items()))
    assert layer.spec.rank == 5
    x = torch.randn(4, layer.in_features, generator=generator(2))
    mask = masks.layers[name]
    kept = delta(layer, "default") + delta(layer, "other")
    kept = kept * mask.rows[0][:, None] * mask.columns[0][None] * 4  # type: ignore[index]
    with use_masks(model, masks), torch.no_grad():
        close(layer(x), layer.base_layer(x) + x @ kept.T, ROUTE)


def test_an_adapter_added_later() -> None:
    model = attach(peft_model("bert", target_modules=["query"]))
    model.add_adapter("wider", peft_config("bert"))
    with pytest.raises(ValueError, match=r"layer '.*' got its adapter after attach"):
        attached_config(model)
    model = attach(peft_model("bert"))
    model.add_adapter("dora", peft_config("bert", use_dora=True))
    model.set_adapter("dora")
    with pytest.raises(ValueError, match=r"layer '.*', adapter 'dora': Dora computes more"):
        model.train()(**batch("bert"))


@pytest.mark.parametrize("training", [True, False])
def test_a_pass_notices_an_adapter_added_later(training: bool) -> None:
    model = attach(peft_model("bert", target_modules=["query"])).train(training)
    part = batch("bert")
    model.add_adapter("wider", peft_config("bert"))
    masks = sample_masks(model, seeds=torch.tensor([1]))
    with use_masks(model, masks):
        model(**part)  # the new one is not active
    model.set_adapter("wider")
    for network in (model, model.get_base_model()):
        if training:
            with pytest.raises(ValueError, match=r"layer '.*' got its adapter after attach"):
                network(**part)
        else:
            network(**part)  # mask-free, as plain PEFT


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_2", "olora", "orthogonal"])
def test_initialisations_that_a_mask_would_break_are_refused(init: str) -> None:
    model = get_peft_model(base_model("bert"), peft_config("bert", init_lora_weights=init))
    with pytest.raises(ValueError, match=rf"'default' was made by init_lora_weights='{init}'"):
        attach(model)
    attach(model, mask="none")


def encoder(target: str) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    settings = LoraConfig(r=2, target_modules=[target], init_lora_weights=False)
    return get_peft_model(nn.TransformerEncoder(layer, 1), settings).eval()


def test_the_fast_path_of_torch_does_not_pass_adapters_by() -> None:
    x = torch.randn(3, 4, 8, generator=generator(0))
    model = attach(encoder("linear1"))
    with torch.no_grad():
        adapted = model(x)
        with model.disable_adapter():
            base = model(x)
    assert not torch.equal(adapted, base)
    close(adapted, model(x).detach(), ROUTE)  # with gradients there is no fast path
    members = [
        ensemble_predict(model, x, n_instances=2, average="logits", generator=generator(s))
        for s in (0, 1)
    ]
    assert not torch.equal(*members)


def test_a_weight_that_is_read_without_a_call_is_an_error() -> None:
    model = attach(encoder("out_proj"))
    with pytest.raises(ValueError, match=r"out_proj'\] must be called to be masked"):
        ensemble_predict(model, torch.randn(3, 4, 8), max_rows=3, average="logits")


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
def test_plain_peft_loads_the_mean_network(
    tmp_path: Path, case: tuple[str, str], folded: bool
) -> None:
    shape = case[0]
    model = peft_model(*case)
    if folded:
        with pytest.warns(UserWarning, match=r"plain PEFT runs 4 times larger"):
            attach(model, rescale=False)
    else:
        attach(model)
    model.eval()
    inputs = unlabelled(shape)
    expected = logits(model, inputs)
    with use_masks(model, "mean"):
        assert torch.equal(logits(model, inputs), expected)
    if folded:
        raw = logits(detach(copy.deepcopy(model)), inputs)
        assert (raw - expected).abs().max() > 0.1
        detach(model, fold=True)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base_model(shape), tmp_path).eval()
    assert not masked_layers(loaded)
    close(logits(loaded, inputs), expected, ROUTE)
    close(logits(loaded.merge_and_unload(), inputs), expected, ROUTE)


def test_saves_the_very_files_of_plain_peft(tmp_path: Path, case: tuple[str, str]) -> None:
    plain, masked = peft_model(*case), attach(peft_model(*case))
    plain.save_pretrained(tmp_path / "a")
    masked.save_pretrained(tmp_path / "b")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        a, b = tmp_path / "a" / file, tmp_path / "b" / file
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("kind", ["lora", "adalora"])
@pytest.mark.parametrize("shape", ["bert", "llama"])
def test_our_loader_reads_what_an_attached_model_saves(
    tmp_path: Path, shape: str, kind: str
) -> None:
    model = attach(peft_model(shape, kind)).eval()
    model.save_pretrained(tmp_path)
    loaded = load_adapter(base_model(shape), tmp_path).eval()
    written = load_file(tmp_path / "adapter_model.safetensors")
    tail = ".weight" if kind == "lora" else ""
    for name, layer in adapters(loaded).items():
        for factor in ("lora_A", "lora_B"):
            assert torch.equal(
                getattr(layer, factor), written[f"base_model.model.{name}.{factor}{tail}"]
            )
    inputs = unlabelled(shape)
    close(logits(loaded, inputs), logits(model, inputs), ROUTE if kind == "lora" else ADALORA)


@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_attach_takes_what_our_own_layers_save(tmp_path: Path, kind: str) -> None:
    settings = LoRADropoutConfig(rank=2, alpha=3, adapter=kind, target_modules=("query", "value"))  # type: ignore[arg-type]
    ours = fill(adapt(base_model("bert"), settings), 2).eval()
    save_adapter(ours, tmp_path)
    theirs = attach(PeftModel.from_pretrained(base_model("bert"), tmp_path)).eval()
    inputs = unlabelled("bert")
    close(logits(theirs, inputs), logits(ours, inputs), ROUTE if kind == "lora" else ADALORA)
    for name, layer in adapters(ours).items():
        factor = masked_layers(theirs)[name].lora_A["default"]
        assert torch.equal(getattr(factor, "weight", factor), layer.lora_A)


def test_real_encoder(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = local_files(ENCODER)

    def load() -> nn.Module:
        return AutoModel.from_pretrained(folder, dtype=torch.float32)

    settings = LoraConfig(r=4, target_modules=["query", "value"])
    model = attach(randomize(get_peft_model(load(), settings))).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(
        ["a film worth seeing", "dull"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
        assert (expected - load().eval()(**inputs).last_hidden_state).abs().max() > 0.1
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(load(), tmp_path).eval()
        assert torch.equal(loaded(**inputs).last_hidden_state, expected)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "more", "message"),
    [
        ("bert", {"use_dora": True}, r"layer 'bert.*', adapter 'default': Dora computes more"),
        ("bert", {"lora_dropout": 0.1}, r"lora_dropout=0.1 would come on top .*mask='activation'"),
        ("bert", {"lora_bias": True}, "make the adapter with lora_bias=False"),
        ("bert", {"target_modules": ["word_embeddings"]},
         r"layer '.*word_embeddings' on Embedding is not linear.*leave it out of target_modules"),
        ("llama", {"alora_invocation_tokens": [1]}, "ALora computes more"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_masked(shape: str, more: dict, message: str) -> None:
    model = peft_model(shape, **more)
    kinds = [type(m) for m in model.modules()]
    with pytest.raises(ValueError, match=message):
        attach(model)
    assert [type(m) for m in model.modules()] == kinds


def test_convolutions_merged_and_hooked_layers() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="layer '0' on Conv2d is not linear"):
        attach(get_peft_model(net, LoraConfig(r=1, target_modules=["0", "1"])))

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 2))

    settings = LoraConfig(r=1, target_modules=[], target_parameters=["0.weight"])
    with pytest.raises(ValueError, match=r"layer '0' is a bare .*leave it out of target_param"):
        attach(get_peft_model(nn.Sequential(Bare()), settings))
    model = peft_model("bert")
    model.merge_adapter()
    with pytest.raises(ValueError, match=r"is merged: call unmerge_adapter.*; and 6 more"):
        attach(model)
    model.unmerge_adapter()
    layer = next(m for m in model.modules() if isinstance(m, LoraLayer))
    layer.forward = layer.forward
    with pytest.raises(ValueError, match="has had its forward pass replaced"):
        attach(model)
    assert not any(isinstance(m, AttachedLayer) for m in model.modules())


def test_misuse() -> None:
    with pytest.raises(ValueError, match=r"must have LoRA or AdaLoRA layers .* got BertFor"):
        attach(base_model("bert"))
    for more, message in (
        ({"dropout": 1.0}, "dropout must be below 1, got dropout=1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\]"),
        ({"mask": "block"}, "mask must be one of .* got mask='block'"),
        ({"n_instances": 0}, "n_instances must be at least 1"),
        ({"inference": "best"}, "inference must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            attach(peft_model("bert"), **more)
    model = attach(peft_model("bert"))
    with pytest.raises(ValueError, match="model must have no masks yet"):
        attach(model)
    with pytest.raises(ValueError, match=r"save .* by PEFT's own methods"):
        save_adapter(model, "nowhere")
    with pytest.raises(ValueError, match="must have no adapters yet"):
        adapt(model, LoRADropoutConfig())
    with pytest.raises(ValueError, match=r"adapter_names .* do not go with masks"):
        layer = next(iter(masked_layers(model).values())).train()
        layer(torch.zeros(2, layer.in_features), adapter_names=["default", "default"])
    model.merge_adapter()
    with pytest.raises(RuntimeError, match="is merged: call unmerge_adapter"):
        model.train()(**batch("bert"))


def test_merging_the_raw_update_is_refused() -> None:
    with pytest.warns(UserWarning, match="fold=True"):
        model = attach(peft_model("bert"), rescale=False)
    with pytest.raises(RuntimeError, match=r"call detach.model, fold=True. first"):
        model.merge_adapter()
    raw = attach(peft_model("bert"), rescale=False, inference="raw").eval()  # no warning
    expected = logits(raw, unlabelled("bert"))
    close(logits(raw.merge_and_unload(), unlabelled("bert")), expected, ROUTE)
