"""What an adapter is: one frozen description, checked when made."""

from typing import Annotated, Any, Literal, Self

import attrs

from lora_bounds.bounds.laws import LawName
from lora_dropout.door import Count, Positive, Probability, by_domain, short, trusted, unchecked
from lora_dropout.masks.draw import mean_factor

AdapterKind = Literal["lora", "adalora"]
Inference = Literal["mean", "raw"]


def _names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{name} must be a tuple of module names, got {name}={short(value)}")
    return tuple(value)


def _targets(name: str, value: Any) -> str | tuple[str, ...]:
    targets = value if isinstance(value, str) else _names(name, value)
    if targets == ():
        raise ValueError(f"{name} must name at least one module, got ()")
    return targets


Names = Annotated[tuple[str, ...], _names]
Targets = Annotated[str | tuple[str, ...], _targets]


@attrs.frozen(kw_only=True, slots=False, field_transformer=by_domain)
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

    dropout: Probability = 0.5
    mask: LawName = "row_column"
    rescale: bool = False
    inference: Inference = "mean"

    @property
    def mean_factor(self) -> float:
        """Mean of the masked update as trained, as a multiple of the raw one."""
        mean = unchecked(mean_factor)(self.mask, self.dropout)
        return 1.0 if self.rescale and mean > 0 else mean

    @property
    def mask_scale(self) -> float:
        """What a masked update is multiplied by: 1 (Eq. 3), or 1 / mean with `rescale`."""
        if not self.rescale:
            return 1.0
        mean = unchecked(mean_factor)(self.mask, self.dropout)
        # Nothing is kept at p = 1, where 0/0 stands: the update is 0, as in nn.Dropout(1).
        return 1.0 / mean if mean > 0 else 0.0

    def at_rate(self, dropout: float) -> Self:
        """These masks at another rate, known to be one."""
        return trusted(type(self), **{**vars(self), "dropout": dropout})


@attrs.frozen(kw_only=True, slots=False, field_transformer=by_domain)
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

    rank: Count = 8
    alpha: Positive = 8.0
    adapter: AdapterKind = "lora"
    target_modules: Targets = "all-linear"
    modules_to_save: Names = ()
