"""Batches: a tensor, or a mapping of tensors that a model takes by keyword."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora_dropout.checks import check_callable, check_tensor, check_type, short

Inputs = Tensor | Mapping[str, Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]

# What torch raises for shapes, types and values that do not fit (asserted: by losses under vmap).
UNFIT = (RuntimeError, TypeError, IndexError, KeyError, AttributeError, AssertionError)


def call_model(model: Callable[..., Any], inputs: Inputs) -> Tensor:
    """Run a model.

    Args:
        model: A module, or a function; it returns a tensor, or an object with a `logits` tensor
            (as `transformers` does).
        inputs: A tensor, passed alone, or a mapping, passed by keyword.

    Returns:
        The output tensor, batch first.

    Raises:
        TypeError: If the model returns neither.
        ValueError: If the model cannot take these inputs: their shapes, types or names.
    """
    try:
        output = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    except UNFIT as error:
        if _is_no_misfit(error):
            raise
        raise ValueError(
            f"inputs must fit the model, got inputs={_shown(inputs)}: {_first_line(error)}"
        ) from error
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        raise TypeError(f"model must return a tensor or have .logits, got {type(output).__name__}")
    return output


def call_loss(loss_fn: LossFn, outputs: Tensor, targets: Tensor) -> Tensor:
    """Evaluate a loss.

    Args:
        loss_fn: (outputs, targets) -> scalar.
        outputs: Of a model.
        targets: Of its inputs.

    Returns:
        Scalar tensor.

    Raises:
        TypeError: If `loss_fn` is no function, or does not return a tensor of one number.
        ValueError: If the loss cannot take these outputs and targets.
    """
    check_callable("loss_fn", loss_fn)
    try:
        loss = loss_fn(outputs, targets)
    except UNFIT as error:
        if _is_no_misfit(error):
            raise
        raise ValueError(
            "targets must fit loss_fn and the model's outputs, got "
            f"targets={short(targets)}, outputs={short(outputs)}: {_first_line(error)}"
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TypeError(f"loss_fn must return a tensor of one number, got {short(loss)}")
    return loss


def _is_no_misfit(error: Exception) -> bool:
    # Out of memory, a failing device, a merged layer: kinds of their own.
    return isinstance(error, RuntimeError) and type(error) not in (
        RuntimeError,
        NotImplementedError,
    )


def _shown(inputs: Inputs) -> str:
    if isinstance(inputs, Mapping):
        return ", ".join(f"{key}: {short(tensor)}" for key, tensor in [*inputs.items()][:3])
    return short(inputs)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def batch_length(inputs: Inputs, *, name: str = "inputs") -> int:
    """Number of examples.

    Args:
        inputs: Tensors with the batch first.
        name: Name of the argument, for messages.

    Returns:
        The common length of all tensors, at least 1.

    Raises:
        TypeError: If one is no dense tensor, or has no name.
        ValueError: If there are no examples or the lengths differ.
    """
    tensors = inputs if isinstance(inputs, Mapping) else {name: inputs}
    for key, tensor in tensors.items():
        if not isinstance(key, str) or not tensors:
            raise TypeError(f"{name} must be tensors by name, got {name}={short(inputs)}")
        check_tensor(name if tensor is inputs else f"{name}[{key!r}]", tensor)
    lengths = {key: len(tensor) if tensor.dim() else 0 for key, tensor in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{name} must have one batch size, got {lengths}")
    length = next(iter(lengths.values()), 0)
    if length == 0:
        raise ValueError(f"{name} must not be empty, got batch sizes {lengths}")
    return length


def map_inputs(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Apply a function to each tensor.

    Args:
        function: Tensor -> tensor.
        inputs: A tensor or a mapping of tensors.

    Returns:
        The same structure.
    """
    if isinstance(inputs, Mapping):
        return {key: function(tensor) for key, tensor in inputs.items()}
    return function(inputs)


def repeat_inputs(inputs: Inputs, times: int) -> Inputs:
    """Stack copies of a batch, copy after copy.

    Args:
        inputs: Tensors with the batch first.
        times: Number of copies.

    Returns:
        Tensors with `times` times the batch.
    """
    return map_inputs(lambda tensor: tensor.repeat(times, *[1] * (tensor.dim() - 1)), inputs)


def model_device(model: nn.Module) -> torch.device:
    """The device a model lives on.

    Args:
        model: A module with parameters.

    Returns:
        The device.

    Raises:
        ValueError: If its parameters are on several devices.
    """
    check_type("model", model, nn.Module, "a torch module")
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1:
        places = sorted(str(device) for device in devices)
        raise ValueError(f"model must live on one device, got parameters on {places}")
    return devices.pop()
