"""What the training of many replicas left behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from lora_dropout.adapters.adapt import need_adapters, trainable_parameters
from lora_dropout.data import Inputs, batch_length, map_inputs, model_device
from lora_dropout.door import check_choice, check_count
from lora_dropout.prediction.averaging import Average, Averaging, average_members, check_averaging
from lora_dropout.prediction.ensemble import Prediction, split_inputs
from lora_dropout.replicas.memory import default_pass_rows
from lora_dropout.replicas.stack import Stack
from lora_dropout.seeds import check_seed, seeded_generator


@dataclass(frozen=True, eq=False)
class Replicas:
    """K trained replicas of one adapter.

    Attributes:
        parameters: Name -> values of all replicas, shape (K, *shape), on the CPU.
        dropout: Dropout rate of each replica.
        objective: Mean masked training loss of each epoch (without penalties), float64 of shape
            (K, epochs); NaN from the epoch in which a replica diverged.
        diverged: Index of a replica whose loss or gradient was not finite -> the step (from 1) at
            which that was. It kept the weights from before this step.
    """

    parameters: Mapping[str, Tensor]
    dropout: tuple[float, ...]
    objective: Tensor
    diverged: Mapping[int, int]

    def __len__(self) -> int:
        return len(self.dropout)

    def load(self, model: nn.Module, index: int) -> nn.Module:
        """Put one replica into a model, its dropout rate included.

        Args:
            model: The model that was trained, or one adapted as it was.
            index: Which replica, 0 <= index < K.

        Returns:
            The same model.

        Raises:
            IndexError: If there is no such replica.
            ValueError: If the model's trainable parameters are others.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}), got index={index}")
        here = trainable_parameters(model)
        self._check_fits(here)
        with torch.no_grad():
            for name, parameter in here.items():
                parameter.copy_(self.parameters[name][index])
        for layer in need_adapters(model).values():
            layer.config = layer.config.at_rate(self.dropout[index])
        return model

    @torch.no_grad()
    def outputs(
        self,
        model: nn.Module,
        inputs: Inputs,
        *,
        inference: Prediction = "mean",
        n_instances: int = 4,
        seed: int | Sequence[int] = 0,
        average: Average | Averaging | None = None,
        max_rows: int = 1024,
    ) -> Tensor:
        """Predict with all replicas, as `predict` does with one.

        Args:
            model: The model that was trained, or one adapted as it was; it stays as it is, and
                runs in eval mode.
            inputs: b examples.
            inference: `mean` (each replica's update scaled to the mean of its own mask), `raw` or
                `ensemble`.
            n_instances: Ensemble size N.
            seed: Seed of the ensemble's masks, one for all replicas or one for each: those of
                `predict` with `seeded_generator(seed)`.
            average: What the ensemble averages (see `ensemble_predict`).
            max_rows: Greatest number of examples of one replica in one pass (see
                `ensemble_predict`); where they are large, fewer are taken.

        Returns:
            Logits, shape (K, b, ...), on the model's device.

        Raises:
            ValueError: If an argument is not allowed, or the model is another one.
        """
        check_choice("inference", inference, get_args(Prediction))
        averaging = check_averaging(average, model)
        check_count("n_instances", n_instances)
        check_count("max_rows", max_rows)
        seeds = None
        if inference == "ensemble":
            seeds = self._mask_seeds(seed, n_instances)
        self._check_fits(trainable_parameters(model))
        stack = Stack(model)
        stack.model.eval()
        device = model_device(model)
        inputs = map_inputs(lambda t: t.to(device), inputs)
        members = 1 if seeds is None else n_instances
        fitting = default_pass_rows(stack, inputs)
        if stack.config.mask != "activation":  # whose bits go by the place in the pass
            max_rows = min(max_rows, max(1, fitting // members))
        together = fitting // (min(batch_length(inputs), max_rows) * members)
        rows = torch.cat([self.parameters[name].flatten(1) for name in stack.parameters], dim=1)
        groups = stack.groups(self.dropout, max(1, together))
        done = []
        for chosen in groups:
            rates = [self.dropout[k] for k in chosen]
            parts = [
                _predict(
                    stack,
                    rows[chosen].to(device),
                    rates,
                    part,
                    inference,
                    None if seeds is None else seeds[chosen],
                    averaging,
                )
                for part in split_inputs(inputs, max_rows)
            ]
            done.append(torch.cat(parts, dim=1))
        return torch.cat(done)[
            torch.tensor([k for chosen in groups for k in chosen], device=device).argsort()
        ]

    def _mask_seeds(self, seed: int | Sequence[int], n_instances: int) -> Tensor:
        given = [seed] * len(self) if isinstance(seed, int) else list(seed)
        own = [check_seed("seed", one) for one in given]
        if len(own) != len(self):
            raise ValueError(f"seed must be one, or one for each of {len(self)}, got {len(own)}")
        drawn = {
            one: torch.randint(-(2**63), 2**63 - 1, (n_instances,), generator=seeded_generator(one))
            for one in set(own)
        }
        return torch.stack([drawn[one] for one in own])

    def _check_fits(self, here: Mapping[str, Tensor]) -> None:
        shapes = {name: tuple(p.shape) for name, p in here.items()}
        stored = {name: tuple(p.shape[1:]) for name, p in self.parameters.items()}
        if shapes != stored:
            odd = sorted(dict(shapes.items() ^ stored.items()))
            raise ValueError(f"model must be the one that was trained, parameters differ in {odd}")


def _predict(
    stack: Stack,
    rows: Tensor,
    rates: list[float],
    inputs: Inputs,
    inference: Prediction,
    seeds: Tensor | None,
    averaging: Averaging,
) -> Tensor:
    configs = [stack.config.at_rate(rate) for rate in rates]
    masks = None
    if seeds is not None and stack.config.mask != "none":
        masks = stack.draw(seeds.to(rows.device), rates)
    if seeds is not None:
        scales = [config.mask_scale for config in configs]
    else:
        scales = [config.mean_factor if inference == "mean" else 1.0 for config in configs]
    factors = torch.tensor(scales, dtype=torch.float64, device=rows.device)
    members = stack.apply(_itself, rows, inputs, masks=masks, scales=factors, common=True)
    if seeds is None:
        return members[:, 0]
    return torch.stack([average_members(replica, averaging) for replica in members])


def _itself(outputs: Tensor) -> Tensor:
    return outputs
