"""Adapters on disk: round trips, PEFT both ways, damage."""

import errno
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_dropout import (
    LoRADropoutConfig,
    adapt,
    adapters,
    load_adapter,
    merge,
    save_adapter,
    trainable_parameters,
    use_masks,
)
from lora_dropout.adapters.folder import OWN_CONFIG, PEFT_CONFIG, WEIGHTS
from tests.lora_dropout.strategies import close, dtypes, fill, laws, normal, seeded, seeds

PEFT_TIER = 2e-5  # float32, another order of the products


class Net(nn.Module):
    """Two linear layers, attention that cannot carry an adapter, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.out_proj = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x).tanh()
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.out_proj(x).tanh())


def net(seed: int = 0) -> nn.Module:
    return seeded(Net(), seed)


def x() -> Tensor:
    return normal(4, 3, 6, seed=5, dtype=torch.float32)


def config(kind: str = "lora", **more: object) -> LoRADropoutConfig:
    settings = {"rank": 2, "alpha": 3.0, "dropout": 0.5, "modules_to_save": ("head",), **more}
    return LoRADropoutConfig(adapter=kind, **settings)  # type: ignore[arg-type]


def trained(settings: LoRADropoutConfig, seed: int = 0) -> nn.Module:
    """As after training: the base of `net(seed)`, random factors, a changed head."""
    model = fill(adapt(net(seed), settings), 1)
    if settings.modules_to_save:
        seeded(model.head, 9)
    return model.eval()


@given(
    laws(), st.sampled_from(["lora", "adalora"]), st.booleans(), st.sampled_from([(), ("head",)]),
    dtypes(), seeds(),
)  # fmt: skip
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    law: str,
    kind: str,
    rescale: bool,
    saved: tuple[str, ...],
    dtype: torch.dtype,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("adapter")
    settings = config(kind, mask=law, rescale=rescale, modules_to_save=saved)
    model = fill(adapt(net(seed).to(dtype), settings), seed).eval()
    paths = save_adapter(model, folder)
    assert {p.name for p in paths} == {p.name for p in folder.iterdir()}
    bare = load_adapter(net(seed).to(dtype), folder).eval()
    again = load_adapter(adapt(net(seed).to(dtype), settings), folder).eval()
    for other in (bare, again):
        assert next(iter(adapters(other).values())).config == settings
        state = other.state_dict()
        assert all(torch.equal(t, state[k]) for k, t in model.state_dict().items())
        assert torch.equal(other(x().to(dtype)), model(x().to(dtype)))


def test_loading_leaves_the_base_alone_and_trains_the_same_parameters(tmp_path: Path) -> None:
    model = trained(config())
    save_adapter(model, tmp_path)
    base = net()
    before = {k: t.clone() for k, t in base.state_dict().items()}
    loaded = load_adapter(base, tmp_path)
    state = loaded.state_dict()
    for key in ("fc.weight", "fc.bias", "out_proj.weight"):
        name, _, part = key.partition(".")
        assert torch.equal(state[f"{name}.base_layer.{part}"], before[key])
    assert set(trainable_parameters(loaded)) == set(trainable_parameters(model))


@pytest.mark.parametrize("kind", ["lora", "adalora"])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", ("fc",), r"fc|out_proj"])
@pytest.mark.parametrize("inference", [None, "raw"])
def test_peft_loads_what_we_save(
    tmp_path: Path, kind: str, rescale: bool, targets: str, inference: str | None
) -> None:
    model = trained(config(kind, rescale=rescale, target_modules=targets))
    save_adapter(model, tmp_path, inference=inference)  # type: ignore[arg-type]
    theirs = PeftModel.from_pretrained(net(), tmp_path).eval()
    with use_masks(model, inference or "mean"), torch.no_grad():  # type: ignore[arg-type]
        ours = model(x())
        assert (ours - net()(x())).abs().max() > 0.1
        # PEFT divides AdaLoRA's update by rank + 1e-5, hence not to the last digit.
        close(theirs(x()), ours, PEFT_TIER if kind == "lora" else 1e-4)
    found = {n.removeprefix("base_model.model.") for n, m in theirs.named_modules()
             if hasattr(m, "lora_A")}  # fmt: skip
    assert found == set(adapters(model))  # not attention.out_proj


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_we_load_what_peft_saves(tmp_path: Path, kind: str, dropout: float) -> None:
    common = {"lora_alpha": 3, "lora_dropout": dropout, "modules_to_save": ["head"],
              "target_modules": ["fc"]}  # fmt: skip
    if kind == "lora":
        settings = LoraConfig(r=2, **common)
    else:
        settings = AdaLoraConfig(init_r=2, target_r=1, total_step=9, tinit=1, tfinal=1, **common)
    theirs = get_peft_model(net(), settings)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if p.requires_grad and "ranknum" not in name:
                p.copy_(torch.randn(p.shape, generator=random))
    theirs.eval().save_pretrained(tmp_path)
    ours = load_adapter(net(), tmp_path).eval()
    loaded = adapters(ours)["fc"]
    assert (loaded.config.mask, loaded.config.dropout) == (
        ("activation", 0.3) if dropout else ("none", 0.0)
    )
    written = load_file(tmp_path / WEIGHTS)
    for factor in ("lora_A", "lora_B"):
        tail = ".weight" if kind == "lora" else ""
        key = f"base_model.model.fc.{factor}{tail}"
        assert torch.equal(getattr(loaded, factor), written[key])
    assert torch.equal(ours.head.weight, written["base_model.model.head.weight"])
    close(ours(x()), theirs(x()), PEFT_TIER if kind == "lora" else 1e-4)
    again = tmp_path / "again"  # and back
    save_adapter(ours, again)
    back = load_file(again / WEIGHTS)
    assert back.keys() == written.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in written.items())


def test_tied_saved_modules_and_shared_layers(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(5, 5)
            self.second = self.first
            self.embedding = nn.Embedding(7, 5)
            self.head = nn.Linear(5, 7, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.second(self.first(self.embedding(tokens))))

    settings = LoRADropoutConfig(rank=2, modules_to_save=("embedding", "head"))
    model = fill(adapt(seeded(Tied(), 1), settings), 2).eval()
    save_adapter(model, tmp_path)
    loaded = load_adapter(seeded(Tied(), 1), tmp_path).eval()
    assert loaded.head.weight is loaded.embedding.weight
    assert torch.equal(loaded(torch.arange(7)), model(torch.arange(7)))


# --- refusals ---------------------------------------------------------------------------------


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    forget_digests(folder)


def forget_digests(folder: Path) -> None:
    """Make a folder as it was written before there were digests."""
    settings = json.loads((folder / OWN_CONFIG).read_text())
    del settings["digests"]
    (folder / OWN_CONFIG).write_text(json.dumps(settings))


KEY = "base_model.model.fc.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(KEY), "missing key 'base_model.model.fc.lora_A.weight'"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra key 'extra'"),
        (lambda t: t.update({KEY: torch.zeros(3, 6)}), r"has shape \(3, 6\), .* needs \(2, 6\)"),
        (lambda t: t[KEY].fill_(float("nan")), "lora_A.weight' holds values that are not finite"),
        (lambda t: t.clear(), "missing key .*; missing key"),
    ],
)
@pytest.mark.parametrize("adapted", [False, True])
def test_tensors_that_do_not_fit(tmp_path: Path, change, message: str, adapted: bool) -> None:
    save_adapter(trained(config()), tmp_path)
    rewrite(tmp_path, change)
    model = trained(config(), seed=3) if adapted else net()
    before = {k: t.clone() for k, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_adapter(model, tmp_path)
    assert bool(adapters(model)) == adapted
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_a_flipped_bit_in_values_or_settings_is_refused(tmp_path: Path) -> None:
    model = trained(config())
    save_adapter(model, tmp_path)
    for name in (WEIGHTS, OWN_CONFIG):
        whole = (tmp_path / name).read_bytes()
        place = len(whole) - 3 if name == WEIGHTS else whole.index(b'"alpha": 3') + 9
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (tmp_path / name).write_bytes(damaged)
        fresh = net()
        with pytest.raises(ValueError, match=f"{name} is damaged|{name}: .* is damaged"):
            load_adapter(fresh, tmp_path)
        assert not adapters(fresh)
        (tmp_path / name).write_bytes(whole)
    forget_digests(tmp_path)
    loaded = load_adapter(net(), tmp_path).state_dict()
    assert all(torch.equal(t, loaded[k]) for k, t in model.state_dict().items())


def moved(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for layer in adapters(model).values():
            layer.lora_A.add_(1.0)
    return model


def test_weights_of_another_adapter_are_refused(tmp_path: Path) -> None:
    model = trained(config())
    save_adapter(model, tmp_path / "one")
    save_adapter(moved(model), tmp_path / "other")
    (tmp_path / "one" / WEIGHTS).write_bytes((tmp_path / "other" / WEIGHTS).read_bytes())
    with pytest.raises(ValueError, match=f"{WEIGHTS} is damaged, or of another adapter than"):
        load_adapter(net(), tmp_path / "one")


def test_no_file_is_replaced_before_all_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(config())
    save_adapter(model, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if OWN_CONFIG in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"No space left on device: '.*{OWN_CONFIG}'"):
        save_adapter(moved(model), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_truncated_weights(tmp_path: Path) -> None:
    save_adapter(trained(config()), tmp_path)
    forget_digests(tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / WEIGHTS).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{WEIGHTS} is damaged or no safetensors file"):
            load_adapter(net(), tmp_path)


def test_flipped_bits_in_the_header(tmp_path: Path) -> None:
    # Without digests, as PEFT writes them: names, shapes, types and offsets must hold.
    model = trained(config())
    save_adapter(model, tmp_path)
    forget_digests(tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    state = model.state_dict()
    refused = 0
    for position in range(0, header, 2):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position // 2 % 8)
        (tmp_path / WEIGHTS).write_bytes(damaged)
        try:
            loaded = load_adapter(net(), tmp_path)
        except ValueError as error:
            assert WEIGHTS in str(error)
            refused += 1
        else:
            assert all(torch.equal(t, state[k]) for k, t in loaded.state_dict().items())
    assert refused > 0.8 * header / 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (OWN_CONFIG, "{", "is damaged or no JSON"),
        (OWN_CONFIG, "[]", "must hold a JSON object, got list"),
        (OWN_CONFIG, '{"rank": 0}', "unusable adapter settings: rank must be at least 1"),
        (OWN_CONFIG, '{"ranks": 1}', "unusable adapter settings: .*ranks"),
        (PEFT_CONFIG, '{"peft_type": "IA3"}', "peft_type must be LORA or ADALORA, got 'IA3'"),
        (PEFT_CONFIG, '{"peft_type": "LORA", "use_dora": true}', "use_dora is not supported"),
        (PEFT_CONFIG, '{"peft_type": "LORA", "rank_pattern": {"a": 1}}', "rank_pattern is not"),
        (PEFT_CONFIG, '{"peft_type": "LORA", "init_lora_weights": "pissa"}', "changes the base"),
        (PEFT_CONFIG, '{"peft_type": "LORA", "exclude_modules": ["a"]}', "exclude_modules is not"),
        (PEFT_CONFIG, '{"peft_type": "LORA", "r": 2}', "unusable adapter settings: 'target_mod"),
    ],
)
def test_unusable_settings(tmp_path: Path, name: str, text: str, message: str) -> None:
    save_adapter(trained(config()), tmp_path)
    if name == PEFT_CONFIG:
        (tmp_path / OWN_CONFIG).unlink()
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_adapter(net(), tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, PEFT_CONFIG])
def test_missing_files(tmp_path: Path, name: str) -> None:
    save_adapter(trained(config()), tmp_path)
    (tmp_path / OWN_CONFIG).unlink()
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no adapter .* at .*{name}"):
        load_adapter(net(), tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"rank": 3}, "rank must be 3 as in the model, got 2"),
        ({"alpha": 6.0}, "alpha must be 6.0 as in the model, got 3.0"),
        ({"kind": "adalora"}, "adapter must be 'adalora' as in the model, got 'lora'"),
        ({"target_modules": ("fc",)}, "extra key 'base_model.model.out_proj.lora_A.weight'"),
    ],
)
def test_model_adapted_otherwise(tmp_path: Path, other: dict, message: str) -> None:
    save_adapter(trained(config()), tmp_path)
    with pytest.raises(ValueError, match=message):
        load_adapter(adapt(net(), config(**other)), tmp_path)


def test_merged_model_does_not_load(tmp_path: Path) -> None:
    model = trained(config())
    save_adapter(model, tmp_path)
    with pytest.raises(RuntimeError, match="layer 'fc' is merged: unmerge before loading"):
        load_adapter(merge(model), tmp_path)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"inference must be one of .*, got inference='best'"):
        save_adapter(trained(config()), tmp_path, inference="best")  # type: ignore[arg-type]
    for rescale in (False, True):
        with pytest.raises(ValueError, match=r"dropout must be below 1 to save, got dropout=1.0"):
            save_adapter(trained(config(dropout=1.0, rescale=rescale)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_readable(tmp_path: Path) -> None:
    save_adapter(trained(config()), tmp_path)
    theirs = json.loads((tmp_path / PEFT_CONFIG).read_text())
    assert (theirs["r"], theirs["lora_alpha"], theirs["lora_dropout"]) == (2, 0.75, 0.0)
    assert json.loads((tmp_path / OWN_CONFIG).read_text())["alpha"] == 3.0
