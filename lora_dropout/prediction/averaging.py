"""What an ensemble averages (arXiv 2404.09610 v1, Eq. 8): probabilities, sigmoids or outputs.

The rule is a property of the task. For equal members each rule gives the member itself, as an
output: the average of probabilities keeps the members' mean log-normaliser, which no softmax sees.
"""

import math
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.door import check_choice, check_type

Average = Literal["probabilities", "sigmoids", "outputs", "logits"]

_CHUNK = 1 << 18  # numbers worked on at once: temporaries stay small beside the outputs


class Averaging(NamedTuple):
    """What is averaged.

    Attributes:
        kind: `probabilities` (softmax over `axis`), `sigmoids` (each number is a log-odds), or
            `outputs` (the numbers as they are; `logits` is another name for it).
        axis: The classes' axis, for `probabilities`.
    """

    kind: Average
    axis: int = -1


OUTPUTS = Averaging("outputs")

_SIGMOID_LOSSES = (
    F.binary_cross_entropy_with_logits,
    F.multilabel_soft_margin_loss,
    nn.BCEWithLogitsLoss,
    nn.MultiLabelSoftMarginLoss,
)
_OUTPUT_LOSSES = (
    F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.poisson_nll_loss,
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss,
)  # fmt: skip

_CLASSES, _SIGMOIDS = Averaging("probabilities"), Averaging("sigmoids")
# What the `logits` of a head of transformers mean, by the loss that it computes: its name, then
# the end of its name.
_HEADS = {
    "ElectraForPreTraining": _SIGMOIDS,  # of each token: was it replaced?
    "FunnelForPreTraining": _SIGMOIDS,
    "ViltForQuestionAnswering": _SIGMOIDS,  # of each answer
    "TapasForQuestionAnswering": _SIGMOIDS,  # of each cell's token
    "DetrForObjectDetection": _CLASSES,
    "DetrForSegmentation": _CLASSES,
    "TableTransformerForObjectDetection": _CLASSES,
    "YolosForObjectDetection": _CLASSES,
    "ViTMAEForPreTraining": OUTPUTS,  # pixels
    "VideoMAEForPreTraining": OUTPUTS,
    "HieraForPreTraining": OUTPUTS,
}
_ENDS = {
    "ForCausalLM": _CLASSES,
    "LMHeadModel": _CLASSES,
    "ModelWithLMHead": _CLASSES,
    "DoubleHeadsModel": _CLASSES,
    "EncoderDecoderModel": _CLASSES,
    "MTModel": _CLASSES,
    "BertGenerationDecoder": _CLASSES,
    "ForMaskedLM": _CLASSES,
    "ForConditionalGeneration": _CLASSES,
    "ForTextToText": _CLASSES,
    "ForSpeechToText": _CLASSES,
    "ForCausalImageModeling": _CLASSES,
    "ForNextSentencePrediction": _CLASSES,
    "ForTokenClassification": _CLASSES,
    "ForMultipleChoice": _CLASSES,
    "ForQuestionAnswering": _CLASSES,
    "ForCTC": _CLASSES,
    "ForXVector": _CLASSES,
    "ForAudioFrameClassification": _CLASSES,
    "ForSemanticSegmentation": Averaging("probabilities", 1),
    "ForMaskedImageModeling": OUTPUTS,
    "ForDepthEstimation": OUTPUTS,
}
_LABELLED = (
    "ForSequenceClassification",
    "ForImageClassification",
    "ForVideoClassification",
    "ForAudioClassification",
)
# Outputs that are scores of classes, or of positions, in whichever head has them.
_NAMED = {
    "start_logits", "end_logits", "prediction_logits", "seq_relationship_logits", "sop_logits",
    "mc_logits", "question_answering_score",
}  # fmt: skip


def stated_averaging(model: Any) -> Averaging | None:
    """What the ensemble of a transformers model averages, by its head and `config.problem_type`.

    Args:
        model: A model, with or without PEFT's wrapper.

    Returns:
        The rule of its `logits`; None if the model states no task (a bare module, a head that is
        not known here). A class that a user derives from a head is that head.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config, names = getattr(inner, "config", None), [kind.__name__ for kind in type(inner).__mro__]
    if config is None:
        return None
    problem = getattr(config, "problem_type", None)
    if problem == "multi_label_classification":
        return _SIGMOIDS
    if problem == "regression":
        return OUTPUTS
    for name in names:
        if name in _HEADS:
            return _HEADS[name]
        if any(end in name for end in _LABELLED):  # ForImageClassificationWithTeacher
            single = getattr(config, "num_labels", 2) == 1
            return OUTPUTS if single and problem is None else _CLASSES
        for end, rule in _ENDS.items():
            if name.endswith(end):
                return rule
    return None


def check_averaging(average: Average | Averaging | None, model: Any) -> Averaging:
    """The rule that a caller states; without one the model's; without that the mean of outputs.

    Args:
        average: As stated. Probabilities without an axis are over the model's, else the last.
        model: The model.

    Returns:
        The rule.

    Raises:
        ValueError: If the rule is not one of them, or its axis is the batch.
    """
    stated = stated_averaging(model)
    if average is None:
        return stated or OUTPUTS
    if isinstance(average, Averaging):
        check_choice("average", average.kind, get_args(Average))
        check_type("average.axis", average.axis, int, "an axis of the outputs")
        if average.axis == 0:
            raise ValueError("average must be over classes, got axis 0, the batch")
        return average
    check_choice("average", average, get_args(Average))
    if average == "probabilities" and stated is not None and stated.kind == average:
        return stated
    return Averaging(average)


def task_averaging(model: Any, loss_fn: Any, targets: Tensor) -> Averaging:
    """The rule of a task given by its loss: torch's losses say what outputs mean, as models do.

    Args:
        model: The model.
        loss_fn: (outputs, targets) -> scalar.
        targets: Of a data set. Under a loss that is not torch's, and a model that states nothing,
            integers are classes, along the last axis of outputs.

    Returns:
        The rule.
    """
    while isinstance(loss_fn, partial):
        loss_fn = loss_fn.func
    kind = type(loss_fn) if isinstance(loss_fn, nn.Module) else loss_fn
    if kind in (F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss):
        return Averaging("probabilities", 1)  # torch's convention
    if kind in _SIGMOID_LOSSES:
        return Averaging("sigmoids")
    if kind in _OUTPUT_LOSSES:
        return OUTPUTS
    classes = OUTPUTS if targets.is_floating_point() else Averaging("probabilities")
    return stated_averaging(model) or classes


def field_averaging(name: str, average: Average | Averaging | None, model: Any) -> Averaging | None:
    """The rule of one field of a model's outputs.

    Args:
        name: The field.
        average: As a caller states it, for all scores; None is what the model states.
        model: The model.

    Returns:
        That rule for scores, and a plain mean for other numbers; None for `logits` of which
        neither says what they are.
    """
    if name in _NAMED:
        return _CLASSES if average is None else check_averaging(average, model)
    if name != "logits":
        return OUTPUTS
    return stated_averaging(model) if average is None else check_averaging(average, model)


class MemberMean:
    """The average of members that are added one after another; it holds no member.

    Args:
        averaging: What is averaged. One number along the class axis has no classes: such outputs
            are averaged as they are.
    """

    def __init__(self, averaging: Averaging) -> None:
        self.kind: str = "outputs" if averaging.kind == "logits" else averaging.kind
        self.axis = averaging.axis
        self.count = 0

    def add(self, member: Tensor) -> None:
        """Add a member.

        Args:
            member: Floating-point outputs, of one shape for all members.
        """
        if self.count == 0:
            self._start(member)
        self.count += 1
        rows = member.detach().reshape(self._rows)
        step = max(1, _CHUNK // max(1, math.prod(rows.shape[1:])))
        for start in range(0, len(rows), step):
            part = rows[start : start + step].to(self._mean.dtype)
            mean = self._mean[start : start + step]
            if self.kind == "outputs":
                _move(mean, part, self._weighted(mean, part))
            elif self.kind == "sigmoids":
                _move(mean, part, self._log_odds(mean, part))
            else:
                scale = part.logsumexp(dim=1, keepdim=True)
                first, moved = (scales[start : start + step] for scales in self._scales)
                if self.count == 1:
                    first.copy_(scale)
                scale -= first
                part = part - scale  # now all members have the normaliser of the first
                _move(mean, part, self._log_mean(mean, part))
                _move(moved, scale, self._weighted(moved, scale))

    def result(self) -> Tensor:
        """The average of the members added; no more can be added then.

        Returns:
            Outputs of a member's shape and type: their softmax over the axis, their sigmoid, or
            they themselves are the mean of the members'.
        """
        if self.kind == "probabilities":
            self._mean += self._scales[1]
        return self._mean.reshape(self._shape).to(self._dtype)

    def _weighted(self, mean: Tensor, value: Tensor) -> Tensor:
        if self.count == 1:
            return value
        return mean * ((self.count - 1) / self.count) + value / self.count

    def _log_mean(self, mean: Tensor, value: Tensor) -> Tensor:
        if self.count == 1:
            return value
        old = mean + math.log((self.count - 1) / self.count)
        return torch.logaddexp(old, value - math.log(self.count))

    def _log_odds(self, mean: Tensor, value: Tensor) -> Tensor:
        if self.count == 1:
            return value
        true = self._log_mean(F.logsigmoid(mean), F.logsigmoid(value))
        return true - self._log_mean(F.logsigmoid(-mean), F.logsigmoid(-value))

    def _start(self, member: Tensor) -> None:
        shape = member.shape
        self._shape, self._dtype, self._rows = shape, member.dtype, (member.numel(), 1, 1)
        wide = torch.promote_types(member.dtype, torch.float32)
        if self.kind == "probabilities":
            axis = self.axis + len(shape) if self.axis < 0 else self.axis
            if not 0 < axis < len(shape):
                raise ValueError(
                    "average must name a class axis of the outputs beside the batch, got axis "
                    f"{self.axis} of outputs of shape {tuple(shape)}"
                )
            if shape[axis] == 1:
                self.kind = "outputs"
            else:
                self._rows = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        self._mean = torch.zeros(self._rows, dtype=wide, device=member.device)
        # The log-normaliser of the first member, and how far the mean of all is from it.
        self._scales = [torch.zeros_like(self._mean[:, :1]) for _ in range(2)]


def _move(mean: Tensor, value: Tensor, moved: Tensor) -> None:
    # Equal members give themselves, to the last bit, and infinite ones no NaN.
    mean.copy_(torch.where(mean == value, mean, moved))


def average_members(members: Tensor, averaging: Averaging) -> Tensor:
    """The average of members that are all there.

    Args:
        members: Shape (N, ...).
        averaging: What is averaged; its axis counts without the members' dimension.

    Returns:
        Shape (...), see `MemberMean.result`.
    """
    mean = MemberMean(averaging)
    for member in members:
        mean.add(member)
    return mean.result()
