"""The explicit penalty of Eq. 11: lambda q ||theta - theta_0||^2 on the adapter factors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_bounds.bounds.laws import LawName, mask_law
from lora_dropout.adapters.adapt import adapter_config, need_adapters


def drop_probability(law: LawName, dropout: float) -> float:
    """Probability q of Eq. 11 that an entry of the update (of one rank-one term) is dropped.

    Args:
        law: The mask law.
        dropout: Dropout rate p in [0, 1].

    Returns:
        2p - p^2 for `row_column` (arXiv 2404.09610 v1, Eq. 9), p for `rank`, `entrywise` and
        `activation` (within one row of the input), 0 for `none`.
    """
    return float(mask_law(law).drop_probability(dropout=dropout))


def factor_names(model: nn.Module) -> list[str]:
    """Names of the adapter factors, without the `modules_to_save`.

    Args:
        model: An adapted model.

    Returns:
        Their names in `model.named_parameters()`.
    """
    factors = {
        id(parameter)
        for layer in need_adapters(model).values()
        for parameter in layer.parameters(recurse=False)
    }
    return [name for name, parameter in model.named_parameters() if id(parameter) in factors]


class SparsityPenalty:
    """lambda q ||theta - theta_0||^2 (arXiv 2404.09610 v1, Eq. 11), theta_0 being `start`.

    Args:
        model: An adapted model.
        weight: lambda.
        start: Factor name -> its value in theta_0; None takes the present ones.
    """

    def __init__(
        self, model: nn.Module, weight: float, start: Mapping[str, Tensor] | None = None
    ) -> None:
        config = adapter_config(model)
        self.weight = weight * drop_probability(config.mask, config.dropout)
        self.factors = {name: model.get_parameter(name) for name in factor_names(model)}
        values = self.factors if start is None else start
        self.start = {
            name: values[name].detach().clone().to(factor.device)
            for name, factor in self.factors.items()
        }

    def __call__(self) -> Tensor:
        """Evaluate the penalty.

        Returns:
            Scalar tensor.
        """
        terms = [(p - self.start[name]).square().sum() for name, p in self.factors.items()]
        return self.weight * torch.stack(terms).sum()
