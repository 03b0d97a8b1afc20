"""Batches: a tensor, or a mapping of tensors that a model takes by keyword."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | Mapping[str, Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]


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
    """
    output = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        raise TypeError(f"model must return a tensor or have .logits, got {type(output).__name__}")
    return output


def batch_length(inputs: Inputs, *, name: str = "inputs") -> int:
    """Number of examples.

    Args:
        inputs: Tensors with the batch first.
        name: Name of the argument, for messages.

    Returns:
        The common length of all tensors, at least 1.

    Raises:
        ValueError: If there are no examples or the lengths differ.
    """
    tensors = inputs if isinstance(inputs, Mapping) else {name: inputs}
    lengths = {key: len(tensor) if tensor.dim() else 0 for key, tensor in tensors.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{name} must have one batch size, got {lengths}")
    length = next(iter(lengths.values()))
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
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1:
        places = sorted(str(device) for device in devices)
        raise ValueError(f"model must live on one device, got parameters on {places}")
    return devices.pop()
