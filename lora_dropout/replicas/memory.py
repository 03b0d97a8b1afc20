"""How much to compute together: a budget over what a small computation keeps in memory."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lora_dropout.adapters.use_masks import sample_masks
from lora_dropout.data import Inputs, LossFn, call_model, map_inputs, n_examples
from lora_dropout.door import unchecked
from lora_dropout.replicas.stack import Stack
from lora_dropout.training.fit_config import FitConfig
from lora_dropout.training.objective import instance_terms

# On a CPU more is no faster: small adapters gain up to some hundred replicas, about 10 MiB, and the
# digits transformer loses beyond the caches (benchmarks/replicas.py).
_BUDGET = {"cpu": 2**26, "cuda": 2**32}
_COPIES = 8  # a replica's parameters, gradient, moments and temporaries
_PROBED = 8  # examples


def default_chunk_size(
    stack: Stack, inputs: Inputs, targets: Tensor, config: FitConfig, loss_fn: LossFn
) -> int:
    """The number of replicas whose training step fits a budget: 64 MiB on a CPU, 4 GiB on a GPU.

    Args:
        stack: The model.
        inputs: Training inputs.
        targets: Training targets.
        config: Settings.
        loss_fn: The loss.

    Returns:
        Replicas a chunk, at least 1: the budget over what one step of one replica keeps for its
        backward pass (measured) and its optimiser holds.
    """
    masks = unchecked(sample_masks)(
        stack.model, n_instances=config.n_instances, generator=torch.Generator().manual_seed(0)
    )
    part = map_inputs(lambda t: t[: config.batch_size], inputs)
    kept = _bytes_kept(
        stack,
        lambda: list(
            instance_terms(
                stack.model,
                part,
                targets[: config.batch_size],
                masks=masks,
                mode="grouped" if config.mode == "grouped" else "batched",
                loss_fn=loss_fn,
            )
        ),
    )
    size = sum(stack.sizes) * next(iter(stack.parameters.values())).element_size()
    return _share(stack, kept + _COPIES * size)


def default_pass_rows(stack: Stack, inputs: Inputs) -> int:
    """The number of examples, over replicas and masks, whose prediction fits the same budget.

    Args:
        stack: The model.
        inputs: Examples.

    Returns:
        Rows a pass, at least 1. It goes by what a backward pass would need, which prediction does
        not keep: true use is below.
    """
    part = map_inputs(lambda t: t[:_PROBED], inputs)
    kept = _bytes_kept(stack, lambda: call_model(stack.model, part))
    return _share(stack, -(-kept // n_examples(part)))


def _bytes_kept(stack: Stack, compute: Callable[[], object]) -> int:
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        # Kept alive to the end, or its memory and with it an address would be used again.
        result = compute()
    del result
    for parameter in stack.model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def _share(stack: Stack, needed: int) -> int:
    return max(1, _BUDGET.get(stack.device.type, _BUDGET["cuda"]) // max(1, needed))
