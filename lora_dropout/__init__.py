"""LoRA Dropout (arXiv 2404.09610): masked LoRA and AdaLoRA, the N-instance loss, the ensemble."""

try:
    import safetensors  # noqa: F401
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        f"lora_dropout needs the extra 'torch' ({error}): pip install 'lora-dropout[torch]', or "
        "'lora-dropout[hf]' for the command lora-dropout"
    ) from error

from lora_dropout.adapters.adapt import adapt, adapters, merge, trainable_parameters, unmerge
from lora_dropout.adapters.folder import load_adapter, save_adapter
from lora_dropout.adapters.layer import MaskedLayer, masked_layers
from lora_dropout.adapters.lora import AdaLoRALinear, AdapterLinear, LoRALinear
from lora_dropout.adapters.rank_budget import RankAllocator, RankBudget, orthogonality_penalty
from lora_dropout.adapters.update import masked_update
from lora_dropout.adapters.use_masks import Masks, enumerate_masks, sample_masks, use_masks
from lora_dropout.masks.config import LoRADropoutConfig, MaskConfig
from lora_dropout.masks.draw import LAWS, LayerMask, MaskLaw, mean_factor
from lora_dropout.prediction.averaging import Averaging
from lora_dropout.prediction.calibration import (
    BrierScore,
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)
from lora_dropout.prediction.ensemble import ensemble_predict, predict
from lora_dropout.prediction.evaluate import evaluate
from lora_dropout.replicas import Replica, Replicas, fit_replicas, leave_one_out_replicas
from lora_dropout.training.fit import FitResult, fit
from lora_dropout.training.fit_config import FitConfig
from lora_dropout.training.objective import instance_loss, instance_losses

__all__ = [
    # settings
    "LoRADropoutConfig",
    "MaskConfig",
    "FitConfig",
    "RankBudget",
    # masks
    "LAWS",
    "MaskLaw",
    "LayerMask",
    "Masks",
    "sample_masks",
    "enumerate_masks",
    "use_masks",
    "mean_factor",
    "masked_update",
    # adapters
    "MaskedLayer",
    "masked_layers",
    "AdapterLinear",
    "LoRALinear",
    "AdaLoRALinear",
    "adapt",
    "adapters",
    "trainable_parameters",
    "merge",
    "unmerge",
    "save_adapter",
    "load_adapter",
    # training
    "instance_loss",
    "instance_losses",
    "RankAllocator",
    "orthogonality_penalty",
    "fit",
    "FitResult",
    "Replica",
    "Replicas",
    "fit_replicas",
    "leave_one_out_replicas",
    # prediction and measurement
    "ensemble_predict",
    "predict",
    "Averaging",
    "evaluate",
    "expected_calibration_error",
    "adaptive_calibration_error",
    "BrierScore",
    "brier_score",
    "negative_log_likelihood",
]
