"""The ensemble of every family: equal members give the network, others the stated average."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from lora_dropout import sample_masks, use_masks
from lora_dropout.hf import LoRADropoutTrainer, attach
from lora_dropout.seeds import derived_generator
from tests.lora_dropout.hf.families import FAMILIES, family_batch, family_model

pytestmark = pytest.mark.filterwarnings("ignore")

LOSS_FROM_INTERNALS = {"yolos-boxes", "vit-masked_image", "wav2vec2-speech"}


def _arguments(folder: Path) -> TrainingArguments:
    return TrainingArguments(
        str(folder), use_cpu=True, report_to=[], remove_unused_columns=False, disable_tqdm=True,
        label_names=None,
    )  # fmt: skip


def _flat(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, (tuple, list)):
        return [tensor for part in outputs for tensor in _flat(part)]
    return []


def _same(found: Any, wanted: Any) -> None:
    found, wanted = _flat(found), _flat(wanted)
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_members_are_the_network(name: str, tmp_path: Path) -> None:
    model, batch = family_model(name), family_batch(name)
    unlabelled = {
        k: v for k, v in batch.items() if k not in ("labels", "start_positions", "end_positions")
    }
    plain = Trainer(copy.deepcopy(model), _arguments(tmp_path))
    ours = LoRADropoutTrainer(attach(model), _arguments(tmp_path), eval_instances=3)
    for inputs in (batch, unlabelled, batch):
        for ignored in (None, ["past_key_values", "mems"]):
            wanted = plain.prediction_step(plain.model, dict(inputs), False, ignored)
            found = ours.prediction_step(ours.model, dict(inputs), False, ignored)
            assert (found[0] is None) == (wanted[0] is None)
            if wanted[0] is not None:
                torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
            _same(found[1], wanted[1])
    loss, logits, labels = ours.prediction_step(ours.model, dict(batch), True)
    assert logits is None
    assert labels is None


@pytest.mark.parametrize("name", FAMILIES)
def test_members_are_averaged_as_stated(name: str, tmp_path: Path) -> None:
    model, batch = attach(family_model(name, fresh=False)), family_batch(name)
    run = LoRADropoutTrainer(model, _arguments(tmp_path), eval_instances=3)
    loss = run.prediction_step(run.model, dict(batch), False)[0]
    masks = sample_masks(model, n_instances=3, generator=derived_generator(42, "evaluation"))
    losses, scores = [], {}
    for index in range(3):
        with torch.no_grad(), use_masks(model, masks.select(index)):
            member = model(**batch)
        if "loss" in member:
            losses.append(member.pop("loss"))
        for key, value in member.items():
            if key in ("logits", "start_logits", "end_logits"):
                scores.setdefault(key, []).append(value)
    scores = {key: torch.stack(value) for key, value in scores.items()}
    assert all((value[0] - value[1]).abs().max() > 1e-6 for value in scores.values())
    kind = FAMILIES[name].kind
    found = run.prediction_step(run.model, dict(batch), False)[1]
    found = found if isinstance(found, tuple) else (found,)
    for value, got in zip(scores.values(), found, strict=False):
        if kind in ("number", "numbers", "boxes"):
            wanted = value.mean(0)
        elif kind == "labels":
            got, wanted = got.sigmoid(), value.sigmoid().mean(0)
        else:
            axis = 1 if kind == "pixels" else -1
            got, wanted = got.softmax(axis), value.softmax(axis + 1 if axis > 0 else -1).mean(0)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    if name in LOSS_FROM_INTERNALS or loss is None:
        assert not losses or torch.allclose(loss, torch.stack(losses).mean())
        assert run._members_loss or not losses
        return
    assert not run._members_loss
