"""The risk of a randomised adapter: masks and Gaussian noise around the trained factors.

This is the predictor of the PAC-Bayes dropout bound (McAllester 2013, arXiv 1307.2118): posterior
= masks at rate p and noise of width s on the kept entries of A and B around their trained values;
prior = the same around their initial values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lora_dropout.batching import LossFn, call_loss, call_model, map_inputs, model_device
from lora_dropout.checks import (
    MOST,
    check_array,
    check_count,
    check_numbers,
    check_positive,
    check_type,
)
from lora_dropout.evaluation import Data, check_data
from lora_dropout.inject import trainable_parameters
from lora_dropout.model_masks import sample_masks, use_masks
from lora_dropout.seeds import check_seed, seeded_generator


@dataclass(frozen=True, eq=False)
class GibbsRisk:
    """Losses of random draws of a randomised predictor.

    Attributes:
        widths: The K noise widths s.
        losses: Mean loss over the examples for each draw, shape (K, draws).
    """

    widths: tuple[float, ...]
    losses: NDArray[np.float64]


def squared_distance(model: nn.Module, initial: Mapping[str, Tensor]) -> float:
    """How far training moved the parameters: ||A - A0||^2 + ||B - B0||^2 over all layers.

    Args:
        model: An adapted model.
        initial: Name -> value before training, as in `trainable_parameters`.

    Returns:
        The sum of squares.

    Raises:
        ValueError: If a parameter is missing in `initial`, or has another shape there.
    """
    check_type("initial", initial, Mapping, "tensors by name")
    total = 0.0
    for name, parameter in trainable_parameters(model).items():
        found = getattr(initial.get(name), "shape", None)
        if found != parameter.shape:
            raise ValueError(
                f"initial must hold {name!r} of shape {tuple(parameter.shape)}, got {found}"
            )
        check_numbers(f"initial[{name!r}]", initial[name])
        change = parameter.detach().double() - initial[name].to(parameter.device).double()
        total += float(change.square().sum())
    return total


@torch.no_grad()
def gibbs_risk(
    model: nn.Module,
    data: Data,
    *,
    loss_fn: LossFn,
    widths: Sequence[float],
    n_draws: int = 100,
    seed: int = 0,
) -> GibbsRisk:
    """Sample the loss of the noisy masked model.

    Args:
        model: An adapted model; left as it was, in eval mode while measured.
        data: (inputs, targets) of n examples.
        loss_fn: (outputs, targets) -> scalar, a mean over examples.
        widths: Noise widths s, each positive.
        n_draws: Draws of masks and noise for each width.
        seed: Seed of masks and noise; each width sees the same masks and unit noise, so that
            the widths are compared on common random numbers.

    Returns:
        The mean loss of each draw. Draws are independent within a width.

    Raises:
        ValueError: If a loss is not finite.
    """
    inputs, targets = check_data("data", data)
    check_count("n_draws", n_draws, maximum=MOST)
    check_seed("seed", seed)
    scales = tuple(
        check_positive("widths", width) for width in check_array("widths", widths).tolist()
    )
    device = model_device(model)
    inputs, targets = map_inputs(lambda t: t.to(device), inputs), targets.to(device)
    parameters = trainable_parameters(model)
    trained = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    losses = np.empty((len(scales), n_draws))
    training = [module for module in model.modules() if module.training]
    generator = seeded_generator(seed)
    model.eval()
    try:
        for draw in range(n_draws):
            masks = sample_masks(model, generator=generator)
            noise = {
                name: torch.randn(value.shape, generator=generator, dtype=value.dtype).to(device)
                for name, value in trained.items()
            }
            for row, width in enumerate(scales):
                for name, parameter in parameters.items():
                    parameter.copy_(trained[name] + width * noise[name])
                with use_masks(model, masks):
                    losses[row, draw] = float(
                        call_loss(loss_fn, call_model(model, inputs), targets)
                    )
    finally:
        for name, parameter in parameters.items():
            parameter.copy_(trained[name])
        for module in training:
            module.training = True
    if not np.isfinite(losses).all():
        bad = losses[~np.isfinite(losses)][0]
        raise ValueError(f"widths must leave the losses finite, got {bad!r} with widths={scales}")
    return GibbsRisk(scales, losses)
