"""`lora_dropout.peft` under its former name."""

from lora_dropout.peft import (
    AttachConfig,
    LoRADropoutMixin,
    LoRADropoutTrainer,
    attach,
    attached_config,
    detach,
)

__all__ = [
    "AttachConfig",
    "LoRADropoutMixin",
    "LoRADropoutTrainer",
    "attach",
    "attached_config",
    "detach",
]
