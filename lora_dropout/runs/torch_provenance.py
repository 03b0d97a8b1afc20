"""Where a result comes from: what `lora_bounds.provenance` says, and what torch runs on."""

from typing import Any

from lora_bounds.provenance import provenance as _provenance

_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "torchmetrics", "matplotlib")


def provenance() -> dict[str, Any]:
    """Describe the running process.

    Returns:
        See `lora_bounds.provenance`; `threads` and `cpu_capability` (the vector instructions that
        torch uses), which can decide a sum's last bits.
    """
    import torch

    return {
        **_provenance(_LIBRARIES),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
