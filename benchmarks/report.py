"""What the benchmarks share: medians with spread, and results written with their provenance."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lora_dropout.runs.torch_provenance import provenance
from lora_dropout.safe_files import atomic_path


def spread(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles, to 4 significant digits."""
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    names = ("lower_quartile", "median", "upper_quartile")
    return {name: float(f"{q:.4g}") for name, q in zip(names, quartiles, strict=True)}


def synchronize(device: torch.device) -> None:
    """Wait for a device to finish."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def origin() -> dict[str, Any]:
    """Provenance, the accelerator's name included."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return provenance() | {"gpu": name}


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result file."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
