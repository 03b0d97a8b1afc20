"""Training of the replicas that fit into memory together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from lora_dropout.data import Inputs, LossFn, map_inputs
from lora_dropout.replicas.optimizer import StackedAdamW, clip_rows
from lora_dropout.replicas.order import BatchOrder
from lora_dropout.replicas.stack import Stack
from lora_dropout.training.fit_config import FitConfig
from lora_dropout.training.penalty import drop_probability


@dataclass(frozen=True)
class Setting:
    """One replica with nothing left open.

    Attributes:
        seed: Seed of data order and masks.
        examples: Indices into the training set, int64.
        learning_rate: Peak rate.
        dropout: Rate p.
        regularization: Weight lambda.
        init_seed: See `Replica`.
    """

    seed: int
    examples: Tensor
    learning_rate: float
    dropout: float
    regularization: float
    init_seed: int | None


class Chunk:
    """K replicas in training, as `fit` would train each of them.

    Args:
        stack: The model, on its device and in training mode.
        inputs: Inputs of the shared training set, on that device.
        targets: Targets.
        settings: The replicas.
        config: What they share.
        loss_fn: (outputs, targets) -> scalar, a mean over examples.
    """

    def __init__(
        self,
        stack: Stack,
        inputs: Inputs,
        targets: Tensor,
        settings: Sequence[Setting],
        config: FitConfig,
        loss_fn: LossFn,
    ) -> None:
        self.stack, self.inputs, self.targets = stack, inputs, targets
        self.config, self.loss_fn = config, loss_fn
        device, adapter = stack.device, stack.config
        self.rates = [setting.dropout for setting in settings]
        # Without masks all instances agree: `fit` draws one, and one is computed.
        masked = [adapter.mask != "none" and rate > 0 for rate in self.rates]
        self.masked = any(masked)
        self.dealt = self.masked and config.mode == "grouped"
        self.order = BatchOrder(
            [setting.examples for setting in settings],
            [setting.seed for setting in settings],
            batch_size=config.batch_size,
            n_instances=[config.n_instances if on else 1 for on in masked],
            blocks=config.n_instances if self.dealt else 1,
        )
        self.rows = torch.stack([stack.initial(setting.init_seed) for setting in settings])
        self.start = self.rows.clone()
        self.optimizer = StackedAdamW(self.rows, weight_decay=config.weight_decay)
        self.weights = self.order.weights.to(device, self.rows.dtype)

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        self.peaks = column([setting.learning_rate for setting in settings])
        self.scales = column([adapter.at_rate(rate).mask_scale for rate in self.rates])
        self.penalties = column(
            [s.regularization * drop_probability(adapter.mask, s.dropout) for s in settings]
        ).to(self.rows.dtype)
        self.penalized = bool(self.penalties.any())
        self.is_factor = stack.is_factor.to(device)
        self.epoch = 0
        self.objective = torch.full((len(settings), config.epochs), torch.nan, dtype=torch.float64)
        # Step (from 1) at which a loss or a gradient was not finite; 0: none was.
        self.diverged = torch.zeros(len(settings), dtype=torch.int64, device=device)

    def train_epoch(self) -> None:
        """Train all replicas for one epoch; those that have diverged stand still."""
        indices, seeds = self.order.draw()
        indices, seeds = indices.to(self.stack.device), seeds.to(self.stack.device)
        factors, counts = self._schedule()
        total = torch.zeros(len(self.rows), dtype=torch.float64, device=self.stack.device)
        for step, (chosen, drawn) in enumerate(zip(indices, seeds, strict=True)):
            weights = self.weights[step]
            loss, gradient = self._gradient(chosen, drawn, weights)
            present = weights.count_nonzero(dim=1)
            running = (present > 0) & (self.diverged == 0)
            finite = loss.isfinite() & gradient.isfinite().all(dim=1)
            self.diverged += (running & ~finite) * counts[step].long()
            if self.config.max_grad_norm is not None:
                gradient = clip_rows(gradient, self.config.max_grad_norm)
            self.optimizer.step(
                gradient,
                rate=self.peaks * factors[step],
                count=counts[step],
                moving=running & finite,
            )
            total += torch.where(present > 0, loss * present, 0.0)
        mean = total.cpu() / self.order.sizes
        self.objective[:, self.epoch] = mean.masked_fill(self.diverged.cpu() > 0, torch.nan)
        self.epoch += 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold.

        Returns:
            Tensors and numbers.
        """
        return {
            "epoch": self.epoch,
            "rows": self.rows,
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.state(),
            "objective": self.objective,
            "diverged": self.diverged,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state`.

        Args:
            state: The state.
        """
        self.epoch = state["epoch"]
        self.rows.copy_(state["rows"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.restore(state["order"])
        self.objective.copy_(state["objective"])
        self.diverged.copy_(state["diverged"])

    def _gradient(self, chosen: Tensor, seeds: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """One step's loss and gradient.

        Returns:
            (masked loss of each replica, shape (K,); the objective's gradient, shape (K, P)).
        """
        if self.dealt:
            shape = (seeds.shape[1], -1)
            chosen, weights = chosen.unflatten(1, shape), weights.unflatten(1, shape)
        rows = self.rows.detach().requires_grad_()
        masks = self.stack.draw(seeds, self.rates) if self.masked else None
        losses = self.stack.apply(
            self._mean_loss,
            rows,
            map_inputs(lambda t: t[chosen], self.inputs),
            self.targets[chosen],
            weights,
            masks=masks,
            scales=self.scales,
            dealt=self.dealt,
        )
        loss = losses.sum(dim=1) if self.dealt else losses.mean(dim=1)
        objective = loss
        if self.stack.config.adapter == "adalora" and self.config.orthogonality:
            objective = objective + self.config.orthogonality * self.stack.orthogonality(rows)
        if self.penalized:
            moved = (rows - self.start)[:, self.is_factor]
            objective = objective + self.penalties * moved.square().sum(dim=1)
        # Row k of the parameters enters loss k alone, so one sweep gives every gradient.
        (gradient,) = torch.autograd.grad(objective.sum(), rows)
        return loss.detach(), gradient

    def _mean_loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        each = vmap(lambda output, target: self.loss_fn(output[None], target[None]))
        losses = each(outputs, targets)
        return torch.where(weights > 0, losses * weights, 0.0).sum()

    def _schedule(self) -> tuple[Tensor, Tensor]:
        """This epoch's schedule.

        Returns:
            (rate factor, step number) of each step of each replica, both of shape (S, K).
        """
        steps = self.order.steps
        most = int(steps.max())
        counts = self.epoch * steps + torch.arange(1, most + 1)[:, None]
        factors = torch.zeros(most, len(steps), dtype=torch.float64)
        for n in steps.unique().tolist():
            done = range(self.epoch * n, (self.epoch + 1) * n)
            total = n * self.config.epochs
            values = [self.config.rate_factor(step, total_steps=total) for step in done]
            factors[:n, steps == n] = torch.tensor(values, dtype=torch.float64)[:, None]
        device = self.stack.device
        return factors.to(device), counts.double().to(device)
