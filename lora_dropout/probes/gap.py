"""The empirical generalization gap of one trained model, with an interval for the true one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn
from torch.nn import functional as F

from lora_dropout.data import Data, LossFn, map_inputs, model_device
from lora_dropout.door import MOST, Confidence, check_count, checked, unchecked
from lora_dropout.prediction.averaging import task_averaging
from lora_dropout.prediction.ensemble import Prediction, outputs_of
from lora_dropout.probes.example_losses import ZeroOneLoss, example_losses, sure_bound
from lora_dropout.probes.intervals import (
    Array,
    Interval,
    between,
    clopper_pearson_interval,
    empirical_bernstein_interval,
    t_interval,
)
from lora_dropout.seeds import Seed, seeded_generator

GapMethod = Literal["clopper_pearson", "empirical_bernstein", "t"]


@dataclass(frozen=True, eq=False)
class Gap:
    """Held-out minus training loss.

    The interval is for R - Rhat of this very model: R varies around the held-out mean, while the
    training loss Rhat is known. It says nothing of models trained on other samples.

    Attributes:
        gap: held_out - train.
        interval: For the true gap R - Rhat.
        train: Mean training loss Rhat.
        held_out: Mean held-out loss.
        risk: Interval for R, the loss on the population.
        method: `clopper_pearson` (exact, for the 0-1 loss), `empirical_bernstein` (at least the
            confidence at every n, for bounded losses) or `t` (asymptotic, for all others).
        train_losses: Of the single examples, shape (n,).
        held_out_losses: Likewise, shape (m,).
        inference: How the model predicted; an ensemble's masks were drawn once, and the figures are
            of that ensemble.
    """

    gap: float
    interval: Interval
    train: float
    held_out: float
    risk: Interval
    method: GapMethod
    train_losses: Array
    held_out_losses: Array
    inference: Prediction


@checked
def generalization_gap(
    model: nn.Module,
    train: Data,
    held_out: Data,
    *,
    loss_fn: LossFn = F.cross_entropy,
    inference: Prediction = "ensemble",
    n_instances: int = 8,
    seed: Seed = 0,
    confidence: Confidence = 0.95,
) -> Gap:
    """Measure the gap between held-out and training loss.

    Args:
        model: A trained adapted model.
        train: What it was trained on.
        held_out: Independent examples that played no part in training or selection, 2 or more.
        loss_fn: (outputs, targets) -> scalar, a mean over examples. Its `bound`, if it has one,
            chooses the interval.
        inference: `ensemble`, `mean` or `raw` (see `predict`).
        n_instances: Ensemble size.
        seed: Seed of the ensemble's masks, the same for both sets.
        confidence: Of the interval.

    Returns:
        The gap.

    Raises:
        ValueError: If an example's loss is not finite.
    """
    if inference == "ensemble":
        check_count("n_instances", n_instances, maximum=MOST)

    def losses_of(name: str, data: Data) -> Array:
        inputs, targets = data
        device = model_device(model)
        targets = targets.to(device)
        outputs = outputs_of(
            model,
            map_inputs(lambda t: t.to(device), inputs),
            inference=inference,
            n_instances=n_instances,
            generator=seeded_generator(seed),
            averaging=task_averaging(model, loss_fn, targets),
        )
        losses = unchecked(example_losses)(loss_fn, outputs, targets).double().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            raise ValueError(
                f"{name} must have finite losses, got {losses[bad[0]]} for example {bad[0]}"
                f" of {name}, and {len(bad)} such in all"
            )
        return losses

    seen, fresh = losses_of("train", train), losses_of("held_out", held_out)
    risk, method = _risk(fresh, loss_fn, confidence)
    mean = float(seen.mean())
    return Gap(
        gap=float(fresh.mean()) - mean,
        interval=risk.shift(-mean),
        train=mean,
        held_out=float(fresh.mean()),
        risk=risk,
        method=method,
        train_losses=seen,
        held_out_losses=fresh,
        inference=inference,
    )


def _risk(losses: Array, loss_fn: LossFn, confidence: float) -> tuple[Interval, GapMethod]:
    if isinstance(loss_fn, ZeroOneLoss):
        errors = int(np.round(losses.sum()))
        return clopper_pearson_interval(errors, len(losses), confidence=confidence), (
            "clopper_pearson"
        )
    bound = unchecked(sure_bound)(loss_fn)
    if bound is None:
        return t_interval(losses, confidence=confidence), "t"
    found = empirical_bernstein_interval(losses, span=bound, confidence=confidence)
    low, high = max(found.low, 0.0), min(found.high, bound)
    return between(low, high, confidence), "empirical_bernstein"
