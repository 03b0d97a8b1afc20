"""AdamW for many runs at once: one row a run, each with its own rate and step count."""

from collections.abc import Mapping

import torch
from torch import Tensor

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # torch.optim.AdamW's defaults


class StackedAdamW:
    """AdamW (arXiv 1711.05101) as `torch.optim.AdamW` computes it, for K independent rows.

    Args:
        parameters: Shape (K, P); updated in place.
        weight_decay: Decoupled decay.
    """

    def __init__(self, parameters: Tensor, *, weight_decay: float) -> None:
        self.parameters, self.weight_decay = parameters, weight_decay
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)

    @torch.no_grad()
    def step(self, gradient: Tensor, *, rate: Tensor, count: Tensor, moving: Tensor) -> None:
        """Take one step.

        Args:
            gradient: Shape (K, P); not read in rows that stand still.
            rate: Learning rate of each row, float64 of shape (K,).
            count: Number of this step in each row, from 1, shape (K,).
            moving: Which rows move, bool, shape (K,); the others keep parameters and moments.
        """
        dtype = self.parameters.dtype
        rate = rate * moving
        size = rate / (1.0 - _BETA_1**count)
        root = (1.0 - _BETA_2**count).sqrt()
        gradient = torch.where(moving[:, None], gradient, 0.0)
        moved = moving.to(dtype)
        first, second = moved * (1.0 - _BETA_1), moved * (1.0 - _BETA_2)
        self.mean.lerp_(gradient, first[:, None])
        self.square.lerp_(gradient.square(), second[:, None])
        if self.weight_decay:
            self.parameters.mul_((1.0 - rate * self.weight_decay).to(dtype)[:, None])
        scale = self.square.sqrt().div_(root.to(dtype)[:, None]).add_(_EPSILON)
        self.parameters.sub_(self.mean / scale * size.to(dtype)[:, None])

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold, beside the parameters.

        Returns:
            The moments.
        """
        return {"mean": self.mean, "square": self.square}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state of `state_dict`.

        Args:
            state: The state.
        """
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])


def clip_rows(gradient: Tensor, max_norm: float) -> Tensor:
    """Clip each row to a 2-norm, as `torch.nn.utils.clip_grad_norm_` clips one gradient.

    Args:
        gradient: Shape (K, P).
        max_norm: The greatest norm.

    Returns:
        Shape (K, P).
    """
    norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return gradient * (max_norm / (norms + 1e-6)).clamp(max=1.0)
