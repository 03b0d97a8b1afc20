"""Two runs that differ in one thing never have one result; equal runs resume bit for bit."""

import functools
import importlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import FitConfig, LoRADropoutConfig, RankBudget, adapt, fit
from lora_dropout.identity import digest_of, structure_digest
from lora_dropout.replicas import Replica, fit_replicas
from lora_dropout.training.checkpoint import NAME, save_checkpoint

SMOOTHING = 0.1


class Net(nn.Module):
    def __init__(self, activation: Any = F.relu, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 64), nn.Linear(64, 8), nn.Linear(8, 2)
        self.register_buffer("shift", torch.zeros(4))
        self.activation, self.scale = activation, scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x + self.shift)) * self.scale
        return self.head(torch.tanh(self.second(x)))


class Doubled(Net):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Pickled:
    """A loss whose settings are its attributes."""

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=self.smoothing)


def closed_over(smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)

    return loss


def by_global(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=SMOOTHING)


def by_helper(outputs: Tensor, targets: Tensor) -> Tensor:
    return by_global(outputs, targets)


def by_default(outputs: Tensor, targets: Tensor, smoothing: float = 0.2) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=smoothing)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plain": F.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "module smoothed": nn.CrossEntropyLoss(label_smoothing=0.1),
    "module weighted": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]), reduction="mean"),
    "partial 0.1": functools.partial(F.cross_entropy, label_smoothing=0.1),
    "partial 0.3": functools.partial(F.cross_entropy, label_smoothing=0.3),
    "closure 0.1": closed_over(0.1),
    "closure 0.3": closed_over(0.3),
    "object 0.1": Pickled(0.1),
    "object 0.3": Pickled(0.3),
    "method": Pickled(0.4).__call__,
    "default": by_default,
    "global": by_global,
    "helper": by_helper,
    "lambda 2": lambda outputs, targets: 2 * F.cross_entropy(outputs, targets),
    "lambda 3": lambda outputs, targets: 3 * F.cross_entropy(outputs, targets),
    "other": lambda outputs, targets: F.multi_margin_loss(outputs, targets),
}
# Each changes one thing of a run; the name of what an error must say.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "init": ("initial weights", {"init": 1}),
    "activation": ("model", {"net": lambda: Net(F.gelu)}),
    "activation module": ("model", {"net": lambda: Net(nn.GELU())}),
    "gelu tanh": ("model", {"net": lambda: Net(functools.partial(F.gelu, approximate="tanh"))}),
    "lambda activation": ("model", {"net": lambda: Net(lambda x: x.clamp(min=0.1))}),
    "attribute": ("model", {"net": lambda: Net(scale=0.5)}),
    "subclass": ("model", {"net": Doubled}),
    "base row 50": ("base", {"edit": lambda m: m.first.base_layer.weight.data[50:].mul_(2)}),
    "last bit of a bias": ("base", {"edit": lambda m: m.head.bias.data[1:].mul_(1 + 2**-20)}),
    "buffer": ("buffers", {"edit": lambda m: m.shift.add_(0.1)}),
    "instance's forward": ("model", {"edit": lambda m: setattr(m.head, "forward", F.silu)}),
    "hook": ("model", {"edit": lambda m: m.head.register_forward_hook(lambda m, x, y: 2 * y)}),
    "law": ("adapter", {"adapter": {"mask": "entrywise"}}),
    "rate": ("adapter", {"adapter": {"dropout": 0.3}}),
    "alpha": ("adapter", {"adapter": {"alpha": 3.0}}),
    "saved head": ("parameters", {"adapter": {"modules_to_save": ("head",)}}),
    "targets": ("parameters", {"adapter": {"target_modules": ("second",)}}),
    "seed": ("seed", {"config": {"seed": 2**32}}),
    "epochs": ("epochs", {"config": {"epochs": 3}}),
    "decay": ("weight_decay", {"config": {"weight_decay": 0.5}}),
    "last input": ("train", {"data": lambda x, y: (x.index_fill(0, torch.tensor([11]), 1.0), y)}),
    "labels": ("train", {"data": lambda x, y: (x, 1 - y)}),
    "order": ("train", {"data": lambda x, y: (x.flip(0), y.flip(0))}),
    "dtype": ("base|train", {"net": lambda: Net().double(), "data": lambda x, y: (x.double(), y)}),
}


def reconfigured(layer: Any) -> None:
    layer.config = replace(layer.config, dropout=0.9)


def made(change: dict[str, Any]) -> tuple[nn.Module, tuple[Tensor, Tensor], FitConfig]:
    torch.manual_seed(0)
    model = change.get("net", Net)()
    settings = {"rank": 2, "dropout": 0.5, "target_modules": ("first", "second")}
    settings |= change.get("adapter", {})
    init = torch.Generator().manual_seed(change.get("init", 0))
    adapt(model, LoRADropoutConfig(**settings), generator=init)
    change.get("edit", lambda m: None)(model)
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(5))
    data = change.get("data", lambda x, y: (x, y))(x, (x[:, 0] > 0).long())
    return model, data, FitConfig(**{"epochs": 1, "batch_size": 6, **change.get("config", {})})


def by_fit(folder: Path | None, change: dict[str, Any]) -> Any:
    model, data, config = made(change)
    loss = change.get("loss", F.cross_entropy)
    result = fit(
        model, data, config=config, loss_fn=loss, checkpoint_folder=folder, progress=False,
        device="cpu",
    )  # fmt: skip
    weights = torch.cat([t.flatten().double() for t in model.state_dict().values()])
    return result.history, weights.tolist()


def by_replicas(folder: Path | None, change: dict[str, Any]) -> Any:
    model, data, config = made(change)
    loss = change.get("loss", F.cross_entropy)
    replicas = [Replica(seed=config.seed), Replica(seed=config.seed + 1)]
    trained = fit_replicas(
        model, data, replicas, config=config, loss_fn=loss, chunk_size=2, device="cpu",
        checkpoint_folder=folder, progress=False,
    )  # fmt: skip
    return {k: t.tolist() for k, t in trained.parameters.items()}, trained.objective.tolist()


RUNS = {"fit": by_fit, "fit_replicas": by_replicas}


@pytest.fixture(scope="module", params=RUNS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    run, folder = RUNS[request.param], tmp_path_factory.mktemp(request.param)
    return run, folder, run(folder, {})


def test_an_equal_run_has_the_same_result(base: Any) -> None:
    run, folder, expected = base
    assert run(folder, {}) == expected == run(None, {})


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_is_refused_by_what_differs(base: Any, name: str) -> None:
    run, folder, _ = base
    said, change = CHANGES[name]
    if run is by_replicas and name in ("seed", "instance's forward"):
        said = "replicas" if name == "seed" else said
    with pytest.raises(ValueError, match=rf"other settings .*({said}): "):
        run(folder, change)


def test_a_layer_of_another_rate_is_refused(base: Any) -> None:
    run, folder, _ = base
    with pytest.raises(ValueError, match=r"must have one adapter configuration, .*dropout=0\.9"):
        run(folder, {"edit": lambda m: reconfigured(m.second)})


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name not in ("plain", "module weighted")]
)
def test_another_loss_is_refused(base: Any, name: str) -> None:
    run, folder, _ = base
    with pytest.raises(ValueError, match=r"other settings .*loss_fn: "):
        run(folder, {"loss": LOSSES[name]})


def test_losses_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {name: digest_of("loss_fn", loss) for name, loss in LOSSES.items()}
    assert len(set(digests.values())) == len(LOSSES)
    again = [closed_over(0.1), Pickled(0.1), nn.CrossEntropyLoss(label_smoothing=0.1)]
    for name, loss in zip(("closure 0.1", "object 0.1", "module smoothed"), again, strict=True):
        assert digest_of("loss_fn", loss) == digests[name]
    monkeypatch.setattr(sys.modules[__name__], "SMOOTHING", 0.2)
    for name in ("global", "helper"):
        assert digest_of("loss_fn", LOSSES[name]) != digests[name]
    monkeypatch.setattr(F, "cross_entropy", lambda *given, **named: given[0].sum())
    assert digest_of("loss_fn", LOSSES["lambda 2"]) != digests["lambda 2"]


def test_what_has_no_content_is_refused(tmp_path: Path) -> None:
    lock = threading.Lock()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        with lock:
            return F.cross_entropy(outputs, targets)

    with pytest.raises(ValueError, match=r"needs loss_fn to be told .*got in it a _thread.lock"):
        by_fit(tmp_path, {"loss": loss})
    by_fit(None, {"loss": loss})  # nothing is to be told apart


CODE = """
import torch
from torch.nn import functional as F
from tests.lora_dropout.test_identity import CHANGES, LOSSES, digest_of, made, structure_digest
for name in ("closure 0.1", "object 0.3", "module weighted", "lambda 2", "helper", "method"):
    print(digest_of("loss_fn", LOSSES[name]))
for name in CHANGES:
    print(structure_digest(made(CHANGES[name][1])[0]))
"""


def test_digests_are_the_same_in_every_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )
    names = ("closure 0.1", "object 0.3", "module weighted", "lambda 2", "helper", "method")
    here = [digest_of("loss_fn", LOSSES[name]) for name in names]
    here += [structure_digest(made(change)[0]) for _, change in CHANGES.values()]
    assert done.stdout.split() == here


SOURCES = {
    "global": "import pk.sub\ndef loss(o, t): return pk.sub.W * (o.sum() + pk.sub.f())",
    "local": "def loss(o, t):\n import pk.sub\n return pk.sub.W * (o.sum() + pk.sub.f())",
    "names": "def loss(o, t):\n from pk.sub import W, f\n return W * (o.sum() + f())",
    "alias": "from pk import sub as s\ndef loss(o, t): return (lambda: s.W * s.f())() + o.sum()",
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_loss_reads_of_its_users_modules_counts(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pk").mkdir()
    (tmp_path / "pk" / "__init__.py").write_text("")

    def digest(module: str) -> str:
        (tmp_path / "pk" / "sub.py").write_text(module)
        for name in ("pk", "pk.sub"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        names: dict[str, Any] = {"__name__": "user"}
        exec(compile(SOURCES[source], str(tmp_path / "user.py"), "exec"), names)
        return digest_of("loss_fn", names["loss"])

    plain = digest("W = 1.0\ndef f(): return 2.0\n")
    assert digest("W = 1.0\ndef f(): return 2.0\nunused = 1\n") == plain
    assert digest("W = 3.0\ndef f(): return 2.0\n") != plain
    assert digest("W = 1.0\ndef f(): return 4.0\n") != plain


# --- buffers that training moves, and a model's own random numbers -------------------------------


class WithBuffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.drop = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.head = nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.head(self.drop(self.norm(self.body(x))))


@pytest.mark.parametrize("patience", [None, 1])
def test_buffers_are_resumed(tmp_path: Path, patience: int | None) -> None:
    change = {"net": WithBuffers, "adapter": {"target_modules": ("body",)}}

    def run(folder: Path | None, epochs: int, stop: int | None = None) -> Any:
        model, data, _ = made(change)
        torch.manual_seed(torch.seed() % 2**32)  # whatever was drawn before
        config = FitConfig(
            epochs=epochs, batch_size=6, patience=patience, learning_rate=0.1, schedule="constant",
            mode="loop",
        )  # fmt: skip
        save = save_checkpoint

        def killed(*given: Any) -> None:
            save(*given)
            if given[1]["epoch"] == stop:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lora_dropout.training.fit.save_checkpoint", killed)
            result = fit(
                model, data, held_out=data, config=config, checkpoint_folder=folder,
                progress=False, device="cpu",
            )  # fmt: skip
        return result, {k: t.tolist() for k, t in model.state_dict().items()}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 4, stop=2)
    assert run(tmp_path, 4) == run(None, 4)


# --- damage ---------------------------------------------------------------------------------------


def spoiled(state: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each field, at every depth, missing, of another type or shape, or not a number."""
    found = []

    def visit(value: Any, put: Callable[[Any], Any], name: str) -> None:
        odd: list[Any] = ["x", None if value is not None else 3, [1]]
        if isinstance(value, Tensor):
            odd += [value.flatten()[:-1] if value.numel() > 1 else value.repeat(2), value[None]]
            odd += [value.to(torch.complex64)]
            if value.is_floating_point():
                odd += [torch.full_like(value, torch.nan)]
        elif isinstance(value, dict):
            odd += [{}] if value else []
            odd += [{**value, "other": 1}]
            for key, entry in value.items():
                missing = {k: v for k, v in value.items() if k != key}
                found.append((f"{name}.{key} missing", put(missing)))
                visit(entry, lambda new, k=key: put({**value, k: new}), f"{name}.{key}")
        elif type(value) is int:
            odd += [-1, value + 100, float(value)]
        elif isinstance(value, list):
            odd += [[]] if value else []
        found.extend((f"{name} {type(new).__name__}", put(new)) for new in odd)

    for key in state:
        if key != "settings":
            rest = {k: v for k, v in state.items() if k != key}
            found.append((f"{key} missing", rest))
            visit(state[key], lambda new, k=key: {**state, k: new}, key)
    return found


@pytest.mark.parametrize("kind", ["fit", "adalora", "fit_replicas"])
def test_every_damaged_field_is_named(tmp_path: Path, kind: str) -> None:
    change: dict[str, Any] = {
        "net": WithBuffers, "adapter": {"target_modules": ("body",)}, "config": {"mode": "loop"},
    }  # fmt: skip
    run = RUNS.get(kind, by_fit)
    if kind == "adalora":
        change["adapter"]["adapter"] = "adalora"
        change["config"] |= {"rank_budget": RankBudget(target_rank=1), "regularization": 0.1}
    if kind == "fit_replicas":
        change = {}
    run(tmp_path, change)
    folder = tmp_path / "chunk-0000" if kind == "fit_replicas" else tmp_path
    state = torch.load(io.BytesIO((folder / NAME).read_bytes()[16:]), weights_only=True)
    cases = spoiled(state)
    if kind == "adalora":
        cases = [case for case in cases if case[0].startswith(("allocator", "start", "history"))]
    assert len(cases) > 30
    unsaid = []
    for name, content in cases:
        save_checkpoint(folder, content)
        try:
            run(tmp_path, change)
        except ValueError as error:
            text = str(error)
            if f"{folder / NAME} is damaged, remove it to start afresh" not in text:
                unsaid.append((name, text))
        else:
            unsaid.append((name, "taken"))
    assert not unsaid
