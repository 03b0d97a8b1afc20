"""What an adapter is: one frozen description, checked when made."""

from dataclasses import dataclass
from typing import Literal, get_args

from lora_bounds.bounds.laws import LawName
from lora_dropout.checks import check_choice, check_count, check_positive, check_probability, short
from lora_dropout.masks.draw import LAWS, mean_factor

AdapterKind = Literal["lora", "adalora"]
Inference = Literal["mean", "raw"]


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """The masks of an adapter, whatever holds its factors (arXiv 2404.09610 v1, section 3).

    Attributes:
        dropout: Rate p in [0, 1] of the mask law's own bits (see `lora_bounds.mask_law`).
        mask: Mask law: `row_column` (the paper's, Eq. 2), `rank`, `entrywise`, `activation`
            (the usual `lora_dropout`, scaled by 1/(1-p)) or `none`.
        rescale: Off is the paper (Eq. 3). On, the masked update is divided by the mean of its
            mask, (1-p)^2 for `row_column`, so that its mean is B A.
        inference: What a forward pass in eval mode does without masks: `mean` scales the update
            to the mask's mean, `raw` leaves it unscaled (the paper's Drop_train). Raw weights
            after unscaled masked training are 1/(1-p)^2 times too large, hence the default.
    """

    dropout: float = 0.5
    mask: LawName = "row_column"
    rescale: bool = False
    inference: Inference = "mean"

    def __post_init__(self) -> None:
        # Plain numbers, so that settings can be written whatever scalar type they came as.
        object.__setattr__(self, "dropout", check_probability("dropout", self.dropout))
        check_choice("mask", self.mask, LAWS)
        check_choice("inference", self.inference, get_args(Inference))
        if not isinstance(self.rescale, bool):
            raise TypeError(f"rescale must be a bool, got rescale={short(self.rescale)}")

    @property
    def mean_factor(self) -> float:
        """Mean of the masked update as trained, as a multiple of the raw one."""
        mean = mean_factor(self.mask, self.dropout)
        return 1.0 if self.rescale and mean > 0 else mean

    @property
    def mask_scale(self) -> float:
        """What a masked update is multiplied by: 1 (Eq. 3), or 1 / mean with `rescale`."""
        if not self.rescale:
            return 1.0
        mean = mean_factor(self.mask, self.dropout)
        # Nothing is kept at p = 1, where 0/0 stands: the update is 0, as in nn.Dropout(1).
        return 1.0 / mean if mean > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class LoRADropoutConfig(MaskConfig):
    """Settings of LoRA Dropout: the masks (see `MaskConfig`) and the adapter that carries them.

    Attributes:
        rank: Rank r of the update, at least 1 and at most the layer's smaller side.
        alpha: Update scale numerator; the update is multiplied by alpha / rank. The default
            equals the default rank, so that the update is B A as in Eq. 1.
        dropout: See `MaskConfig`, as `mask`, `rescale` and `inference`.
        adapter: `lora` or `adalora` (Eqs. 4-6).
        target_modules: Which `nn.Linear` modules get an adapter: `all-linear`, a regular
            expression that must match a whole module name, or a tuple of names, each matching
            the module of that name and every module whose name ends in `.name`.
        modules_to_save: Names of further modules (a classification head, say) that are trained
            whole and saved with the adapter; matched as the names in `target_modules`.
    """

    rank: int = 8
    alpha: float = 8.0
    adapter: AdapterKind = "lora"
    target_modules: str | tuple[str, ...] = "all-linear"
    modules_to_save: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", check_count("rank", self.rank))
        object.__setattr__(self, "alpha", check_positive("alpha", self.alpha))
        super().__post_init__()
        check_choice("adapter", self.adapter, get_args(AdapterKind))
        if not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", _names(self, "target_modules"))
            if not self.target_modules:
                raise ValueError("target_modules must name at least one module, got ()")
        object.__setattr__(self, "modules_to_save", _names(self, "modules_to_save"))


def _names(config: LoRADropoutConfig, field: str) -> tuple[str, ...]:
    value = getattr(config, field)
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{field} must be a tuple of module names, got {field}={short(value)}")
    return tuple(value)
