"""Batches: a tensor, or a mapping of tensors that a model takes by keyword."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lora_dropout.door import check_callable, check_tensor, short

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
    try:
        loss = loss_fn(outputs, targets)
    except UNFIT as error:
        check_callable("loss_fn", loss_fn)
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


def check_inputs(name: str, inputs: Inputs) -> Inputs:
    """Return `inputs` if they are dense tensors of one length that is not 0."""
    batch_length(inputs, name=name)
    return inputs


def n_examples(inputs: Inputs) -> int:
    """Number of examples of inputs that are known to be such."""
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)


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
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1:
        places = sorted(str(device) for device in devices)
        raise ValueError(f"model must live on one device, got parameters on {places}")
    return devices.pop()


def check_data(name: str, data: tuple[Inputs, Tensor]) -> tuple[Inputs, Tensor]:
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


Data = Annotated[tuple[Inputs, Tensor], check_data]
Batch = Annotated[Inputs, check_inputs]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode; each module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
