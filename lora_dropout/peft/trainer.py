"""The N-instance loss and the ensemble inside transformers' `Trainer`."""

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, get_args

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import Trainer

from lora_dropout.adapters.use_masks import Masks, sample_masks, use_masks
from lora_dropout.data import evaluating
from lora_dropout.door import check_choice, check_count
from lora_dropout.masks.bits import name_key
from lora_dropout.peft.attach import attached_config
from lora_dropout.peft.ensemble_output import MembersLoss, ensemble_forward
from lora_dropout.peft.objective_check import check_objective, check_rows
from lora_dropout.peft.rank_allocation import allocate_ranks
from lora_dropout.prediction.averaging import (
    OUTPUTS,
    Average,
    Averaging,
    check_averaging,
    field_averaging,
)
from lora_dropout.prediction.ensemble import Prediction
from lora_dropout.seeds import derived_generator
from lora_dropout.training.objective import InstanceMode


class LoRADropoutMixin:
    """Trains by the N-instance loss (arXiv 2404.09610 v1, Eq. 7), predicts by the ensemble (Eq. 8).

    Put it before any `Trainer` class whose loss comes of `compute_loss`: `class MySFT(
    LoRADropoutMixin, SFTTrainer)`. `loop` suits each of them, the other modes not each loss (see
    `mode`). The model must have masks (`attach`). Masks are drawn from `args.seed`, the process's
    rank, the step and the micro-step: ranks have independent masks, a run can be repeated, and a
    run resumed from a checkpoint goes on with the masks it would have had, since the step is all
    there is to restore.

    Under `loop` each instance has a backward pass of its own, so memory is that of one instance.
    With gradient checkpointing every recomputation meets its masks, in all modes. Losses are scaled
    as the Trainer scales them, in gradient accumulation too. The ranks of PEFT's AdaLoRA fall as
    its `AdaLoraConfig` says; a callback of your own that calls `update_and_allocate` counts no
    gradient a second time.

    Args:
        *args: For the Trainer.
        mode: `loop` (N passes; suits any model), `batched` (one pass over N copies of the batch)
            or `grouped` (one pass, the batch dealt out among the N masks), see `instance_loss`.
            The last two place the batch in each layer's input by a probe, once for inputs of a
            kind; a model in which examples meet, or whose rows cannot be placed, is refused with
            an error and trains by `loop`. So is a loss in which examples meet (pairs, in-batch
            negatives, halves of a batch), found by a check at steps 0, 1, 2, 4, 8 and so on; a
            mean (or a sum divided by `num_items_in_batch`) over examples or tokens is fine.
        inference: How to evaluate and predict: `ensemble`, or mask-free `mean` or `raw`.
        eval_instances: Members of the ensemble; the same networks in every evaluation and on
            every rank. None is the `n_instances` of `attach`.
        average: What the ensemble averages (see `ensemble_predict`). None is what the model states
            by its head and `config.problem_type`, and else its outputs.
        **kwargs: For the Trainer.

    Raises:
        ValueError: If a setting or the model does not fit.
    """

    def __init__(
        self,
        *args: Any,
        mode: InstanceMode = "loop",
        inference: Prediction = "ensemble",
        eval_instances: int | None = None,
        average: Average | Averaging | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_choice("mode", mode, get_args(InstanceMode))
        check_choice("inference", inference, get_args(Prediction))
        config = attached_config(self.model)
        masked = config.mask != "none" and config.dropout > 0
        members = config.n_instances if eval_instances is None else eval_instances
        check_averaging(average, self.model)
        self.mode, self.inference, self.average = mode, inference, average
        self._averaged: Averaging | None = None  # so far
        self._members_loss = False  # in this evaluation, the mean of the members' own
        # Identical instances: one of them is the whole sum.
        self.n_instances = config.n_instances if masked else 1
        self.eval_instances = check_count("eval_instances", members) if masked else 1
        self._share = 1.0  # of an instance in the loss
        self._copies = 1  # of the batch in a pass
        self._micro_step = (-1, 0)
        self._scaling_known = False
        self._next_check = 0  # step at which the loss is looked at again: it may change
        self._check_parallelism()
        allocate_ranks(self)

    # What the mixin uses of the Trainer it is put before.
    model: nn.Module
    args: Any
    state: Any
    accelerator: Any
    model_accepts_loss_kwargs: bool
    _prepare_inputs: Any

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """One forward and backward pass, or N with `loop`.

        Args:
            model: The model, wrapped as the Trainer wraps it.
            inputs: A batch.
            num_items_in_batch: Labels in the whole accumulated batch, where the Trainer counts.

        Returns:
            The loss (Eq. 7), detached.
        """
        step = super().training_step  # type: ignore[misc]
        if not self._scales_by(model, inputs, num_items_in_batch):
            num_items_in_batch = None
        if self.mode != "loop" and self.n_instances > 1:
            if self.mode == "grouped":
                check_rows(inputs, _batch_size(inputs), self.args.per_device_train_batch_size)
            if self.state.global_step >= self._next_check:
                check_objective(self, model, inputs, num_items_in_batch)
                self._next_check = max(1, 2 * self.state.global_step)
        masks = self._next_masks()
        if self.mode != "loop" or self.n_instances == 1:
            self._copies = self.n_instances if self.mode == "batched" else 1
            rows = _batch_size(inputs) * self._copies if self.n_instances > 1 else None
            try:
                # The backward pass, inside, recomputes checkpointed activations.
                with use_masks(self.model, masks, rows=rows):
                    return step(model, inputs, num_items_in_batch)
            finally:
                self._copies = 1
        losses = []
        self._share = 1.0 / self.n_instances
        try:
            for index in range(self.n_instances):
                last = index == self.n_instances - 1
                # Ranks exchange gradients once, after the last instance.
                sync = nullcontext() if last else self.accelerator.no_sync(model)
                with sync, use_masks(self.model, masks.select(index)):
                    losses.append(step(model, dict(inputs), num_items_in_batch))
        finally:
            self._share = 1.0
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The Trainer's loss of the instances in this pass.

        Args:
            model: The model.
            inputs: A batch.
            return_outputs: Whether to return the outputs too.
            num_items_in_batch: Labels in the whole accumulated batch.
            **kwargs: For the Trainer.

        Returns:
            The loss, or (loss, outputs).
        """
        if self._copies > 1:
            inputs = _repeat(inputs, self._copies)
            if num_items_in_batch is not None:
                num_items_in_batch = num_items_in_batch * self._copies
        result = super().compute_loss(  # type: ignore[misc]
            model, inputs, return_outputs, num_items_in_batch=num_items_in_batch, **kwargs
        )
        if self._share == 1.0:
            return result
        return (result[0] * self._share, result[1]) if return_outputs else result * self._share

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor | None, Any, Any]:
        """Predict a batch by the ensemble, one member a pass, or mask-free.

        Args:
            model: The model.
            inputs: A batch.
            prediction_loss_only: Whether only the loss is wanted.
            ignore_keys: Outputs to leave out.
            **kwargs: For the Trainer.

        Returns:
            (loss, logits, labels). Scores are averaged as `average` says, other outputs plainly.
            The loss is the Trainer's own, an overridden `compute_loss` included, of a model whose
            forward pass returns the averaged outputs. The loss in these is the head's own of them;
            where a head makes it of more than its outputs (detection, routers), it is the mean of
            the members' losses, which for a convex loss is no smaller.
        """
        predict = super().prediction_step  # type: ignore[misc]
        if self.inference != "ensemble":
            with use_masks(self.model, self.inference):
                return predict(model, inputs, prediction_loss_only, ignore_keys, **kwargs)
        generator = derived_generator(self.args.seed, "evaluation")
        masks = sample_masks(self.model, n_instances=self.eval_instances, generator=generator)
        ignored = ignore_keys
        if ignored is None:
            config = getattr(self.model, "config", None)
            ignored = getattr(config, "keys_to_ignore_at_inference", [])

        def averaging(name: str) -> Averaging:
            rule = field_averaging(name, self.average, self.model)
            if rule is None:
                self._warn_of_unstated()
                rule = OUTPUTS
            if name != "logits":
                return rule
            if self._averaged not in (None, rule):
                warnings.warn(
                    f"the ensemble averaged {self._averaged.kind} before and averages {rule.kind} "
                    "now: transformers takes an unstated problem from labels. State "
                    "config.problem_type, or average",
                    stacklevel=2,
                )
            self._averaged = rule
            return rule

        with ensemble_forward(self.model, masks, averaging, ignored):
            loss, logits, labels = predict(
                model, inputs, prediction_loss_only, ignore_keys, **kwargs
            )
        if isinstance(loss, MembersLoss):
            self._members_loss, loss = True, loss.as_subclass(Tensor)
        return loss, logits, labels

    def _warn_of_unstated(self) -> None:
        model: Any = self.model
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        if self._averaged is None and hasattr(model, "config"):
            warnings.warn(
                f"the ensemble averages the logits of {type(model).__name__} as they are: what "
                "they mean is not known here. State average='probabilities', 'sigmoids' or "
                "'outputs'",
                stacklevel=3,
            )

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loop.

        Args:
            *args: For the Trainer.
            **kwargs: For the Trainer.

        Returns:
            Its output. Where a loss was the mean of the members' own (see `prediction_step`), the
            metrics hold it a second time under the name `PREFIX_loss_of_members`.
        """
        self._members_loss = False
        output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
        for name in [name for name in output.metrics if name.endswith("_loss")]:
            if self._members_loss:
                output.metrics[f"{name}_of_members"] = output.metrics[name]
        return output

    @torch.no_grad()
    def _scales_by(self, model: nn.Module, inputs: Mapping[str, Any], items: Any) -> bool:
        """Returns whether the model divides its loss by `items`; finds out once.

        transformers believes it of every model whose forward takes `**kwargs`. BERT's classifiers
        take and ignore them: accumulated over k batches, their gradient would be k times too large.
        """
        parts = self.args.gradient_accumulation_steps * self.args.world_size
        if self._scaling_known or items is None or parts == 1 or self._own_loss():
            return items is not None
        self._scaling_known = True
        if not self.model_accepts_loss_kwargs:
            return True
        prepared = self._prepare_inputs(inputs)
        # Without dropout, so that both passes see the same network.
        with evaluating(model), use_masks(self.model, "mean"):
            once, twice = (model(**prepared, num_items_in_batch=k * items)["loss"] for k in (1, 2))
        self.model_accepts_loss_kwargs = not torch.equal(once, twice)
        return self.model_accepts_loss_kwargs

    def _own_loss(self) -> bool:
        return any(getattr(self, name, None) for name in ("compute_loss_func", "label_smoother"))

    def _next_masks(self) -> Masks:
        step = self.state.global_step
        micro = self._micro_step[1] + 1 if self._micro_step[0] == step else 0
        self._micro_step = (step, micro)
        seeds = step_seeds(
            self.n_instances,
            seed=self.args.seed,
            rank=self.args.process_index,
            step=step,
            micro_step=micro,
        )
        return sample_masks(self.model, seeds=seeds)

    def _check_parallelism(self) -> None:
        if self.args.n_gpu > 1:
            raise ValueError(
                f"masks do not go with torch.nn.DataParallel over {self.args.n_gpu} GPUs: start "
                "one process a GPU by torchrun or accelerate launch, or show one GPU to it"
            )
        kind = self.accelerator.distributed_type
        if kind == DistributedType.DEEPSPEED and self.mode == "loop" and self.n_instances > 1:
            raise ValueError(
                "mode must be 'batched' or 'grouped' under DeepSpeed, which steps after each "
                "backward pass, got mode='loop'"
            )
        for name in ("get_tp_size", "get_cp_size", "get_sp_size"):
            if getattr(self, name, lambda: 1)() > 1:
                raise ValueError(
                    "masks need every rank to have a batch of its own, got tensor, context or "
                    "sequence parallelism: use data parallelism or FSDP"
                )


class LoRADropoutTrainer(LoRADropoutMixin, Trainer):
    """transformers' `Trainer` with LoRA Dropout, see `LoRADropoutMixin`."""


def step_seeds(n: int, *, seed: int, rank: int, step: int, micro_step: int) -> Tensor:
    """The seeds of a training step's masks, independent over all arguments.

    Args:
        n: Number of draws N.
        seed: The run's seed.
        rank: The process.
        step: Optimiser steps done before.
        micro_step: Passes done since the last one (gradient accumulation).

    Returns:
        int64 tensor of shape (N,), for `sample_masks`.
    """
    names = [f"train {seed} {rank} {step} {micro_step} {index}" for index in range(n)]
    return torch.tensor([name_key(name) for name in names])


def _batch_size(inputs: Mapping[str, Any]) -> int:
    for value in inputs.values():
        if isinstance(value, Tensor) and value.dim() > 0:
            return len(value)
    raise ValueError(f"inputs must hold tensors with the batch first, got {sorted(inputs)}")


def _repeat(inputs: Mapping[str, Any], copies: int) -> dict[str, Any]:
    size, repeated = _batch_size(inputs), dict(inputs)
    for key, value in inputs.items():
        if isinstance(value, Tensor) and value.dim() > 0:
            if len(value) != size:
                raise ValueError(
                    f"inputs must have the batch of {size} first, to be copied, got {key!r} of "
                    f"shape {tuple(value.shape)}: use mode='loop'"
                )
            repeated[key] = value.repeat(copies, *[1] * (value.dim() - 1))
    return repeated
