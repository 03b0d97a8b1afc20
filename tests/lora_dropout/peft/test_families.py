"""The ensemble of every family: equal members give the network, others the stated average."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer, TrainingArguments

from lora_dropout import sample_masks, use_masks
from lora_dropout.peft import LoRADropoutTrainer, attach
from lora_dropout.seeds import derived_generator
from tests.lora_dropout.peft.families import FAMILIES, family_batch, family_model

pytestmark = pytest.mark.filterwarnings("ignore")

LOSS_FROM_INTERNALS = {"yolos-boxes", "vit-masked_image", "wav2vec2-speech"}


def _arguments(folder: Path) -> TrainingArguments:
    return TrainingArguments(
        str(folder), use_cpu=True, report_to=[], remove_unused_columns=False, disable_tqdm=True,
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
    names = ("labels", "start_positions", "end_positions")
    unlabelled = {k: v for k, v in batch.items() if k not in names}
    if name.endswith("seq2seq"):
        unlabelled["decoder_input_ids"] = batch["labels"].clamp(min=0)
    plain = Trainer(copy.deepcopy(model), _arguments(tmp_path))
    ours = LoRADropoutTrainer(attach(model), _arguments(tmp_path), eval_instances=3)
    for inputs in (unlabelled, batch):
        wanted = plain.prediction_step(plain.model, dict(inputs), False)
        found = ours.prediction_step(ours.model, dict(inputs), False)
        assert (found[0] is None) == (wanted[0] is None)
        if wanted[0] is not None:
            torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
        _same(found[1], wanted[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_members_are_averaged_as_stated(name: str, tmp_path: Path) -> None:
    model, batch = attach(family_model(name, fresh=False)), family_batch(name)
    run = LoRADropoutTrainer(model, _arguments(tmp_path), eval_instances=3)
    loss = run.prediction_step(run.model, dict(batch), False)[0]
    masks = sample_masks(model, n_instances=3, generator=derived_generator(42, "evaluation"))
    losses, scores = [], {}
    for index in range(3):
        with torch.no_grad(), use_masks(model, masks.select(index)):
            member = dict(model(**batch))
        if "loss" in member:
            losses.append(member.pop("loss"))
        for key, value in member.items():
            if key.endswith("logits"):
                scores.setdefault(key, []).append(value)
    scores = {key: torch.stack(value) for key, value in scores.items()}
    assert all((value[0] - value[1]).abs().max() > 1e-6 for value in scores.values())
    kind = FAMILIES[name].kind
    found = run.prediction_step(run.model, dict(batch), False)[1]
    found = [found] if isinstance(found, Tensor) else [x for x in found if isinstance(x, Tensor)]
    assert len(found) >= len(scores)
    averaged = []
    for value, got in zip(scores.values(), found, strict=False):
        if kind in ("number", "numbers", "masked_image"):
            wanted = value.mean(0)
        elif kind in ("labels", "replaced"):
            got, wanted = got.sigmoid(), value.sigmoid().mean(0)
        else:
            axis = 1 if kind == "pixels" else -1
            got, wanted = got.softmax(axis), value.softmax(axis + 1 if axis > 0 else -1).mean(0)
        averaged.append(wanted)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    if loss is None:
        return
    assert run._members_loss == (name in LOSS_FROM_INTERNALS)
    if run._members_loss:
        torch.testing.assert_close(loss, torch.stack(losses).mean())
    elif kind != "pixels":  # whose logits are resized before their softmax
        wanted = _loss(kind, name, averaged, batch)
        if kind == "tokens":  # the Trainer counts for GPT-2 the labels before they shift
            shift = "CausalLM" in FAMILIES[name].head
            labels = batch["labels"][:, 1:] if shift else batch["labels"]
            wanted = wanted * (labels != -100).sum() / run._get_num_items_in_batch([batch], "cpu")
        torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)


def _loss(kind: str, name: str, averaged: list[Tensor], batch: dict[str, Tensor]) -> Tensor:
    """The loss of average probabilities, or average outputs."""
    if kind == "span":
        pairs = zip(averaged, (batch["start_positions"], batch["end_positions"]), strict=True)
        length = averaged[0].shape[-1]
        parts = [F.nll_loss(p.log(), y.clamp(max=length), ignore_index=length) for p, y in pairs]
        return torch.stack(parts).mean()
    (wanted,), labels = averaged, batch["labels"]
    if kind in ("number", "numbers"):
        return F.mse_loss(wanted.view(labels.shape), labels)
    if kind in ("labels", "replaced"):
        return F.binary_cross_entropy(wanted, labels.float())
    if kind == "tokens" and "CausalLM" in FAMILIES[name].head:
        wanted, labels = wanted[:, :-1], labels[:, 1:]
    return F.nll_loss(wanted.log().flatten(0, -2), labels.flatten())
