"""AdaLoRA's falling ranks inside transformers' `Trainer`: PEFT leaves the call to the loop."""

import warnings
from typing import Any

from peft import AdaLoraModel
from peft.tuners.adalora.layer import AdaLoraLayer
from transformers import Trainer, TrainerCallback


def allocate_ranks(trainer: Trainer) -> None:
    """Let the ranks of a model with a trainable AdaLoRA adapter fall as its settings say.

    Args:
        trainer: Its model may have any adapter; nothing is done for others.

    Raises:
        ValueError: If PEFT's allocator is out of reach, or the best checkpoint is to be loaded.
    """
    model: Any = trainer.model
    layers = [m for m in model.modules() if isinstance(m, AdaLoraLayer)]
    trained = any(
        p.requires_grad for layer in layers for p in layer.lora_E.parameters(recurse=False)
    )
    if not trained:
        return
    tuner = getattr(model, "base_model", None)
    if not isinstance(tuner, AdaLoraModel):
        raise ValueError(
            "model must be what peft.get_peft_model returns, for AdaLoRA's ranks to fall, got "
            f"{type(model).__name__} with AdaLoRA layers"
        )
    if trainer.args.load_best_model_at_end:
        raise ValueError(
            "load_best_model_at_end must be off with AdaLoRA: PEFT cuts its checkpoints to the "
            "ranks of the moment and cannot load them into this model"
        )
    tuner.__class__ = _CountsOnce
    trainer.add_callback(_AllocateRanks(tuner))


class _CountsOnce(AdaLoraModel):
    """Takes each gradient into account once, whoever else calls, as a callback of the user's."""

    def update_and_allocate(self, global_step: int) -> None:
        gradient = next(
            p.grad
            for name, p in self.model.named_parameters()
            if f"lora_E.{self.trainable_adapter_name}" in name
        )
        if gradient is not None:
            counted = (gradient, gradient._version)  # held, so that no other is taken for it
            before = self.__dict__.get("_counted", (None, 0))
            if counted[0] is before[0] and counted[1] == before[1]:
                return
            self.__dict__["_counted"] = counted
        super().update_and_allocate(global_step)


class _AllocateRanks(TrainerCallback):
    def __init__(self, tuner: AdaLoraModel) -> None:
        self.tuner = tuner

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        config = self._config()
        if state.global_step > 0:
            raise ValueError(
                "resume_from_checkpoint: PEFT's checkpoints of AdaLoRA lack the importance scores "
                f"by which its ranks fall, got one of step {state.global_step}"
            )
        if self._end() > state.max_steps:
            raise ValueError(
                "AdaLoraConfig's total_step - tfinal must be at most the number of steps, "
                f"{state.max_steps}, for the ranks to fall to target_r={config.target_r}, got "
                f"total_step={config.total_step}, tfinal={config.tfinal}"
            )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tuner.update_and_allocate(state.global_step)
        if state.global_step + 1 == state.max_steps == self._end():
            # The last allocation is due after the last step; it takes no gradient into account.
            AdaLoraModel.update_and_allocate(self.tuner, self._end())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step < min(self._end() + 1, state.max_steps):
            warnings.warn(
                f"training ended after {state.global_step} of {state.max_steps} steps: AdaLoRA's "
                f"ranks have not fallen to target_r={self._config().target_r}",
                UserWarning,
                stacklevel=2,
            )

    def _config(self) -> Any:
        return self.tuner.peft_config[self.tuner.trainable_adapter_name]

    def _end(self) -> int:
        # The step whose allocation is the last one.
        return self._config().total_step - self._config().tfinal
