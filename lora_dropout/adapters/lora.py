"""Adapter layers: a frozen `nn.Linear` plus a masked low-rank update (Eqs. 1-6)."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lora_dropout.adapters.layer import Active, MaskedLayer, MergedError
from lora_dropout.adapters.update import unchecked_update
from lora_dropout.door import check_generator, check_same_device, check_type
from lora_dropout.masks.config import Inference, LoRADropoutConfig
from lora_dropout.masks.draw import LayerSpec


class AdapterLinear(MaskedLayer):
    """Base of the adapter layers (see `MaskedLayer` for which mask a pass uses).

    Args:
        base_layer: The layer to adapt; its parameters are frozen.
        config: Adapter settings.
        name: Qualified name; it keys the layer's masks.

    Raises:
        TypeError: If `base_layer` is no `nn.Linear`.
        ValueError: If `config.rank` exceeds the layer's smaller side.
    """

    config: LoRADropoutConfig

    def __init__(self, base_layer: nn.Linear, config: LoRADropoutConfig, *, name: str = "") -> None:
        super().__init__()
        if not isinstance(base_layer, nn.Linear):
            raise TypeError(f"base_layer must be an nn.Linear, got {type(base_layer).__name__}")
        check_type("config", config, LoRADropoutConfig, "a LoRADropoutConfig")
        check_type("name", name, str, "a text")
        smaller = min(base_layer.in_features, base_layer.out_features)
        if config.rank > smaller:
            raise ValueError(
                f"rank must be at most {smaller}, the smaller side of layer {name!r}, "
                f"got rank={config.rank}"
            )
        self.base_layer = base_layer.requires_grad_(False)
        self.config = config
        self.name = name
        self.active: Active = None
        # What was merged and how; a tuple hides the parameter from the module.
        self._unmerged: tuple[nn.Parameter, Inference] | None = None
        # In eval mode nn.TransformerEncoderLayer reads the weights of its layers without calling
        # them, unless one of them has a hook.
        self.register_forward_pre_hook(_do_nothing)
        self.register_state_dict_post_hook(_unmerge_state)

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """Return (A, B) of shapes (r, in_features), (out_features, r); the update is B A."""

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial factors, for which the update is zero.

        Args:
            generator: CPU generator, or None for torch's global one.
        """

    @property
    def spec(self) -> LayerSpec:
        """What a mask of this layer must fit."""
        config, base = self.config, self.base_layer
        return LayerSpec(
            self.name,
            config.mask,
            config.dropout,
            base.out_features,
            base.in_features,
            config.rank,
        )

    @property
    def device(self) -> torch.device:
        """Where the layer is."""
        return self.base_layer.weight.device

    @property
    def scaling(self) -> float:
        """The update's multiplier, alpha / rank."""
        return self.config.alpha / self.config.rank

    @property
    def merged(self) -> bool:
        """Whether the update now sits in the base weight."""
        return self._unmerged is not None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the adapted layer.

        Args:
            x: Input, shape (..., in_features).

        Returns:
            Output, shape (..., out_features).

        Raises:
            MergedError: If the layer is merged and training mode is on, or a mask or another
                inference mode is asked for.
            ValueError: If `x` is on another device, or the examples of the instances in this pass
                cannot be told apart in it.
        """
        self.called = True
        if self._unmerged is not None:
            if self.training or self.active not in (None, self._unmerged[1]):
                raise MergedError(
                    f"layer {self.name!r} is merged: unmerge before training, masking or another "
                    f"inference mode than {self._unmerged[1]!r}"
                )
            return self.base_layer(x)
        A, B = self.factors()
        if not x.device == A.device == B.device:
            check_same_device(x=x, A=A, B=B)
        mask, factor = self._mask_and_factor(x.device)
        place = None if mask is None else self._place(x, mask.n_instances)
        output = self.base_layer(x)
        if x.dtype != A.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(A.dtype)
        update = unchecked_update(x, A, B, mask=mask, scaling=self.scaling * factor, place=place)
        return output + update.to(output.dtype)

    def delta_weight(self, inference: Inference | None = None) -> Tensor:
        """The mask-free update of the weight.

        Args:
            inference: `mean`, `raw`, or None for `config.inference`.

        Returns:
            Tensor of shape (out_features, in_features).
        """
        A, B = self.factors()
        return B @ A * (self.scaling * self._inference_factor(inference or self.config.inference))

    @torch.no_grad()
    def merge(self, inference: Inference | None = None) -> None:
        """Put the mask-free update into the base weight, keeping the original aside.

        Args:
            inference: `mean`, `raw`, or None for `config.inference`.

        Raises:
            MergedError: If the layer is merged already.

        `state_dict` goes on to give the original weight beside the factors, so that what it is
        loaded into computes the same.
        """
        if self.merged:
            raise MergedError(f"layer {self.name!r} is merged already")
        weight = self.base_layer.get_parameter("weight")
        inference = inference or self.config.inference
        merged = (weight + self.delta_weight(inference)).to(weight.dtype)
        # A new Parameter: one that is tied to another module must not change there.
        self.base_layer.weight = nn.Parameter(merged, requires_grad=False)
        self._unmerged = (weight, inference)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the original base weight back, bit for bit.

        Raises:
            MergedError: If the layer is not merged.
        """
        if self._unmerged is None:
            raise MergedError(f"layer {self.name!r} is not merged")
        weight, _ = self._unmerged
        merged = self.base_layer.weight
        if weight.device != merged.device or weight.dtype != merged.dtype:
            weight.data = weight.data.to(merged.device, merged.dtype)
        self.base_layer.weight = weight
        self._unmerged = None

    def _load_from_state_dict(self, *given: Any, **named: Any) -> None:
        if self.merged:
            raise MergedError(f"layer {self.name!r} is merged: unmerge before loading")
        super()._load_from_state_dict(*given, **named)

    def extra_repr(self) -> str:
        """Settings for `print(model)`.

        Returns:
            Rank, rate and law.
        """
        config = self.config
        return f"rank={config.rank}, dropout={config.dropout}, mask={config.mask!r}"

    def _new_factor(self, *shape: int) -> nn.Parameter:
        weight = self.base_layer.weight
        # Factors of a half-precision base are kept in float32: AdamW's steps are too small for it.
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return nn.Parameter(torch.zeros(*shape, device=weight.device, dtype=dtype))


def _do_nothing(module: nn.Module, inputs: tuple[object, ...]) -> None:
    pass


def _unmerge_state(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    # The factors are in it, too: with the merged weight their update would count twice.
    unmerged = getattr(module, "_unmerged", None)
    key = f"{prefix}base_layer.weight"
    if unmerged is not None and key in state:
        kept = state[key]
        weight = unmerged[0].to(kept.device, kept.dtype)
        state[key] = weight if kept.requires_grad else weight.detach()


class LoRALinear(AdapterLinear):
    """LoRA with masks on the rows of B and the columns of A (Eqs. 1-3).

    Shapes: `lora_A` (rank, in_features), uniform at the start; `lora_B` (out_features, rank),
    zero at the start.
    """

    def __init__(
        self,
        base_layer: nn.Linear,
        config: LoRADropoutConfig,
        *,
        name: str = "",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(base_layer, config, name=name)
        check_generator("generator", generator)
        self.lora_A = self._new_factor(config.rank, base_layer.in_features)
        self.lora_B = self._new_factor(base_layer.out_features, config.rank)
        self.reset_parameters(generator)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return (A, B)."""
        return self.lora_A, self.lora_B

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw A uniform on +-1/sqrt(in_features) (He's rule for slope sqrt 5); set B to zero."""
        bound = self.base_layer.in_features**-0.5
        self.lora_A.copy_((torch.rand(self.lora_A.shape, generator=generator) * 2 - 1) * bound)
        self.lora_B.zero_()


class AdaLoRALinear(AdapterLinear):
    """AdaLoRA, P Lambda Q (arXiv 2303.10512): rows of P and columns of Q are masked (Eqs. 4-6).

    Lambda is never masked by the paper's law. Shapes: `lora_A` = Q (rank, in_features) and
    `lora_B` = P (out_features, rank), Gaussian of standard deviation 0.02 at the start;
    `lora_E` = diag Lambda (rank, 1), zero at the start.
    """

    def __init__(
        self,
        base_layer: nn.Linear,
        config: LoRADropoutConfig,
        *,
        name: str = "",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(base_layer, config, name=name)
        check_generator("generator", generator)
        self.lora_A = self._new_factor(config.rank, base_layer.in_features)
        self.lora_E = self._new_factor(config.rank, 1)
        self.lora_B = self._new_factor(base_layer.out_features, config.rank)
        self.reset_parameters(generator)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return (Lambda Q, P): masking columns of Q is masking columns of Lambda Q."""
        return self.lora_A * self.lora_E, self.lora_B

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw P and Q Gaussian; set Lambda to zero."""
        self.lora_A.copy_(torch.randn(self.lora_A.shape, generator=generator) * 0.02)
        self.lora_E.zero_()
        self.lora_B.copy_(torch.randn(self.lora_B.shape, generator=generator) * 0.02)

    def orthogonality(self) -> Tensor:
        """How far P and Q are from orthogonal (arXiv 2303.10512, Eq. 4).

        Returns:
            ||P'P - I||_F^2 + ||QQ' - I||_F^2, a scalar tensor.
        """
        identity = torch.eye(self.config.rank, device=self.lora_A.device, dtype=self.lora_A.dtype)
        left = self.lora_B.T @ self.lora_B - identity
        right = self.lora_A @ self.lora_A.T - identity
        return left.square().sum() + right.square().sum()
