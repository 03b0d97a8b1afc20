"""The test-time ensemble against a naive loop (arXiv 2404.09610, Eq. 8)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lora_dropout import (
    LoRADropoutConfig,
    ensemble_predict,
    merge,
    predict,
    sample_masks,
    use_masks,
)
from tests.lora_dropout.strategies import (
    ALGEBRA,
    close,
    generator,
    laws,
    normal,
    seeds,
    two_layers,
)


def config(law: str = "row_column") -> LoRADropoutConfig:
    return LoRADropoutConfig(rank=2, dropout=0.4, mask=law)  # type: ignore[arg-type]


def members(model, x: Tensor, masks) -> Tensor:
    outputs = []
    for r in range(masks.n_instances):
        with torch.no_grad(), use_masks(model, masks.select(r)):
            outputs.append(model(x))
    return torch.stack(outputs)


@given(laws(), st.integers(1, 5), st.integers(1, 5), seeds())
def test_averages_against_a_loop(law: str, n: int, size: int, seed: int) -> None:
    model, x = two_layers(config(law), seed=seed), normal(size, 5, seed=seed)
    masks = sample_masks(model, seeds=torch.arange(n) + seed)
    each = members(model, x, masks)
    close(ensemble_predict(model, x, masks=masks, average="logits"), each.mean(dim=0), ALGEBRA)
    assert torch.equal(
        ensemble_predict(model, x, masks=masks),
        ensemble_predict(model, x, masks=masks, average="outputs"),
    )
    got = ensemble_predict(model, x, masks=masks, average="probabilities")
    close(got.softmax(dim=-1), each.softmax(dim=-1).mean(dim=0), ALGEBRA)
    close(got.logsumexp(dim=-1), each.logsumexp(dim=-1).mean(dim=0), ALGEBRA)


@given(
    st.sampled_from(["row_column", "rank", "entrywise"]),
    st.integers(1, 4),
    st.integers(1, 7),
    st.integers(1, 12),
    st.sampled_from(["probabilities", "logits"]),
    seeds(),
)
def test_chunks_change_nothing(
    law: str, n: int, size: int, rows: int, average: str, seed: int
) -> None:
    model, x = two_layers(config(law), seed=seed), normal(size, 5, seed=seed)
    masks = sample_masks(model, seeds=torch.arange(n))
    whole = ensemble_predict(model, x, masks=masks, average=average)  # type: ignore[arg-type]
    parts = ensemble_predict(model, x, masks=masks, average=average, max_rows=rows)  # type: ignore[arg-type]
    close(parts, whole, ALGEBRA)


def test_passes_stay_within_max_rows() -> None:
    model, seen = two_layers(config()), []
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    ensemble_predict(model, normal(7, 5, seed=1), n_instances=5, max_rows=3)
    assert sum(seen) == 35
    assert max(seen) <= 3
    seen.clear()
    ensemble_predict(model, normal(2, 5, seed=1), n_instances=5, max_rows=6)
    assert seen == [6, 4]  # three members in one pass, then two


def test_modes_and_masks_are_restored() -> None:
    model = two_layers(config()).train()
    model[1].eval()
    ensemble_predict(model, normal(3, 5, seed=1))
    predict(model, normal(3, 5, seed=1), inference="mean")
    assert [m.training for m in model] == [True, False, True]
    with pytest.raises(ValueError, match=r"inputs must fit the model, got inputs=.*: mat1"):
        ensemble_predict(model, normal(3, 6, seed=1))
    assert [m.training for m in model] == [True, False, True]
    assert all(layer.active is None for layer in (model[0], model[2]))


def test_generator_replays_and_no_gradient() -> None:
    model, x = two_layers(config()), normal(3, 5, seed=1)
    one = ensemble_predict(model, x, n_instances=3, generator=generator(2))
    assert torch.equal(one, predict(model, x, n_instances=3, generator=generator(2)))
    assert not torch.equal(one, ensemble_predict(model, x, n_instances=3, generator=generator(3)))
    assert not one.requires_grad


def test_mask_free_predictions() -> None:
    model, x = two_layers(config()), normal(3, 5, seed=1)
    for mode in ("mean", "raw"):
        with use_masks(model, mode):
            wanted = model(x)
        assert torch.equal(predict(model.train(), x, inference=mode), wanted)


def test_bad_input() -> None:
    model, x = two_layers(config()), normal(3, 5, seed=1)
    with pytest.raises(ValueError, match=r"average must be one of .*, got average='votes'"):
        ensemble_predict(model, x, average="votes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_rows must be at least 1, got max_rows=0"):
        ensemble_predict(model, x, max_rows=0)
    with pytest.raises(ValueError, match="n_instances must be at least 1, got n_instances=0"):
        predict(model, x, n_instances=0)
    with pytest.raises(ValueError, match=r"inference must be one of .*, got inference='best'"):
        predict(model, x, inference="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inputs must not be empty"):
        ensemble_predict(model, x[:0])


def test_a_merged_model_refuses_another_inference_mode() -> None:
    model, x = two_layers(config()), normal(4, 5, seed=1)
    before = predict(model, x, inference="mean")
    merge(model, inference="mean")
    close(predict(model, x, inference="mean"), before, ALGEBRA)
    with pytest.raises(RuntimeError, match=r"merged: unmerge before .* than 'mean'"):
        predict(model, x, inference="raw")


def test_mask_free_modes_do_not_depend_on_max_rows() -> None:
    model, x = two_layers(config()), normal(7, 5, seed=1)
    whole = predict(model, x, inference="raw")
    close(predict(model, x, inference="raw", max_rows=3), whole, ALGEBRA)
