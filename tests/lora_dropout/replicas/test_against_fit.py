"""Replicas against the slow, obviously correct way: one `fit` after another."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import FitConfig, LoRADropoutConfig, adapt, fit, trainable_parameters
from lora_dropout.replicas import Replica, fit_replicas, leave_one_out_replicas

N = 13


def _model(adapter: str = "lora", mask: str = "row_column", dropout: float = 0.4) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    config = LoRADropoutConfig(
        rank=2,
        alpha=2.0,
        dropout=dropout,
        mask=mask,  # type: ignore[arg-type]
        adapter=adapter,  # type: ignore[arg-type]
    )
    return adapt(model, config, generator=torch.Generator().manual_seed(1))


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (N,), generator=generator)


def _one_by_one(
    replica: Replica, config: FitConfig, loss_fn: Any = F.cross_entropy, **model: Any
) -> dict[str, Tensor]:
    dropout = model.pop("dropout", 0.4) if replica.dropout is None else replica.dropout
    alone = _model(dropout=dropout, **{k: v for k, v in model.items() if k != "dropout"})
    if replica.init_seed is not None:
        generator = torch.Generator().manual_seed(replica.init_seed)
        for _, layer in sorted(_layers(alone).items()):
            layer.reset_parameters(generator)
    x, y = _data()
    if replica.examples is not None:
        x, y = x[list(replica.examples)], y[list(replica.examples)]
    changes: dict[str, Any] = {"seed": replica.seed}
    for name in ("learning_rate", "regularization"):
        if getattr(replica, name) is not None:
            changes[name] = getattr(replica, name)
    fit(alone, (x, y), config=replace(config, **changes), loss_fn=loss_fn, progress=False)
    return {name: p.detach() for name, p in trainable_parameters(alone).items()}


def _layers(model: nn.Module) -> dict[str, Any]:
    from lora_dropout import adapters

    return dict(adapters(model))


REPLICAS = [
    Replica(seed=3),
    Replica(seed=4, examples=tuple(range(1, N))),
    Replica(seed=5, examples=(0, 3, 3, 7), learning_rate=0.02),
    Replica(seed=6, dropout=0.7, init_seed=9),
    Replica(seed=7, dropout=0.0, regularization=0.3),
    Replica(seed=8, examples=(2,), regularization=0.1),
]


def _agree(config: FitConfig, loss_fn: Any = F.cross_entropy, **model: Any) -> None:
    trained = fit_replicas(
        _model(**model), _data(), REPLICAS, config=config, loss_fn=loss_fn, progress=False
    )
    for k, replica in enumerate(REPLICAS):
        expected = _one_by_one(replica, config, loss_fn, **model)
        for name, value in expected.items():
            torch.testing.assert_close(
                trained.parameters[name][k], value, rtol=1e-9, atol=1e-11, msg=f"replica {k} {name}"
            )


BASE = FitConfig(epochs=4, batch_size=5, learning_rate=0.05, n_instances=3)


@pytest.mark.filterwarnings("ignore:mode='grouped' has one row:UserWarning")  # n = 21, by fives
@pytest.mark.parametrize("mode", ["loop", "batched", "grouped"])
def test_every_mode(mode: str) -> None:
    _agree(replace(BASE, mode=mode))  # type: ignore[arg-type]


@pytest.mark.parametrize("mask", ["row_column", "rank", "entrywise", "none"])
def test_every_law(mask: str) -> None:
    _agree(BASE, mask=mask)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "cosine", "warmup_steps": 3},
        {"schedule": "constant", "weight_decay": 0.2},
        {"max_grad_norm": None},
        {"max_grad_norm": 0.01},
        {"n_instances": 1},
        {"regularization": 0.5},
    ],
    ids=str,
)
def test_every_setting(changes: dict[str, Any]) -> None:
    _agree(replace(BASE, **changes))


@pytest.mark.parametrize("mode", ["batched", "grouped"])
def test_regression_on_several_targets(mode: str) -> None:
    """mse_loss is batched wrongly by torch if the targets lack the dimension of the masks."""
    generator = torch.Generator().manual_seed(4)
    x, y = _data()[0], torch.randn(N, 3, generator=generator, dtype=torch.float64)
    config = replace(BASE, mode=mode)  # type: ignore[arg-type]
    trained = fit_replicas(
        _model(), (x, y), [Replica(seed=3)], config=config, loss_fn=F.mse_loss, progress=False
    )
    alone = _model()
    fit(alone, (x, y), config=replace(config, seed=3), loss_fn=F.mse_loss, progress=False)
    for name, value in trainable_parameters(alone).items():
        torch.testing.assert_close(trained.parameters[name][0], value, rtol=1e-9, atol=1e-11)


def test_adalora_with_its_orthogonality_term() -> None:
    _agree(replace(BASE, orthogonality=0.3), adapter="adalora")


def test_predictions_are_those_of_the_single_models() -> None:
    from lora_dropout import predict

    x, _ = _data()
    trained = fit_replicas(_model(), _data(), REPLICAS, config=BASE, progress=False)
    own = [5 + k for k in range(len(REPLICAS))]
    for inference, seed in (("mean", 5), ("raw", 5), ("ensemble", 5), ("ensemble", own)):
        together = trained.outputs(_model(), x, inference=inference, n_instances=3, seed=seed)  # type: ignore[arg-type]
        for k in range(len(REPLICAS)):
            alone = trained.load(_model(), k)
            expected = predict(
                alone,
                x,
                inference=inference,  # type: ignore[arg-type]
                n_instances=3,
                generator=torch.Generator().manual_seed(seed[k] if seed is own else 5),
            )
            torch.testing.assert_close(together[k], expected, rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match=f"seed must be one, or one for each of {len(own)}, got 1"):
        trained.outputs(_model(), x, inference="ensemble", seed=[5])


def test_chunks_change_nothing() -> None:
    whole = fit_replicas(_model(), _data(), REPLICAS, config=BASE, progress=False)
    parts = fit_replicas(_model(), _data(), REPLICAS, config=BASE, chunk_size=2, progress=False)
    for name, value in whole.parameters.items():
        torch.testing.assert_close(parts.parameters[name], value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(parts.objective, whole.objective, rtol=1e-10, atol=1e-12)


def test_a_finished_run_is_not_trained_again(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"config": BASE, "checkpoint_folder": tmp_path, "progress": False}
    first = fit_replicas(_model(), _data(), REPLICAS, chunk_size=2, **arguments)
    from lora_dropout.replicas import fitting

    def no_training(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished chunk was computed again")

    monkeypatch.setattr(fitting.Chunk, "train_epoch", no_training, raising=True)
    again = fit_replicas(_model(), _data(), REPLICAS, chunk_size=2, **arguments)
    for name, value in first.parameters.items():
        assert torch.equal(again.parameters[name], value)
    with pytest.raises(ValueError, match="other settings"):
        fit_replicas(_model(), _data(), REPLICAS[:3], chunk_size=2, **arguments)


def test_a_diverged_replica_spoils_no_other() -> None:
    x, y = _data()
    x = x.clone()
    x[0] = float("inf")
    replicas = [Replica(examples=tuple(range(1, N))), Replica(), Replica(examples=(4, 5, 6))]
    with pytest.warns(Warning, match="1"):
        trained = fit_replicas(_model(), (x, y), replicas, config=BASE, progress=False)
    assert list(trained.diverged) == [1]
    clean = fit_replicas(_model(), _data(), replicas, config=BASE, progress=False)
    for name, value in clean.parameters.items():
        torch.testing.assert_close(trained.parameters[name][[0, 2]], value[[0, 2]])


def test_leave_one_out_replicas() -> None:
    made = leave_one_out_replicas(3, seed=4)
    assert [r.examples for r in made] == [(0, 1, 2), (1, 2), (0, 2), (0, 1)]
    assert {r.seed for r in made} == {4}


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"examples must not be empty, got examples=\(\)"):
        Replica(examples=())
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\], got dropout=2"):
        Replica(dropout=2)
    with pytest.raises(ValueError, match="examples"):
        fit_replicas(_model(), _data(), [Replica(examples=(N,))], config=BASE, progress=False)
    with pytest.raises(ValueError, match="patience"):
        fit_replicas(
            _model(), _data(), [Replica()], config=replace(BASE, patience=2), progress=False
        )
