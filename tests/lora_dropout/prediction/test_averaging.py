"""What is averaged: against the definition, for equal members, and by whom it is stated."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import Averaging, LoRADropoutConfig, adapt, ensemble_predict, evaluate, predict
from lora_dropout.adapters.use_masks import sample_masks, use_masks
from lora_dropout.prediction.averaging import (
    OUTPUTS,
    average_members,
    check_averaging,
    stated_averaging,
    task_averaging,
)
from tests.lora_dropout.strategies import generator, seeds

RULES = [Averaging("probabilities", 1), Averaging("probabilities"), Averaging("sigmoids"), OUTPUTS]


def _mean(members: Tensor, rule: Averaging) -> Tensor:
    members = members.double()
    if rule.kind == "probabilities":
        axis = rule.axis + 1 if rule.axis > 0 else rule.axis
        return members.softmax(axis).mean(0)
    return (members.sigmoid() if rule.kind == "sigmoids" else members).mean(0)


def _prediction(outputs: Tensor, rule: Averaging) -> Tensor:
    outputs = outputs.double()
    if rule.kind == "probabilities":
        return outputs.softmax(rule.axis)
    return outputs.sigmoid() if rule.kind == "sigmoids" else outputs


@given(
    st.sampled_from(RULES),
    st.integers(1, 5),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    st.sampled_from([0.01, 1.0, 30.0]),
    seeds(),
)
def test_rules(
    rule: Averaging, n: int, shape: list[int], dtype: torch.dtype, scale: float, seed: int
) -> None:
    members = (scale * torch.randn(n, 2, *shape, generator=generator(seed))).to(dtype)
    axis = rule.axis % (members.dim() - 1)
    one = rule.kind == "probabilities" and members.shape[axis + 1] == 1
    wanted_rule = OUTPUTS if one else rule  # a softmax of one number is no prediction
    found = average_members(members, rule)
    tolerance = {"rtol": 2 * torch.finfo(dtype).eps * (1 + scale * 4), "atol": 1e-5}
    if dtype == torch.float64:
        tolerance = {"rtol": 1e-9, "atol": 1e-12}
    if dtype in (torch.float16, torch.bfloat16) and wanted_rule.kind != "outputs":
        tolerance["atol"] = 4 * scale * torch.finfo(dtype).eps
    assert found.dtype == dtype
    wanted = _mean(members, wanted_rule)
    torch.testing.assert_close(_prediction(found, wanted_rule), wanted, **tolerance)
    equal = average_members(members[:1].expand(n, *members.shape[1:]), rule)
    assert torch.equal(equal, members[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [1e4, -1e4, torch.finfo(torch.float32).min, -torch.inf])
def test_equal_members_with_extreme_outputs(rule: Averaging, value: float) -> None:
    member = torch.tensor([[[0.3, -0.2], [1.0, value], [-0.5, 0.1]]])
    assert torch.equal(average_members(member.expand(3, 1, 3, 2), rule), member[0][None])


def test_sigmoids_keep_their_tails() -> None:
    found = average_members(torch.tensor([[[-80.0]], [[-90.0]]]), Averaging("sigmoids"))
    torch.testing.assert_close(found, torch.tensor([[-80.0 - 0.6931018]]), rtol=1e-6, atol=0.0)


# --- who states it ----------------------------------------------------------------------------


def _regressor(width: int) -> nn.Module:
    torch.manual_seed(0)
    model = adapt(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, width)),
                  LoRADropoutConfig(rank=1))  # fmt: skip
    for parameter in model.parameters():
        parameter.data.normal_()
    return model


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_regressor_averages_its_outputs(width: int) -> None:
    model, x = _regressor(width), torch.randn(5, 4)
    masks = sample_masks(model, n_instances=4, generator=generator(0))
    members = []
    for index in range(4):
        with torch.no_grad(), use_masks(model, masks.select(index)):
            members.append(model(x))
    wanted = torch.stack(members).mean(0)
    torch.testing.assert_close(predict(model, x, generator=generator(0)), wanted)
    torch.testing.assert_close(ensemble_predict(model, x, masks=masks), wanted)
    y = torch.randn(5, width)
    for loss in (F.mse_loss, nn.L1Loss(), partial(F.huber_loss, delta=0.5)):
        found = evaluate(model, (x, y), loss_fn=loss, generator=generator(0))["loss"]
        assert found == pytest.approx(float(loss(wanted, y)))


def test_evaluate_takes_the_classes_axis_from_the_loss() -> None:
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).unflatten(-1, (3, 4))

    torch.manual_seed(0)
    model = adapt(Pixels(), LoRADropoutConfig(rank=2))
    for parameter in model.parameters():
        parameter.data.normal_()
    x, y = torch.randn(5, 4), torch.randint(0, 3, (5, 4))
    wanted = ensemble_predict(
        model, x, generator=generator(0), average=Averaging("probabilities", 1)
    )
    weight = torch.tensor([3.0, 1.0, 0.1])
    for loss in (
        F.cross_entropy,
        nn.CrossEntropyLoss(weight),
        partial(F.cross_entropy, label_smoothing=0.1),
    ):
        found = evaluate(model, (x, y), loss_fn=loss, generator=generator(0))
        assert found["loss"] == pytest.approx(float(loss(wanted, y)))
        assert found["accuracy"] == pytest.approx(float((wanted.argmax(1) == y).double().mean()))


class _Head:
    def __init__(self, name: str, **config: Any) -> None:
        self.__class__ = type(name, (_Head,), {})
        self.config = SimpleNamespace(**config)


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (_Head("BertForSequenceClassification", num_labels=3, problem_type=None), RULES[1]),
        (_Head("BertForSequenceClassification", num_labels=1, problem_type=None), OUTPUTS),
        (_Head("BertForSequenceClassification", num_labels=3, problem_type="regression"), OUTPUTS),
        (_Head("ViTForImageClassification", problem_type="multi_label_classification"), RULES[2]),
        (_Head("SegformerForSemanticSegmentation", num_labels=3), RULES[0]),
        (_Head("GPT2LMHeadModel"), RULES[1]),
        (_Head("ViTForMaskedImageModeling"), OUTPUTS),
        (_Head("ElectraForPreTraining"), RULES[2]),
        (_Head("ViltForQuestionAnswering"), RULES[2]),
        (_Head("EncoderDecoderModel"), RULES[1]),
        (_Head("AlbertForPreTraining"), None),
        (_Head("LukeForEntityClassification"), None),
        (nn.Linear(2, 2), None),
    ],
)  # fmt: skip
def test_models_state_their_task(head: Any, wanted: Averaging | None) -> None:
    assert stated_averaging(head) == wanted
    assert check_averaging(None, head) == (wanted or OUTPUTS)
    assert check_averaging("sigmoids", head) == Averaging("sigmoids")


def test_every_head_that_transformers_lists_for_a_task_states_it() -> None:
    from transformers.models.auto import modeling_auto

    sigmoids = {"ViltForQuestionAnswering", "TapasForQuestionAnswering"}
    tasks = {
        "CAUSAL_LM": RULES[1], "MASKED_LM": RULES[1], "SEQ_TO_SEQ_CAUSAL_LM": RULES[1],
        "SPEECH_SEQ_2_SEQ": RULES[1], "TOKEN_CLASSIFICATION": RULES[1], "CTC": RULES[1],
        "MULTIPLE_CHOICE": RULES[1], "NEXT_SENTENCE_PREDICTION": RULES[1],
        "DOCUMENT_QUESTION_ANSWERING": RULES[1], "AUDIO_XVECTOR": RULES[1],
        "AUDIO_FRAME_CLASSIFICATION": RULES[1], "SEQUENCE_CLASSIFICATION": RULES[1],
        "IMAGE_CLASSIFICATION": RULES[1], "VIDEO_CLASSIFICATION": RULES[1],
        "AUDIO_CLASSIFICATION": RULES[1], "SEMANTIC_SEGMENTATION": RULES[0],
        "VISUAL_QUESTION_ANSWERING": RULES[1], "TABLE_QUESTION_ANSWERING": RULES[1],
        "MASKED_IMAGE_MODELING": OUTPUTS, "DEPTH_ESTIMATION": OUTPUTS,
    }  # fmt: skip
    checked = 0
    for task, wanted in tasks.items():
        listed = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").values()
        for entry in listed:
            for name in entry if isinstance(entry, (tuple, list)) else [entry]:
                found = stated_averaging(_Head(name, num_labels=3, problem_type=None))
                assert found == (RULES[2] if name in sigmoids else wanted), name
                checked += 1
    assert checked > 500


def test_a_class_that_is_derived_from_a_head_is_that_head() -> None:
    head = _Head("BertForSequenceClassification", num_labels=3, problem_type=None)
    head.__class__ = type("Mine", (type(head),), {})
    assert stated_averaging(head) == RULES[1]


def test_losses_state_their_task() -> None:
    integers, reals = torch.tensor([0, 1]), torch.tensor([0.0, 1.0])
    net = nn.Linear(2, 2)
    for targets in (integers, reals):  # the type of targets decides nothing here
        assert task_averaging(net, nn.CrossEntropyLoss(), targets) == Averaging("probabilities", 1)
        assert task_averaging(net, nn.BCEWithLogitsLoss(), targets) == Averaging("sigmoids")
        assert task_averaging(net, F.mse_loss, targets) == OUTPUTS
    own = lambda outputs, targets: outputs.sum()  # noqa: E731
    assert task_averaging(net, own, integers) == Averaging("probabilities")
    assert task_averaging(net, own, reals) == OUTPUTS


def test_refusals() -> None:
    model, x = _regressor(3), torch.randn(5, 4)
    with pytest.raises(ValueError, match=r"average must be one of .*, got average='votes'"):
        predict(model, x, average="votes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="average must be over classes, got axis 0, the batch"):
        predict(model, x, average=Averaging("probabilities", 0))
    with pytest.raises(ValueError, match=r"average must name a class .* got axis 2 of .*\(5, 3\)"):
        predict(model, x, average=Averaging("probabilities", 2))
    with pytest.raises(ValueError, match=r"average must name a class axis .* got axis -2"):
        predict(model, x, average=Averaging("probabilities", -2))
