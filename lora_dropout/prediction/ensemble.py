"""Prediction: the test-time ensemble (arXiv 2404.09610 v1, Eq. 8) and the mask-free modes."""

from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from lora_dropout.adapters.use_masks import Masks, check_masks, sample_masks, using
from lora_dropout.data import (
    Batch,
    Inputs,
    call_model,
    evaluating,
    map_inputs,
    n_examples,
    repeat_inputs,
)
from lora_dropout.door import MOST, Count, check_count, check_type, checked, unchecked
from lora_dropout.prediction.averaging import Average, Averaging, MemberMean, check_averaging

Prediction = Literal["ensemble", "mean", "raw"]
_Draws = Annotated[Masks, partial(check_type, kind=Masks, what="masks of sample_masks, or None")]


@checked
def ensemble_predict(
    model: nn.Module,
    inputs: Batch,
    *,
    masks: _Draws | None = None,
    n_instances: int = 4,
    generator: torch.Generator | None = None,
    average: Average | Averaging | None = None,
    max_rows: Count = 1024,
) -> Tensor:
    """Average the predictions of N masked models (Eq. 8), several members in one pass.

    Args:
        model: An adapted model; it runs in eval mode and gets its own mode back.
        inputs: b examples.
        masks: The N draws; None draws them.
        n_instances: N, if `masks` is None.
        generator: CPU generator for that; None is torch's global one.
        average: What is averaged: `probabilities` (softmax over the class axis: the last one, or
            that of `Averaging("probabilities", axis)`), `sigmoids` (several labels) or `outputs`
            (as they are, Eq. 8 as it stands; `logits` is the same). None is what a transformers
            model states by its head and `config.problem_type`, and else `outputs`.
        max_rows: Greatest number of examples in one pass; it bounds memory only. (Under law
            `activation`, whose bits go by the position in the pass, it also decides, once there
            are more examples than this, which bits an example gets.) With `max_rows` = the number
            of examples, members run one after another, which suits any model.

    Returns:
        Shape (b, ...): outputs whose softmax, or sigmoid, is the mean of the members', or that are
        the mean themselves. Equal members give the member.
    """
    averaging = check_averaging(average, model)
    if masks is None:
        masks = sample_masks(model, n_instances=n_instances, generator=generator)
    else:
        check_masks(model, masks)
    return ensemble_of(model, inputs, masks, averaging, max_rows)


@torch.no_grad()
def ensemble_of(
    model: nn.Module, inputs: Inputs, masks: Masks, averaging: Averaging, max_rows: int = 1024
) -> Tensor:
    """As `ensemble_predict`, for arguments that are known to be valid."""
    with evaluating(model):
        parts = split_inputs(inputs, max_rows)
        return torch.cat([_average(model, part, masks, averaging, max_rows) for part in parts])


@checked
def predict(
    model: nn.Module,
    inputs: Batch,
    *,
    inference: Prediction = "ensemble",
    n_instances: int = 4,
    generator: torch.Generator | None = None,
    average: Average | Averaging | None = None,
    max_rows: Count = 1024,
) -> Tensor:
    """Predict with masks on (`ensemble`) or off (`mean`, `raw`).

    Args:
        model: An adapted model; it runs in eval mode and gets its own mode back.
        inputs: b examples.
        inference: `ensemble` (Eq. 8); `mean` (update scaled to the mask's mean); `raw`
            (unscaled: the paper's Drop_train).
        n_instances: Ensemble size N.
        generator: CPU generator of the ensemble's masks; None is torch's global one.
        average: What the ensemble averages (see `ensemble_predict`).
        max_rows: Greatest number of examples in one pass.

    Returns:
        Logits, shape (b, ..., classes).
    """
    if inference == "ensemble":
        check_count("n_instances", n_instances, maximum=MOST)
    return outputs_of(
        model,
        inputs,
        inference=inference,
        n_instances=n_instances,
        generator=generator,
        averaging=check_averaging(average, model),
        max_rows=max_rows,
    )


def outputs_of(
    model: nn.Module,
    inputs: Inputs,
    *,
    inference: Prediction,
    n_instances: int,
    generator: torch.Generator | None,
    averaging: Averaging,
    max_rows: int = 1024,
) -> Tensor:
    """As `predict`, for arguments that are known to be valid."""
    if inference == "ensemble":
        masks = unchecked(sample_masks)(model, n_instances=n_instances, generator=generator)
        return ensemble_of(model, inputs, masks, averaging, max_rows)
    with torch.no_grad(), evaluating(model), using(model, inference):
        return torch.cat([_outputs(model, part) for part in split_inputs(inputs, max_rows)])


def split_inputs(inputs: Inputs, max_rows: int) -> list[Inputs]:
    """Cut a batch into parts.

    Args:
        inputs: Tensors with the batch first.
        max_rows: Greatest number of examples in a part.

    Returns:
        The parts, in order.
    """
    starts = range(0, n_examples(inputs), max_rows)
    return [map_inputs(lambda t, i=i: t[i : i + max_rows], inputs) for i in starts]  # type: ignore[misc]


def _outputs(model: nn.Module, inputs: Inputs) -> Tensor:
    outputs, size = call_model(model, inputs), n_examples(inputs)
    if outputs.shape[:1] != (size,):
        raise ValueError(
            "inputs must hold one example along their first dimension for each output, got "
            f"{size} and an output of shape {tuple(outputs.shape)}"
        )
    return outputs


def _average(
    model: nn.Module, inputs: Inputs, masks: Masks, averaging: Averaging, max_rows: int
) -> Tensor:
    size, n = n_examples(inputs), masks.n_instances
    members = max(1, max_rows // size)
    mean = MemberMean(averaging)
    for start in range(0, n, members):
        chosen = masks.gather(torch.arange(start, min(start + members, n)))
        with using(model, chosen, rows=size * chosen.n_instances):
            outputs = _outputs(model, repeat_inputs(inputs, chosen.n_instances))
        for member in outputs.reshape(chosen.n_instances, size, *outputs.shape[1:]):
            mean.add(member)
    return mean.result()
