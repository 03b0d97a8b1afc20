"""Settings of a training run: one frozen description, checked when made."""

import math
from typing import Literal

import attrs

from lora_dropout.adapters.rank_budget import RankBudget
from lora_dropout.door import Count, Natural, NonNegative, Positive, by_domain
from lora_dropout.prediction.ensemble import Prediction
from lora_dropout.seeds import Seed
from lora_dropout.training.objective import InstanceMode

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bf16"]


@attrs.frozen(kw_only=True, slots=False, field_transformer=by_domain)
class FitConfig:
    """Settings of a training run.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Examples a step; the last batch of an epoch may be smaller.
        learning_rate: Peak rate of AdamW.
        weight_decay: AdamW's decoupled decay of adapter factors and saved modules.
        schedule: Learning rate after warm-up: `constant`, or falling to 0 `linear` or `cosine`.
        warmup_steps: Steps of linear rise.
        max_grad_norm: Gradients are clipped to this 2-norm; None clips nothing.
        n_instances: Mask draws N in the loss (Eq. 7). Without masks (dropout 0, or law `none`)
            all instances agree and one is computed.
        mode: How the N-instance loss is computed (see `instance_loss`).
        inference: How history and early stopping predict (see `predict`).
        eval_instances: Ensemble size there.
        precision: `float32` (the model's own) or `bf16` (autocast).
        patience: Stop after this many epochs without a lower held-out loss, and go back to the
            best weights (with `rank_budget` these may be from before the pruning); None trains to
            the end and keeps the last weights.
        rank_budget: AdaLoRA's budget schedule; None prunes nothing.
        orthogonality: Weight of AdaLoRA's orthogonality term.
        regularization: Weight lambda of the explicit penalty lambda q ||theta - theta_0||^2 that
            Eq. 11 adds to the loss: theta the adapter factors, theta_0 those of the run's start, q
            the probability that the mask drops an entry. The paper trains without it (0).
        evaluate_every: Epochs between two records of the history (the last epoch has one too);
            early stopping sees these alone.
        checkpoint_every: Epochs between two checkpoints.
        seed: Seed of data order and masks. Evaluation has masks of its own, the same each time.
    """

    epochs: Count = 10
    batch_size: Count = 32
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    schedule: Schedule = "linear"
    warmup_steps: Natural = 0
    max_grad_norm: Positive | None = 1.0
    n_instances: Count = 4
    mode: InstanceMode = "batched"
    inference: Prediction = "ensemble"
    eval_instances: Count = 8
    precision: Precision = "float32"
    patience: Count | None = None
    rank_budget: RankBudget | None = None
    orthogonality: NonNegative = 0.1
    regularization: NonNegative = 0.0
    evaluate_every: Count = 1
    checkpoint_every: Count = 1
    seed: Seed = 0

    def rate_factor(self, step: int, *, total_steps: int) -> float:
        """The learning rate as a multiple of the peak rate.

        Args:
            step: Number of optimiser steps done, from 0.
            total_steps: Steps of the whole run.

        Returns:
            The factor, in [0, 1].
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = max(total_steps - self.warmup_steps, 1)
        progress = min((step - self.warmup_steps) / left, 1.0)
        if self.schedule == "linear":
            return 1.0 - progress
        if self.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        return 1.0
