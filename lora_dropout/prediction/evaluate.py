"""Loss, accuracy and calibration of an adapted model on a data set."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.data import Data, LossFn, call_loss, map_inputs, model_device
from lora_dropout.door import MOST, check_count, checked, short
from lora_dropout.prediction.averaging import Average, Averaging, check_averaging, task_averaging
from lora_dropout.prediction.calibration import expected_calibration_error
from lora_dropout.prediction.ensemble import Prediction, outputs_of

_IGNORED = -100  # the label that torch's cross-entropy leaves out


@checked
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
    if inference == "ensemble":
        check_count("n_instances", n_instances, maximum=MOST)
    inputs, targets = data
    device = model_device(model)
    inputs, targets = map_inputs(lambda t: t.to(device), inputs), targets.to(device)
    task = task_averaging(model, loss_fn, targets)
    averaging = task if average is None else check_averaging(average, model)
    outputs = outputs_of(
        model,
        inputs,
        inference=inference,
        n_instances=n_instances,
        generator=generator,
        averaging=averaging,
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
