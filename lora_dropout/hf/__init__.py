"""LoRA Dropout on Hugging Face models: PEFT adapters and `Trainer` (extra `hf`)."""

try:
    import peft  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "lora_dropout.hf needs the extra 'hf': pip install 'lora-dropout[hf]'"
    ) from error

from lora_dropout.hf.attach import AttachConfig, attach, attached_config, detach
from lora_dropout.hf.trainer import LoRADropoutMixin, LoRADropoutTrainer

__all__ = [
    "AttachConfig",
    "LoRADropoutMixin",
    "LoRADropoutTrainer",
    "attach",
    "attached_config",
    "detach",
]
