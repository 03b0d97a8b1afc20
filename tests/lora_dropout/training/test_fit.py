"""`fit`: what it computes, and that an interrupted run ends as an uninterrupted one."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lora_dropout import (
    FitConfig,
    FitResult,
    LoRADropoutConfig,
    RankBudget,
    adapt,
    adapters,
    evaluate,
    fit,
    instance_loss,
    merge,
    sample_masks,
    trainable_parameters,
)
from lora_dropout.seeds import derived_generator
from tests.lora_dropout.strategies import fill, generator, normal, seeded

Data = tuple[Tensor, Tensor]


def small(kind: str = "lora", p: float = 0.4, dropout: float = 0.3, **more: object) -> nn.Module:
    """A classifier with dropout of its own (it draws from torch's global generator)."""
    base = nn.Sequential(nn.Linear(5, 6), nn.Dropout(dropout), nn.Tanh(), nn.Linear(6, 3))
    settings = LoRADropoutConfig(rank=2, dropout=p, adapter=kind, **more)  # type: ignore[arg-type]
    return fill(adapt(seeded(base, 1), settings, generator=generator(2)), 3)


def sets(n: int = 22) -> tuple[Data, Data]:
    x = normal(n, 5, seed=1, dtype=torch.float32)
    y = torch.randint(3, (n,), generator=generator(2))
    return (x[:14], y[:14]), (x[14:], y[14:])


def config(**more: object) -> FitConfig:
    return FitConfig(**{"epochs": 4, "batch_size": 5, "learning_rate": 0.05, **more})  # type: ignore[arg-type]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {k: p.detach().clone() for k, p in trainable_parameters(model).items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def run(
    model: nn.Module, settings: FitConfig, folder: Path | None = None, loss_fn=F.cross_entropy
) -> FitResult:
    train, held_out = sets()
    return fit(
        model,
        train,
        held_out=held_out,
        config=settings,
        loss_fn=loss_fn,
        device="cpu",
        checkpoint_folder=folder,
        progress=False,
    )


# --- what it computes -------------------------------------------------------------------------


def test_equals_a_plain_loop() -> None:
    settings = config(schedule="constant", max_grad_norm=0.5, weight_decay=0.01, seed=7)
    model, other = small(dropout=0.0), small(dropout=0.0)
    result = run(model, settings)
    (x, y), _ = sets()
    random = derived_generator(7, "training")
    optimizer = torch.optim.AdamW(trainable_parameters(other).values(), lr=0.05, weight_decay=0.01)
    for epoch in range(1, 5):
        total = 0.0
        for rows in torch.randperm(14, generator=random).split(5):
            masks = sample_masks(other, n_instances=4, generator=random)
            loss = instance_loss(other.train(), x[rows], y[rows], masks=masks, mode="loop")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trainable_parameters(other).values(), 0.5)
            optimizer.step()
            total += loss.item() * len(rows)
        assert result.history[epoch]["objective"] == pytest.approx(total / 14, rel=1e-4)
    for key, value in weights(other).items():
        torch.testing.assert_close(weights(model)[key], value, rtol=1e-3, atol=1e-4)
    assert not model.training


def test_history() -> None:
    model = small()
    result = run(model, config())
    assert [r["epoch"] for r in result.history] == [0, 1, 2, 3, 4]
    assert [r["step"] for r in result.history] == [0, 3, 6, 9, 12]
    keys = {f"{s}_{k}" for s in ("train", "held_out") for k in ("loss", "accuracy", "ece")}
    for record in result.history:
        wanted = keys | {"epoch", "step", "gap"} | ({"objective"} if record["epoch"] else set())
        assert set(record) == wanted
        assert record["gap"] == record["held_out_loss"] - record["train_loss"]
    losses = [r["held_out_loss"] for r in result.history]
    assert result.best_epoch == losses.index(min(losses))
    assert not result.stopped_early
    last = evaluate(model, sets()[0], n_instances=8, generator=derived_generator(0, "evaluation"))
    assert result.history[-1]["train_loss"] == last["loss"]


@pytest.mark.parametrize("n", [1, 4])
def test_evaluation_has_its_own_number_of_instances(n: int) -> None:
    model = small()
    start = evaluate(model, sets()[0], n_instances=8, generator=derived_generator(0, "evaluation"))[
        "loss"
    ]
    assert run(model, config(n_instances=n)).history[0]["train_loss"] == start


def test_without_held_out_data_and_with_float_targets() -> None:
    train = (sets()[0][0], normal(14, 3, seed=4, dtype=torch.float32))
    result = fit(
        small(), train, config=config(epochs=1), loss_fn=F.mse_loss, device="cpu", progress=False
    )
    assert set(result.history[1]) == {"epoch", "step", "objective", "train_loss"}
    assert result.best_epoch is None


@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_only_trainable_parameters_change(kind: str) -> None:
    model = small(kind, modules_to_save=("3",))
    before = {k: t.clone() for k, t in model.state_dict().items()}
    run(model, config(epochs=1))
    changed = {k for k, t in model.state_dict().items() if not torch.equal(t, before[k])}
    assert changed == set(trainable_parameters(model))


@pytest.mark.parametrize("mode", ["loop", "batched", "grouped"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learns(mode: str, schedule: str) -> None:
    settings = config(epochs=15, mode=mode, schedule=schedule, warmup_steps=3, n_instances=2)
    history = run(small(p=0.1, dropout=0.0), settings).history
    assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.2


def test_bf16() -> None:
    model = small(dropout=0.0)
    history = run(model, config(precision="bf16")).history
    exact = run(small(dropout=0.0), config()).history
    assert all(p.dtype == torch.float32 for p in trainable_parameters(model).values())
    assert history[-1]["objective"] != exact[-1]["objective"]
    assert history[-1]["objective"] == pytest.approx(exact[-1]["objective"], rel=0.05)


def test_early_stopping_restores_the_best() -> None:
    settings = config(epochs=40, learning_rate=0.3, patience=3, schedule="constant")
    model = small()
    result = run(model, settings)
    losses = [r["held_out_loss"] for r in result.history]
    assert result.stopped_early
    assert result.best_epoch == losses.index(min(losses))
    assert len(losses) - 1 == result.best_epoch + 3 < 40
    now = evaluate(model, sets()[1], n_instances=8, generator=derived_generator(0, "evaluation"))
    assert now["loss"] == min(losses)


def test_adalora_budget_is_met_at_the_end() -> None:
    model = small("adalora")
    run(model, config(epochs=6, rank_budget=RankBudget(target_rank=1, final_steps=4)))
    assert sum(int((m.lora_E != 0).sum()) for m in adapters(model).values()) == 2


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
        self.recompute = False

    def forward(self, x: Tensor) -> Tensor:
        if self.recompute and self.training:
            return checkpoint(self.inner, x, use_reentrant=False)
        return self.inner(x)


@pytest.mark.parametrize(("mode", "n"), [("batched", 3), ("grouped", 3), ("loop", 3)])
def test_activation_checkpointing_recomputes_under_the_same_masks(mode: str, n: int) -> None:
    ends = []
    for recompute in (False, True):
        model = fill(adapt(seeded(Checkpointed(), 1), LoRADropoutConfig(rank=2)), 2)
        model.recompute = recompute
        run(model, config(mode=mode, n_instances=n))
        ends.append(weights(model))
    assert equal(*ends)


# --- interruption -----------------------------------------------------------------------------


class Interrupted(Exception):
    pass


class Interrupting:
    """A loss that raises in one of its calls, and is the same loss for all that."""

    def __init__(self, call: int | None = None) -> None:
        self.call, self.calls = call, itertools.count(1)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if next(self.calls) == self.call:
            raise Interrupted
        return F.cross_entropy(outputs, targets)

    def __getstate__(self) -> dict:
        return {}


VARIANTS = {
    "lora": ({}, {}),
    "patience": ({}, {"patience": 2, "learning_rate": 0.3, "epochs": 8, "schedule": "constant"}),
    "adalora": ({"kind": "adalora"}, {"rank_budget": RankBudget(target_rank=1, final_steps=4)}),
    "sparse": ({}, {"checkpoint_every": 2, "evaluate_every": 2, "mode": "grouped"}),
    "numpy": ({}, {"learning_rate": np.float64(0.05), "mode": "loop"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("call", [1, 4, 19, 37, 50])
def test_resume_is_bit_identical(tmp_path: Path, variant: str, call: int) -> None:
    adapter, settings = VARIANTS[variant]
    torch.manual_seed(5)
    whole = small(**adapter)  # type: ignore[arg-type]
    expected = run(whole, config(**settings))
    torch.manual_seed(5)
    try:
        run(small(**adapter), config(**settings), tmp_path, Interrupting(call))  # type: ignore[arg-type]
    except Interrupted:
        pass
    else:
        assert variant in ("sparse", "patience")  # these make fewer calls
        assert call >= 19
    # A new process knows nothing: other global random numbers, new weights. Without a checkpoint
    # the run starts again, with the seed that its user sets.
    torch.manual_seed(99 if list(tmp_path.iterdir()) else 5)
    resumed = small(**adapter)  # type: ignore[arg-type]
    got = run(resumed, config(**settings), tmp_path, Interrupting())
    assert got == expected
    assert equal(weights(resumed), weights(whole))
    finished = small(**adapter)  # type: ignore[arg-type]
    again = run(finished, config(**settings), tmp_path, Interrupting())
    assert again == expected  # nothing left to do
    assert equal(weights(finished), weights(whole))


SCRIPT = """
import sys, time, torch
from pathlib import Path
from tests.lora_dropout.training.test_fit import config, run, small

from lora_dropout.training import fit as training

def slow(*given, **named):
    time.sleep(0.02)
    return sample_masks(*given, **named)

sample_masks, training.sample_masks = training.sample_masks, slow
torch.manual_seed(5)
run(small(), config(epochs=12), Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_resume_after_kill_is_bit_identical(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=root)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("checkpoint.pt")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still at work
    torch.manual_seed(5)
    whole = small()
    expected = run(whole, config(epochs=12))
    torch.manual_seed(99)
    resumed = small()
    assert run(resumed, config(epochs=12), tmp_path) == expected
    assert equal(weights(resumed), weights(whole))


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "settings", "message"),
    [
        ({}, {"learning_rate": 0.1}, "learning_rate: 0.05 there, 0.1 here"),
        ({}, {"seed": 1}, "seed: 0 there, 1 here"),
        ({"p": 0.3}, {}, "adapter: .*'dropout': 0.4.* there, .*'dropout': 0.3.* here"),
        ({"modules_to_save": ("3",)}, {}, "parameters: "),
    ],
)
def test_checkpoint_of_another_run(
    tmp_path: Path, adapter: dict, settings: dict, message: str
) -> None:
    run(small(), config(epochs=1), tmp_path)
    with pytest.raises(ValueError, match=rf"belongs to a run with other settings .*{message}"):
        run(small(**adapter), config(epochs=1, **settings), tmp_path)


def test_checkpoint_of_other_data_or_damaged(tmp_path: Path) -> None:
    run(small(), config(epochs=1), tmp_path)
    train, held_out = sets()
    with pytest.raises(ValueError, match=r"other settings .*held_out: .* there, None here"):
        fit(small(), train, config=config(epochs=1), checkpoint_folder=tmp_path, progress=False)
    other = (train[0] + 1, train[1])
    with pytest.raises(ValueError, match=r"other settings \(train: "):
        fit(
            small(), other, held_out=held_out, config=config(epochs=1),
            checkpoint_folder=tmp_path, progress=False,
        )  # fmt: skip
    (tmp_path / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"checkpoint.pt is damaged, remove it to start afresh"):
        run(small(), config(epochs=1), tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite(tmp_path: Path, bad: float) -> None:
    model, calls = small(), itertools.count()
    seen: list[dict[str, Tensor]] = []

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(weights(model))
        return F.cross_entropy(outputs, targets) * (bad if next(calls) >= 10 else 1.0)

    settings = config(mode="grouped", learning_rate=np.float64(0.05))
    with pytest.raises(FloatingPointError, match=r"loss must be finite, got loss=(nan|inf) at"):
        run(model, settings, tmp_path, loss_fn)
    assert equal(weights(model), seen[-1])


def test_gradient_that_is_not_finite() -> None:
    model = small()
    before = weights(model)

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        root = (outputs - outputs.detach()).square().sum().sqrt()  # 0, with slope 0/0
        return F.cross_entropy(outputs, targets) + root

    message = r"gradients must be finite, those of \['0.lora_A', .*\] are not at step 1"
    with pytest.raises(FloatingPointError, match=message):
        run(model, config(), None, loss_fn)
    assert equal(weights(model), before)


def test_bad_input() -> None:
    train, _ = sets()
    empty = (train[0][:0], train[1][:0])
    quiet = {"device": "cpu", "progress": False}
    with pytest.raises(ValueError, match="train must not be empty, got batch sizes"):
        fit(small(), empty, **quiet)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="held_out must not be empty, got batch sizes"):
        fit(small(), train, held_out=empty, **quiet)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="patience=2 needs held_out data, got held_out=None"):
        fit(small(), train, config=config(patience=2), **quiet)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model must be unmerged before training, layer '0'"):
        fit(merge(small()), train, **quiet)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model must have adapters \(see adapt\), got Linear"):
        fit(nn.Linear(5, 3), train, **quiet)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rank_budget needs a model adapted with adapter='ada"):
        fit(small(), train, config=config(rank_budget=RankBudget(target_rank=1)), **quiet)  # type: ignore[arg-type]


def test_progress_bar_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    train, held_out = sets()
    fit(small(), train, held_out=held_out, config=config(epochs=1), device="cpu")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "held_out_loss" in captured.err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_run_follows_the_cpu_run() -> None:
    train, held_out = sets()
    histories = []
    for device in ("cpu", "cuda"):
        model = small(dropout=0.0)
        result = fit(
            model, train, held_out=held_out, config=config(), device=device, progress=False
        )
        histories.append([record["train_loss"] for record in result.history])
    assert histories[1] == pytest.approx(histories[0], rel=1e-3)


def test_checkpoint_of_another_base_is_refused(tmp_path: Path) -> None:
    train, held_out = sets()
    fit(small(), train, held_out=held_out, config=config(), checkpoint_folder=tmp_path)
    other = small()
    next(iter(adapters(other).values())).base_layer.weight.data[0, 0] += 1.0
    with pytest.raises(ValueError, match=r"other settings \(base: "):
        fit(other, train, held_out=held_out, config=config(), checkpoint_folder=tmp_path)


def test_history_has_a_record_every_evaluate_every_epochs_and_at_the_end() -> None:
    train, held_out = sets()
    result = fit(small(), train, held_out=held_out, config=config(epochs=5, evaluate_every=2))
    assert [record["epoch"] for record in result.history] == [0, 2, 4, 5]
