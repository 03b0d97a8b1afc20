"""LoRA Dropout on Hugging Face models: PEFT adapters and `Trainer` (extra `hf`)."""

try:
    import peft  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "lora_dropout.peft needs the extra 'hf': pip install 'lora-dropout[hf]'"
    ) from error

from lora_dropout.peft.attach import AttachConfig, attach, attached_config, detach
from lora_dropout.peft.trainer import LoRADropoutMixin, LoRADropoutTrainer

__all__ = [
    "AttachConfig",
    "LoRADropoutMixin",
    "LoRADropoutTrainer",
    "attach",
    "attached_config",
    "detach",
]
