"""A model under K sets of parameters at once: the frozen base shared, everything else stacked."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lora_dropout.adapters.adapt import adapter_config, need_adapters, trainable_parameters
from lora_dropout.adapters.rank_budget import orthogonality_penalty
from lora_dropout.data import Inputs, call_model
from lora_dropout.masks.draw import bare_mask, draw_layer_masks
from lora_dropout.seeds import seeded_generator
from lora_dropout.training.penalty import factor_names


@dataclass(frozen=True, eq=False)
class StackedMasks:
    """N mask draws for each of K replicas.

    Attributes:
        tensors: Layer name -> field of `LayerMask` -> tensor of leading dimensions (K, N).
        dropout: Rate, for law `activation`, whose bits are drawn during the pass.
    """

    tensors: dict[str, dict[str, Tensor]]
    dropout: float


class Stack:
    """Runs a model for K rows of parameters, under N masks each (by `torch.func.vmap`).

    A row holds the trainable parameters of one replica, one after another.

    Args:
        model: An adapted model. It stays as it is; frozen parameters are shared, not copied.

    Raises:
        ValueError: If the trainable parameters differ in type, or a layer mixes examples or draws
            random numbers of its own.
    """

    def __init__(self, model: nn.Module) -> None:
        self.config = adapter_config(model)
        shared = [p for p in model.parameters() if not p.requires_grad] + list(model.buffers())
        self.model = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
        self.layers = need_adapters(self.model)
        for name, layer in self.layers.items():
            if layer.merged:
                raise ValueError(f"model must be unmerged, layer {name!r} is merged")
            # The scale of a masked update goes by each replica's own rate: see `scales`.
            layer.config = attrs.evolve(self.config, rescale=False)
        # By name: the order in which a row is summed, when it is clipped, decides the last bits.
        self.parameters = dict(sorted(trainable_parameters(self.model).items()))
        dtypes = {str(parameter.dtype) for parameter in self.parameters.values()}
        if len(dtypes) > 1:
            raise ValueError(f"trainable parameters must have one dtype, got {sorted(dtypes)}")
        self.sizes = [parameter.numel() for parameter in self.parameters.values()]
        self.device = next(iter(self.parameters.values())).device
        factors = set(factor_names(self.model))
        self.is_factor = torch.tensor(
            [name in factors for name in self.parameters]
        ).repeat_interleave(torch.tensor(self.sizes))
        lefts = {id(layer.get_parameter("lora_B")) for layer in self.layers.values()}
        self._lefts = [name for name, p in self.parameters.items() if id(p) in lefts]

    @torch.no_grad()
    def initial(self, init_seed: int | None) -> Tensor:
        """The row that a run starts from.

        Args:
            init_seed: Seed of the factors, as `adapt` would draw them; None: the model's own.

        Returns:
            Shape (P,).
        """
        own = torch.cat([p.flatten() for p in self.parameters.values()])
        if init_seed is None:
            return own
        generator = seeded_generator(init_seed)
        for layer in self.layers.values():
            layer.reset_parameters(generator)
        drawn = torch.cat([p.flatten() for p in self.parameters.values()])
        self.load(own)
        return drawn

    @torch.no_grad()
    def load(self, row: Tensor) -> None:
        """Put one row into the stack's copy of the model.

        Args:
            row: Shape (P,).
        """
        values = self.split(row[None])
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name][0])

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """Take rows apart.

        Args:
            rows: Shape (K, P).

        Returns:
            Parameter name -> tensor of shape (K, *shape).
        """
        parts = rows.split(self.sizes, dim=1)
        return {
            name: part.view(len(rows), *parameter.shape)
            for (name, parameter), part in zip(self.parameters.items(), parts, strict=True)
        }

    def groups(self, rates: Sequence[float], size: int) -> list[list[int]]:
        """Deal out replicas into groups that can run together.

        Args:
            rates: Dropout rate of each replica.
            size: Greatest number in a group.

        Returns:
            Indices of each group: consecutive replicas; for law `activation`, which draws its bits
            during the pass, replicas of one rate.
        """
        parts = [list(range(len(rates)))]
        if self.config.mask == "activation":
            parts = [[k for k in parts[0] if rates[k] == p] for p in dict.fromkeys(rates)]
        return [part[i : i + size] for part in parts for i in range(0, len(part), size)]

    def draw(self, seeds: Tensor, rates: Sequence[float]) -> StackedMasks:
        """Draw masks.

        Args:
            seeds: int64 of shape (K, N).
            rates: Dropout rate of each replica; for law `activation` they must agree.

        Returns:
            N draws for each replica.
        """
        specs = [layer.spec._replace(dropout=rates[0]) for layer in self.layers.values()]
        own = torch.tensor(rates, dtype=torch.float64).repeat_interleave(seeds.shape[1])
        drawn = draw_layer_masks(specs, seeds.flatten(), dropout=own, device=self.device)
        tensors = {
            name: {
                field: value.unflatten(0, seeds.shape)
                for field, value in vars(mask).items()
                if isinstance(value, Tensor)
            }
            for name, mask in drawn.items()
        }
        return StackedMasks(tensors, rates[0])

    def apply(
        self,
        function: Callable[..., Tensor],
        rows: Tensor,
        inputs: Inputs,
        *others: Tensor,
        masks: StackedMasks | None,
        scales: Tensor,
        common: bool = False,
        dealt: bool = False,
    ) -> Tensor:
        """Compute function(model(inputs), *others) for each replica under each of its masks.

        Args:
            function: Of the outputs of one replica under one mask, and of `others`.
            rows: Shape (K, P).
            inputs: Tensors of shape (K, b, ...).
            *others: Tensors batched as the inputs.
            masks: N draws for each replica; None runs mask-free, N = 1.
            scales: What each replica's update is multiplied by, shape (K,).
            common: All replicas share the inputs and the others: these lack the dimension K.
            dealt: Each mask has examples of its own: there is a dimension N before b.

        Returns:
            The results, leading dimensions (K, N).
        """
        parameters = self.split(rows)
        for name in self._lefts:
            parameters[name] = parameters[name] * scales.to(rows.dtype)[:, None, None]

        def one(
            values: dict[str, Tensor], bits: dict[str, dict[str, Tensor]], *batch: Any
        ) -> Tensor:
            for name, layer in self.layers.items():
                layer.active = "raw"
                if masks is not None:
                    own = {field: tensor[None] for field, tensor in bits[name].items()}
                    layer.active = bare_mask(self.config.mask, 1, masks.dropout, **own)

            def model(*args: Tensor, **named: Tensor) -> object:
                return functional_call(self.model, values, args, named)

            return function(call_model(model, batch[0]), *batch[1:])

        n_batched = 1 + len(others)
        over_masks = one
        if masks is not None:
            over_masks = vmap(one, in_dims=(None, 0, 0 if dealt else None) + (0,) * len(others))
            if not dealt:
                # mse_loss has a wrong batching rule where the targets lack a dimension that the
                # outputs have, so give every mask its (shared) copy.
                place = 0 if common else 1
                n = next(t.shape[1] for own in masks.tensors.values() for t in own.values())
                others = tuple(
                    t.unsqueeze(place).expand(*t.shape[:place], n, *t.shape[place:]) for t in others
                )
        over_replicas = vmap(over_masks, in_dims=(0, 0) + (None if common else 0,) * n_batched)
        bits = {} if masks is None else masks.tensors
        try:
            # Attention's fused kernel on the CPU has no batching rule.
            with sdpa_kernel(SDPBackend.MATH):
                results = over_replicas(parameters, bits, inputs, *others)
        finally:
            for layer in self.layers.values():
                layer.active = None  # it holds tensors of a vmap that is over
        return results[:, None] if masks is None else results

    def orthogonality(self, rows: Tensor) -> Tensor:
        """AdaLoRA's orthogonality term of each replica.

        Args:
            rows: Shape (K, P).

        Returns:
            Shape (K,).
        """
        penalty = _Orthogonality(self.model)
        values = {f"model.{name}": value for name, value in self.split(rows).items()}
        return vmap(partial(functional_call, penalty, args=()))(values)


class _Orthogonality(nn.Module):
    """`orthogonality_penalty` as a module, which is what `functional_call` can call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> Tensor:
        return orthogonality_penalty(self.model)
