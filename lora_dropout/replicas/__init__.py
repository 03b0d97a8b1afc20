"""Many small adapters trained as one batched computation over a shared frozen base."""

from lora_dropout.replicas.fitting import fit_replicas
from lora_dropout.replicas.replica import Replica, leave_one_out_replicas
from lora_dropout.replicas.result import Replicas

__all__ = ["Replica", "leave_one_out_replicas", "fit_replicas", "Replicas"]
