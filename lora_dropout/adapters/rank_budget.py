"""AdaLoRA's rank allocation (arXiv 2303.10512, section 3.2 and Algorithm 1).

Deviations from that paper: 1. its Eq. 12 prints the cubic schedule with t - t_i - t_f in the
numerator, which exceeds the initial budget at t = t_i; we use t - t_i, which starts at b(0) and
ends at b(T). 2. Once the final budget is reached, the kept triplets stay fixed, which is how we
read "fine-tune with the budget distribution fixed".
"""

import attrs
import torch
from torch import Tensor, nn

from lora_dropout.adapters.adapt import adapters
from lora_dropout.adapters.lora import AdaLoRALinear
from lora_dropout.door import Count, Natural, Probability, by_domain, checked


@attrs.frozen(kw_only=True, slots=False, field_transformer=by_domain)
class RankBudget:
    """How many singular values survive, and when.

    Attributes:
        target_rank: Average rank a layer at the end; the start is the configuration's `rank`.
        warmup_steps: Steps t_i before pruning begins.
        final_steps: Steps t_f at the end with the budget fixed.
        interval: Steps Delta_T between two allocations.
        beta1: Smoothing of the sensitivity, in [0, 1].
        beta2: Smoothing of its uncertainty, in [0, 1].
    """

    target_rank: Count
    warmup_steps: Natural = 0
    final_steps: Natural = 0
    interval: Count = 1
    beta1: Probability = 0.85
    beta2: Probability = 0.85

    def at(self, step: int, *, total_steps: int, initial: int, target: int) -> int:
        """Number of singular values kept after a step (arXiv 2303.10512, Eq. 12, corrected).

        Args:
            step: Step t, from 1 to `total_steps`.
            total_steps: T.
            initial: b(0), the sum of ranks at the start.
            target: b(T), the sum of ranks at the end.

        Returns:
            b(t), never increasing in t.

        Raises:
            ValueError: If warm-up and final steps leave no step to prune in.
        """
        span = total_steps - self.warmup_steps - self.final_steps
        if span <= 0:
            raise ValueError(
                f"warmup_steps + final_steps must be below total_steps={total_steps}, "
                f"got {self.warmup_steps} + {self.final_steps}"
            )
        progress = min(max((step - self.warmup_steps) / span, 0.0), 1.0)
        return target + round((initial - target) * (1.0 - progress) ** 3)


class RankAllocator:
    """Scores the triplets (P_i, lambda_i, Q_i) of all layers and prunes the least important.

    Call `observe` after the backward pass and before the optimiser's step, `prune` after it.

    Args:
        model: A model adapted with `adapter="adalora"`.
        budget: The schedule.
        total_steps: Number of training steps T.

    Raises:
        ValueError: If the model has no AdaLoRA layers, or the target rank exceeds the initial one.
    """

    @checked
    def __init__(self, model: nn.Module, budget: RankBudget, *, total_steps: Count) -> None:
        layers = {n: m for n, m in adapters(model).items() if isinstance(m, AdaLoRALinear)}
        if not layers:
            raise ValueError(
                "rank_budget needs a model adapted with adapter='adalora', "
                f"got model without: {type(model).__name__}"
            )
        rank = next(iter(layers.values())).config.rank
        if budget.target_rank > rank:
            raise ValueError(
                f"target_rank must be at most rank={rank}, got target_rank={budget.target_rank}"
            )
        self.layers, self.budget, self.total_steps = layers, budget, total_steps
        self.initial, self.target = rank * len(layers), budget.target_rank * len(layers)
        budget.at(0, total_steps=total_steps, initial=self.initial, target=self.target)
        self.sensitivity = {k: torch.zeros_like(p) for k, p in self._parameters().items()}
        self.uncertainty = {k: torch.zeros_like(p) for k, p in self._parameters().items()}
        self.kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(self) -> None:
        """Update the smoothed sensitivity |w dL/dw| and its uncertainty (Eqs. 8-10 there)."""
        beta1, beta2 = self.budget.beta1, self.budget.beta2
        for key, parameter in self._parameters().items():
            if parameter.grad is None:
                continue
            current = (parameter * parameter.grad).abs()
            smoothed = self.sensitivity[key]
            smoothed.mul_(beta1).add_(current, alpha=1 - beta1)
            spread = (current - smoothed).abs()
            self.uncertainty[key].mul_(beta2).add_(spread, alpha=1 - beta2)

    @torch.no_grad()
    def prune(self, step: int) -> int:
        """Zero the singular values that the budget of this step has no room for.

        Args:
            step: Number of optimiser steps done, from 1.

        Returns:
            The budget b(step).
        """
        budget = self.budget.at(
            step, total_steps=self.total_steps, initial=self.initial, target=self.target
        )
        final = step >= self.total_steps - self.budget.final_steps
        due = step > self.budget.warmup_steps and step % self.budget.interval == 0
        if due or final:
            if not (final and self.kept):
                chosen = self._most_important(budget)
                self.kept = chosen if final else {}
            else:
                chosen = self.kept
            for name, keep in chosen.items():
                self.layers[name].lora_E.mul_(keep[:, None])
        return budget

    def scores(self) -> dict[str, Tensor]:
        """Importance of each triplet (Eq. 7 there).

        Returns:
            Layer name -> tensor of shape (rank,).
        """
        element = {key: self.sensitivity[key] * self.uncertainty[key] for key in self.sensitivity}
        return {
            name: element[f"{name}.lora_E"][:, 0]
            + element[f"{name}.lora_A"].mean(dim=1)
            + element[f"{name}.lora_B"].mean(dim=0)
            for name in self.layers
        }

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint must hold.

        Returns:
            Nested dictionary of tensors.
        """
        return {
            "sensitivity": self.sensitivity,
            "uncertainty": self.uncertainty,
            "kept": self.kept,
        }

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take up a state of `state_dict`.

        Args:
            state: The state.
        """
        self.sensitivity = state["sensitivity"]
        self.uncertainty = state["uncertainty"]
        self.kept = state["kept"]

    def _most_important(self, budget: int) -> dict[str, Tensor]:
        scores = self.scores()
        flat = torch.cat(list(scores.values()))
        keep = torch.zeros_like(flat, dtype=torch.bool)
        # A stable sort, so that ties fall the same way on every machine.
        keep[flat.sort(descending=True, stable=True).indices[:budget]] = True
        sizes = [len(score) for score in scores.values()]
        return dict(zip(scores, keep.split(sizes), strict=True))

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {
            f"{name}.{factor}": getattr(layer, factor)
            for name, layer in self.layers.items()
            for factor in ("lora_A", "lora_E", "lora_B")
        }


def orthogonality_penalty(model: nn.Module) -> Tensor:
    """Sum over AdaLoRA layers of ||P'P - I||_F^2 + ||QQ' - I||_F^2.

    Args:
        model: A model adapted with `adapter="adalora"`.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: If the model has no AdaLoRA layers.
    """
    terms = [
        layer.orthogonality()
        for layer in adapters(model).values()
        if isinstance(layer, AdaLoRALinear)
    ]
    if not terms:
        raise ValueError(
            "orthogonality needs a model adapted with adapter='adalora', "
            f"got model without: {type(model).__name__}"
        )
    return torch.stack(terms).sum()
