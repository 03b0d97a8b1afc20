"""Loss, accuracy and calibration of an adapted model on a data set."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.checks import check_tensor, short
from lora_dropout.data import Inputs, LossFn, batch_length, call_loss, map_inputs, model_device
from lora_dropout.prediction.averaging import Average, Averaging, check_averaging, task_averaging
from lora_dropout.prediction.calibration import expected_calibration_error
from lora_dropout.prediction.ensemble import Prediction, predict

Data = tuple[Inputs, Tensor]

_IGNORED = -100  # the label that torch's cross-entropy leaves out


def evaluate(
    model: nn.Module,
    data: Data,
    *,
    inference: Prediction = "ensemble",
    n_instances: int = 4,
    generator: torch.Generator | None = None,
    loss_fn: LossFn = F.cross_entropy,
    average: Average | Averaging | None = None,
) -> dict[str, float]:
    """Measure a model.

    Args:
        model: An adapted model.
        data: (inputs, targets) of n examples; class targets of -100 are left out.
        inference: How to predict (see `predict`).
        n_instances: Ensemble size.
        generator: CPU generator of the ensemble's masks; None is torch's global one.
        loss_fn: (outputs, targets) -> scalar mean.
        average: What an ensemble averages (see `ensemble_predict`). None is what `loss_fn` says,
            if it is torch's: cross-entropy means probabilities over axis 1, binary cross-entropy
            of logits means sigmoids, squared error and its like mean outputs; else what the model
            states; else probabilities over the last axis for class targets, and outputs for others.

    Returns:
        `loss` (for cross-entropy in nats) and, where the targets are classes and the outputs their
        scores, `accuracy` and `ece`, both in [0, 1].

    Raises:
        ValueError: If the data do not fit the model, or outputs for class targets are NaN.
    """
    inputs, targets = check_data("data", data)
    device = model_device(model)
    inputs, targets = map_inputs(lambda t: t.to(device), inputs), targets.to(device)
    task = task_averaging(model, loss_fn, targets)
    averaging = task if average is None else check_averaging(average, model)
    outputs = predict(
        model,
        inputs,
        inference=inference,
        n_instances=n_instances,
        generator=generator,
        average=averaging,
    )
    result = {"loss": float(call_loss(loss_fn, outputs, targets))}
    axis = averaging.axis if averaging.kind == "probabilities" else task.axis
    if "probabilities" in (task.kind, averaging.kind) and _are_classes(targets, outputs, axis):
        if outputs.isnan().any():
            raise ValueError(f"data must give numbers, got NaN in outputs={short(outputs)}")
        outputs = outputs.movedim(axis, -1)
        probabilities = outputs.float().softmax(dim=-1).flatten(0, -2)
        labels = targets.flatten()
        counted = labels != _IGNORED
        probabilities, labels = probabilities[counted], labels[counted]
        result["accuracy"] = float((probabilities.argmax(dim=-1) == labels).double().mean())
        result["ece"] = expected_calibration_error(probabilities, labels)
    return result


def _are_classes(targets: Tensor, outputs: Tensor, axis: int) -> bool:
    # Integers, one for each row of scores along the axis.
    scores = not targets.is_floating_point() and -outputs.dim() <= axis < outputs.dim()
    return scores and outputs.movedim(axis, -1).shape[:-1] == targets.shape


def check_data(name: str, data: Data) -> Data:
    """Return `data` if it is a pair of inputs and targets of one length.

    Args:
        name: Name of the argument, for messages.
        data: (inputs, targets).

    Returns:
        The pair.

    Raises:
        TypeError: If it is no pair, or a part of it no tensor; the message says how to make one.
        ValueError: If it is empty or the lengths differ.
    """
    if not (isinstance(data, tuple) and len(data) == 2):
        of = f" of {len(data)}" if isinstance(data, tuple) else ""
        raise TypeError(f"{name} must be a pair (inputs, targets), got {type(data).__name__}{of}")
    inputs, targets = data
    for place, part in enumerate(data):
        parts = part if isinstance(part, Mapping) and place == 0 else {"": part}
        for key, values in parts.items():
            if not isinstance(values, Tensor):
                where = f"{name}[{place}]" + (f"[{key!r}]" if key else "")
                kind = f"{type(values).__module__}.{type(values).__name__}"
                raise TypeError(
                    f"{where}, the {'targets' if place else 'inputs'}, must be a tensor, got "
                    f"{where}={short(values)} of type {kind}: {_remedy(values)}"
                )
    size = batch_length(inputs, name=name)
    check_tensor(f"targets of {name}", targets)
    if targets.dim() == 0 or targets.is_complex():
        raise ValueError(f"{name} must have a target for each input, got {short(targets)}")
    if len(targets) != size:
        raise ValueError(f"{name} must have as many targets as inputs, got {len(targets)}, {size}")
    return inputs, targets


def _remedy(values: Any) -> str:
    if type(values).__module__.startswith("pandas"):
        return "torch.as_tensor(values.to_numpy()) makes one"
    if type(values).__module__ == "numpy":
        return "torch.from_numpy makes one"
    if isinstance(values, list | tuple):
        return "torch.tensor makes one of numbers, torch.stack of tensors"
    return "torch.as_tensor makes one"
