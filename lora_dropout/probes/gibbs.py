"""The risk of a randomised adapter: masks and Gaussian noise around the trained factors.

This is the predictor of the PAC-Bayes dropout bound (McAllester 2013, arXiv 1307.2118): posterior
= masks at rate p and noise of width s around the trained values, on every entry that the mask
leaves in use; prior = the same around the initial values. Noise on an entry out of use changes
nothing, so it is drawn for all.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lora_bounds import dropout_kl
from lora_bounds.bounds.laws import TensorKind
from lora_bounds.rounding import up
from lora_dropout.adapters.adapt import trainable_parameters
from lora_dropout.adapters.layer import MaskedLayer, need_masked_layers
from lora_dropout.adapters.use_masks import sample_masks, using
from lora_dropout.data import (
    Batch,
    Data,
    Inputs,
    LossFn,
    call_loss,
    call_model,
    evaluating,
    map_inputs,
    model_device,
    n_examples,
)
from lora_dropout.door import (
    Held,
    check_array,
    check_numbers,
    check_positive,
    check_type,
    checked,
    unchecked,
)
from lora_dropout.seeds import Seed, seeded_generator


def _check_widths(name: str, value: Any) -> tuple[float, ...]:
    return tuple(check_positive(name, width) for width in check_array(name, value).tolist())


@dataclass(frozen=True, eq=False)
class GibbsRisk:
    """Losses of random draws of a randomised predictor.

    Attributes:
        widths: The K noise widths s.
        losses: Mean loss over the examples for each draw, shape (K, draws).
    """

    widths: tuple[float, ...]
    losses: NDArray[np.float64]


@checked
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
    return sum(moved for _, moved in _moves(model, initial))


def _moves(model: nn.Module, initial: Mapping[str, Tensor]) -> Iterator[tuple[nn.Parameter, float]]:
    check_type("initial", initial, Mapping, "tensors by name")
    for name, parameter in unchecked(trainable_parameters)(model).items():
        found = getattr(initial.get(name), "shape", None)
        if found != parameter.shape:
            raise ValueError(
                f"initial must hold {name!r} of shape {tuple(parameter.shape)}, got {found}"
            )
        check_numbers(f"initial[{name!r}]", initial[name])
        change = parameter.detach().double() - initial[name].to(parameter.device).double()
        yield parameter, float(change.square().sum())


@checked
def gibbs_kl(
    model: nn.Module,
    inputs: Batch,
    *,
    initial: Mapping[str, Tensor],
    widths: Annotated[Sequence[float], check_array],
) -> NDArray[np.float64]:
    """The divergence of posterior and prior: what each tensor's move costs under its mask law.

    A sum over layers, each with its own law, rate and kinds of tensors (see
    `lora_bounds.bounds.laws.MaskLaw.kl_factor`); what carries no mask (a head, a bias) counts in
    full, and so does a tensor that several modules share.

    Args:
        model: An adapted model, or a PEFT model with masks attached.
        inputs: Examples such as the bound speaks of: law `activation` counts the rows (tokens) of
            one. If they see different numbers of rows in a layer, no number is a limit, and that
            layer counts in full.
        initial: Name -> value before training, as in `trainable_parameters`.
        widths: The K noise widths s, each positive.

    Returns:
        Divergences in nats, rounded up, shape (K,).

    Raises:
        ValueError: If `initial` does not fit the model, or lies infinitely far from it.
    """
    layers, n = need_masked_layers(model), n_examples(inputs)
    uses = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    places: dict[int, tuple[str, TensorKind]] = {}
    for name, layer in layers.items():
        for path, parameter in layer.named_parameters():
            kind = _KINDS.get(path.split(".")[0])
            if kind is not None and uses[id(parameter)] == 1:
                places[id(parameter)] = name, kind
    norms: dict[str, dict[TensorKind, float]] = {name: {} for name in layers}
    free = 0.0
    for parameter, moved in _moves(model, initial):
        if not math.isfinite(moved):
            raise ValueError(f"initial must lie at a finite distance, got {moved} for its square")
        if id(parameter) in places:
            name, kind = places[id(parameter)]
            norms[name][kind] = norms[name].get(kind, 0.0) + moved
        else:
            free += moved
    rows = _rows_of_an_example(model, inputs, n)
    width = np.asarray(widths)
    total = np.asarray(dropout_kl(dropout=0.0, law="none", squared_norm=free, width=width))
    for name, layer in layers.items():
        spec = layer.spec
        total = total + dropout_kl(
            dropout=spec.dropout,
            law=spec.law,
            squared_norm=norms[name],
            width=width,
            rows=rows[name],
        )
    return up(total)


_KINDS: dict[str, TensorKind] = {"lora_A": "A", "lora_B": "B", "lora_E": "E"}


@torch.no_grad()
def _rows_of_an_example(model: nn.Module, inputs: Inputs, n: int) -> dict[str, float]:
    layers = need_masked_layers(model)
    if all(layer.spec.law != "activation" for layer in layers.values()):
        return dict.fromkeys(layers, 1.0)
    device = model_device(model)
    inputs = map_inputs(lambda t: t.to(device), inputs)
    alone = _rows_seen(model, map_inputs(lambda t: t[:1], inputs))
    together = _rows_seen(model, inputs)
    # Rows that belong to no example, such as relative positions, are seen by each of them.
    return {
        name: float(alone[name])
        if alone[name] and together[name] in (alone[name], n * alone[name])
        else np.inf
        for name in layers
    }


def _rows_seen(model: nn.Module, inputs: Inputs) -> Counter[str]:
    # By layer, all its calls in one pass together.
    seen: Counter[str] = Counter()

    def count(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        x = args[0] if args else kwargs["x"]
        assert isinstance(layer, MaskedLayer)
        seen[layer.name] += x.shape[:-1].numel()

    hooks = [
        layer.register_forward_pre_hook(count, with_kwargs=True)
        for layer in need_masked_layers(model).values()
    ]
    try:
        with evaluating(model), using(model, "mean"):
            call_model(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@checked
@torch.no_grad()
def gibbs_risk(
    model: nn.Module,
    data: Data,
    *,
    loss_fn: LossFn,
    widths: Annotated[Sequence[float], _check_widths],
    n_draws: Held = 100,
    seed: Seed = 0,
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
    inputs, targets = data
    scales = tuple(widths)
    device = model_device(model)
    inputs, targets = map_inputs(lambda t: t.to(device), inputs), targets.to(device)
    parameters = unchecked(trainable_parameters)(model)
    trained = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    losses = np.empty((len(scales), n_draws))
    generator = seeded_generator(seed)
    try:
        with evaluating(model):
            for draw in range(n_draws):
                masks = unchecked(sample_masks)(model, generator=generator)
                noise = {
                    name: torch.randn(value.shape, generator=generator, dtype=value.dtype).to(
                        device
                    )
                    for name, value in trained.items()
                }
                for row, width in enumerate(scales):
                    for name, parameter in parameters.items():
                        parameter.copy_(trained[name] + width * noise[name])
                    with using(model, masks):
                        losses[row, draw] = float(
                            call_loss(loss_fn, call_model(model, inputs), targets)
                        )
    finally:
        for name, parameter in parameters.items():
            parameter.copy_(trained[name])
    if not np.isfinite(losses).all():
        bad = losses[~np.isfinite(losses)][0]
        raise ValueError(f"widths must leave the losses finite, got {bad!r} with widths={scales}")
    return GibbsRisk(scales, losses)
