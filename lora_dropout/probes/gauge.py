"""Directions in the factors that leave the update alone: (A, B) -> (G^-1 A, B G) for invertible G.

The update B A stays as it is under all of GL(r), so the loss is constant along r^2 directions a
layer: (-X A, B X). Row and column masks, and masks on entries or inputs, commute with that; rank
masks commute with diagonal G alone. AdaLoRA's P Lambda Q has r more, the scale between Lambda and
Q.

At a stationary point of a function of B A the Hessian is zero on these directions (each is tangent
to a curve of stationary points). Elsewhere, along c(t) = (exp(-t X) A, B exp(t X)), the constant
loss has 0 = c'' . gradient + c' Hessian c', so that they curve as much as the gradient is away from
0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_dropout.adapters.adapt import need_adapters, trainable_parameters
from lora_dropout.adapters.lora import AdaLoRALinear, AdapterLinear
from lora_dropout.adapters.use_masks import Masks
from lora_dropout.door import checked, unchecked
from lora_dropout.probes.adapter_objective import AdapterObjective


@dataclass(frozen=True, eq=False)
class GaugeSpace:
    """The span of the gauge directions at a point, layer by layer.

    Attributes:
        size: Number of parameters P.
        places: For each layer, where its factors are in the vector of parameters.
        bases: For each layer, an orthonormal basis, shape (dimension, len(places)).
    """

    size: int
    places: tuple[Tensor, ...]
    bases: tuple[Tensor, ...]

    @property
    def dimension(self) -> int:
        """Number of directions in all."""
        return sum(len(basis) for basis in self.bases)

    def vectors(self, coordinates: Tensor) -> Tensor:
        """Turn coordinates in the bases into vectors of parameters.

        Args:
            coordinates: Shape (K, dimension).

        Returns:
            Shape (K, P).
        """
        result = coordinates.new_zeros(len(coordinates), self.size)
        parts = coordinates.split([len(basis) for basis in self.bases], dim=1)
        for place, basis, part in zip(self.places, self.bases, parts, strict=True):
            result[:, place] = part @ basis
        return result

    def coordinates(self, vectors: Tensor) -> Tensor:
        """Project vectors of parameters on the bases.

        Args:
            vectors: Shape (K, P).

        Returns:
            Shape (K, dimension).
        """
        layers = zip(self.places, self.bases, strict=True)
        parts = [vectors[:, place] @ basis.T for place, basis in layers]
        return torch.cat([vectors.new_zeros(len(vectors), 0), *parts], dim=1)


@checked
def gauge_space(objective: AdapterObjective, theta: Tensor | None = None) -> GaugeSpace:
    """Find the gauge directions of every adapter.

    Args:
        objective: The objective; with rank masks only the diagonal G count.
        theta: Point, shape (P,); None is the model's.

    Returns:
        Their span. Where a factor has rank below r some directions vanish or coincide, and the
        dimension is below r^2 (at the usual start, B = 0, it is r * rank(A)).
    """
    theta = objective.point() if theta is None else objective.check_point("theta", theta)
    values = objective.unflatten(theta)
    offsets, total = {}, 0
    for name, parameter in unchecked(trainable_parameters)(objective.model).items():
        offsets[id(parameter)] = (name, total)
        total += parameter.numel()
    places, bases = [], []
    for layer in need_adapters(objective.model).values():
        factors = {"A": layer.lora_A, "B": layer.lora_B}
        if isinstance(layer, AdaLoRALinear):
            factors["E"] = layer.lora_E
        found = {key: offsets[id(parameter)] for key, parameter in factors.items()}
        tensors = {key: values[name].to(objective.dtype) for key, (name, _) in found.items()}
        diagonal = isinstance(objective.masks, Masks) and layer.config.mask == "rank"
        tangents = _tangents(layer, tensors, diagonal=diagonal)
        place = [start + torch.arange(tensors[key].numel()) for key, (_, start) in found.items()]
        flat = torch.cat([tangents[key].flatten(1) for key in found], dim=1)
        places.append(torch.cat(place).to(flat.device))
        bases.append(_orthonormal(flat))
    return GaugeSpace(total, tuple(places), tuple(bases))


def _tangents(layer: AdapterLinear, at: dict[str, Tensor], *, diagonal: bool) -> dict[str, Tensor]:
    # One row a generator: X = e_i e_j' over all (i, j), or over i = j.
    A, B = at["A"], at["B"]
    rank = len(A)
    units = torch.eye(rank * rank, dtype=A.dtype, device=A.device).view(-1, rank, rank)
    on = torch.arange(rank) * (rank + 1)
    if not isinstance(layer, AdaLoRALinear):
        X = units[on] if diagonal else units
        return {"A": -X @ A, "B": B @ X}
    # Off the diagonal P (Lambda Z) and -(Z Lambda) Q, which needs no division by Lambda; on it the
    # scales between P and Lambda and between Lambda and Q.
    E, zero = at["E"], units.new_zeros(rank, rank, 1)
    Z = units[torch.ones(rank * rank, dtype=torch.bool).scatter(0, on, False)]
    Z = Z[:0] if diagonal else Z
    D = units[on]
    return {
        "A": torch.cat([-(Z * E.T) @ A, 0 * D @ A, -D @ A]),
        "B": torch.cat([B @ (E * Z), B @ D, 0 * B @ D]),
        "E": torch.cat([zero[:1].expand(len(Z), -1, -1), -D @ E, D @ E]),
    }


def _orthonormal(rows: Tensor) -> Tensor:
    _, scales, basis = torch.linalg.svd(rows, full_matrices=False)
    cut = scales.max() * max(rows.shape) * torch.finfo(rows.dtype).eps if len(scales) else 0.0
    return basis[scales > cut]
