"""The audit: it finds what is true of a tiny model, and is loud where a bound is wrong."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lora_dropout.audit.verdict as run_module
from lora_bounds.bounds.judge import Status
from lora_dropout import FitConfig, LoRADropoutConfig, adapt, trainable_parameters
from lora_dropout.audit import audit
from lora_dropout.audit.constants import copy_of_parameters

CONFIG = FitConfig(epochs=30, batch_size=10, learning_rate=0.05, n_instances=2)
DECLARED = {
    "i.i.d. sample": True,
    "unseen data": True,
    "symmetric algorithm": True,
    "pointwise hypothesis stability": True,
}


def _data(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return x, (x[:, 0] + torch.randn(n, generator=generator) > 0).long()


def _model(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2))
    config = LoRADropoutConfig(**{"rank": 1, "alpha": 1.0, "dropout": 0.5, **changes})
    return adapt(model, config, generator=torch.Generator().manual_seed(1))


def _audit(model: nn.Module, **changes: Any) -> Any:
    settings: dict[str, Any] = {"config": CONFIG, "n_draws": 20, "progress": False, **changes}
    return audit(model, _data(10, 1), _data(200, 2), **settings)


def test_from_an_untrained_adapter() -> None:
    model = _model()
    found = _audit(model, config=replace(CONFIG, regularization=0.2))
    c = found.constants
    assert found.loss_range == pytest.approx(2 * math.log(2))
    assert len(c.moves) == 10
    assert c.regularization == 0.2
    assert c.stability is not None
    assert c.stability[1].low <= c.stability[0] <= c.stability[1].high
    assert c.eta > c.rho * 0.5 > 0
    assert c.facts["bounded loss"] is True
    assert found.gap.gap == pytest.approx(found.gap.held_out - found.gap.train)
    names = [j.name for j in found.judgements]
    assert names[:2] == ["Thm 4.4 as printed, measured eta", "Lemma 4.3, measured stability"]
    assert names[-1].startswith("PAC-Bayes dropout")
    assert not found.contradictions
    text = str(found)
    assert "empirical gap" in text
    assert "unchecked: i.i.d. sample" in text


def test_from_a_trained_adapter_without_retraining() -> None:
    model = _model()
    initial = copy_of_parameters(model)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(0.3)
    before = copy_of_parameters(model)
    found = _audit(model, config=None, initial=initial)
    after = copy_of_parameters(model)
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert found.constants.stability is None
    moved = sum(p.numel() for p in before.values()) ** 0.5 * 0.3
    assert found.constants.distance == pytest.approx(moved, rel=1e-5)
    assert "Lemma 4.3, measured stability" not in [j.name for j in found.judgements]


def test_a_wrong_bound_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lemma 4.3 without its stability term says that there is hardly a gap; there is one."""
    right = run_module.lemma_4_3

    def wrong(*, n: int, stability: float, **arguments: Any) -> Any:
        return right(n=n**6, stability=0.0, **arguments)

    monkeypatch.setattr(run_module, "lemma_4_3", wrong)
    x, _ = _data(10, 1)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 2, (10,), generator=generator)  # nothing to learn: a large gap
    held_out = (torch.randn(3000, 4), torch.randint(0, 2, (3000,), generator=generator))
    config = replace(CONFIG, epochs=300, learning_rate=0.1)
    arguments: dict[str, Any] = {"config": config, "n_draws": 20, "progress": False}
    excused = audit(_model(dropout=0.0), (x, noise), held_out, **arguments)
    by_name = {j.name: j for j in excused.judgements}
    assert by_name["Lemma 4.3, measured stability"].status is Status.OPEN
    loud = audit(_model(dropout=0.0), (x, noise), held_out, known=DECLARED, **arguments)
    assert [j.name for j in loud.contradictions] == ["Lemma 4.3, measured stability"]
    assert "!!! Lemma 4.3, measured stability IS CONTRADICTED" in str(loud)


def test_facts_of_a_non_convex_model() -> None:
    found = _audit(_model(), left_out=4)
    c = found.constants
    assert c.curvature.least is not None
    if c.curvature.least < -1e-3:
        assert c.facts["positive semidefinite Hessian"] is False
        assert c.facts["convex loss"] is False
    assert c.facts["Lipschitz regularised loss"] is True
    assert len(c.moves) == 4


def test_bad_input() -> None:
    model = _model()
    with pytest.raises(ValueError, match="give either config"):
        _audit(model, config=None)
    with pytest.raises(ValueError, match="give either config"):
        _audit(model, initial=copy_of_parameters(model))
    with pytest.raises(ValueError, match="delta must be in"):
        _audit(model, delta=1.0)
    with pytest.raises(ValueError, match="left_out must be at most 10, got left_out=11"):
        _audit(model, left_out=11)
    with pytest.raises(ValueError, match=r"train must have class targets, got torch\.float32"):
        audit(model, (torch.zeros(3, 4), torch.zeros(3)), _data(5, 1), config=CONFIG)
    two = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    adapt(two, LoRADropoutConfig(rank=1, target_modules=("0",), modules_to_save=("1",)))
    with pytest.raises(ValueError, match=r"factors alone, got modules_to_save=\('1',\)"):
        _audit(two)


def test_nothing_is_checked_twice() -> None:
    model, calls = _model(), 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        code = frame.f_code
        ours = "lora_dropout" in Path(code.co_filename).parts
        calls += event == "call" and ours and code.co_name.lstrip("_").startswith("check_")

    sys.setprofile(count)
    try:
        _audit(model)
    finally:
        sys.setprofile(None)
    assert 10 < calls <= 100
