"""What cannot be trained as replicas, said before any work is done."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lora_dropout.data import Inputs, LossFn, call_loss, call_model, map_inputs
from lora_dropout.replicas.stack import Stack
from lora_dropout.training.fit_config import FitConfig

_CHECKED = 64
_IGNORED = -100


def check_config(config: FitConfig) -> None:
    """Check that the settings can be had.

    Args:
        config: Settings.

    Raises:
        ValueError: If one cannot; the message names it with its value.
    """
    refused = {
        "patience": (config.patience, None),
        "rank_budget": (config.rank_budget, None),
        "precision": (config.precision, "float32"),
    }
    for name, (value, needed) in refused.items():
        if value != needed:
            raise ValueError(
                f"{name} must be {needed!r} for replicas (use fit), got {name}={value!r}"
            )


def check_batchable(model: nn.Module) -> None:
    """Check that replicas of a model do not disturb each other in training mode.

    Args:
        model: An adapted model.

    Raises:
        ValueError: If it draws random numbers of its own, or mixes the examples of a batch.
    """
    for name, module in model.named_modules():
        if isinstance(module, _DropoutNd) and module.p > 0:
            raise ValueError(
                f"model must draw no random numbers of its own, which no seed names; "
                f"module {name!r} is {module}: set its p to 0"
            )
        if isinstance(module, _BatchNorm):
            raise ValueError(f"model must treat examples apart, module {name!r} is {module}")


@torch.no_grad()
def check_loss(stack: Stack, inputs: Inputs, targets: Tensor, loss_fn: LossFn) -> None:
    """Check that a loss is a mean over examples.

    Args:
        stack: The model.
        inputs: Training inputs.
        targets: Training targets.
        loss_fn: The loss.

    Raises:
        ValueError: If it is not, on the first 64 examples.
    """
    if (
        loss_fn is F.cross_entropy
        and not targets.is_floating_point()
        and (targets == _IGNORED).any()
    ):
        raise ValueError(
            "train must have no label -100 among its targets, got "
            f"{int((targets == _IGNORED).sum())} of them: a mean over the labels left is none over "
            "examples"
        )
    stack.model.eval()
    outputs = call_model(stack.model, map_inputs(lambda t: t[:_CHECKED], inputs))
    targets = targets[: len(outputs)]
    single = [call_loss(loss_fn, o[None], t[None]) for o, t in zip(outputs, targets, strict=True)]
    mean, whole = torch.stack(single).mean(), call_loss(loss_fn, outputs, targets)
    if mean.isfinite() and not torch.isclose(whole, mean, rtol=1e-3, atol=1e-6):
        raise ValueError(
            f"loss_fn must be the mean over examples of their losses, got {float(whole)} for the "
            f"first {len(outputs)} examples together and a mean of {float(mean)} for each alone"
        )
