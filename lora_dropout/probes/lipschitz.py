"""Lipschitz constants of an example's loss in the trained parameters.

rho is that of the loss l, eta that of the regularised loss l + weight ||theta - center||^2, which
arXiv 2404.09610 v1, Lemma A.1, takes. What sampling finds is a lower bound on the true constant.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from lora_dropout.adapters.lora import LoRALinear
from lora_dropout.data import Data
from lora_dropout.door import (
    MOST,
    Held,
    NonNegative,
    Positive,
    check_count,
    check_numbers,
    checked,
)
from lora_dropout.probes.adapter_objective import AdapterObjective, as_array
from lora_dropout.probes.intervals import Array, Direction

BoundedLoss = Literal["cross_entropy", "mse"]


@dataclass(frozen=True, eq=False)
class SegmentLipschitz:
    """Slopes of n examples' losses along the segment between two points.

    Attributes:
        distance: Length of the segment.
        secants: |l(u) - l(v)| / ||u - v||, shape (n,): all that the step from ||u - v|| to a change
            of loss uses (0 on a segment of length 0).
        regularized_secants: The same for the regularised loss.
        gradient_norms: Largest gradient norm seen on the segment, shape (n,).
        regularized_gradient_norms: The same for the regularised loss.
        direction: Of the gradient norms: `lower` bounds on those of the whole segment, or `exact`
            for a loss that is quadratic in the parameters. Secants are exact, and never above the
            true constants of the segment.
    """

    distance: float
    secants: Array
    regularized_secants: Array
    gradient_norms: Array
    regularized_gradient_norms: Array
    direction: Direction

    @property
    def rho(self) -> float:
        """Largest gradient norm of the loss over examples."""
        return float(self.gradient_norms.max())

    @property
    def eta(self) -> float:
        """Largest gradient norm of the regularised loss over examples."""
        return float(self.regularized_gradient_norms.max())


@checked
def segment_lipschitz(
    objective: AdapterObjective,
    start: Tensor,
    end: Tensor,
    *,
    n_points: Annotated[int, partial(check_count, minimum=2, maximum=MOST)] = 11,
    quadratic: bool = False,
) -> SegmentLipschitz:
    """Measure slopes along the segment between two solutions.

    Args:
        objective: Losses and penalty.
        start: One end u, shape (P,).
        end: The other end v, shape (P,).
        n_points: Points at equal distances, both ends included, at least 2.
        quadratic: The loss is known to be quadratic in the parameters. Its gradient is then affine
            along the segment and longest at an end, so that the values are exact.

    Returns:
        The slopes of every example.

    Raises:
        ValueError: If `quadratic` is claimed and the gradients at the middle deny it.
    """
    ends = objective.check_point("start", start), objective.check_point("end", end)
    return slopes_between(objective, *ends, n_points=n_points, quadratic=quadratic)


def slopes_between(
    objective: AdapterObjective,
    start: Tensor,
    end: Tensor,
    *,
    n_points: int,
    quadratic: bool = False,
) -> SegmentLipschitz:
    """As `segment_lipschitz`, for points that are known to be the objective's."""
    losses_u, losses_v = objective.losses(start), objective.losses(end)
    distance = float((end - start).norm())
    change = losses_v - losses_u
    penalty = objective.penalty(end) - objective.penalty(start)
    if quadratic:
        _check_quadratic(objective, start, end)
    best = regularized = None
    for share in torch.linspace(0.0, 1.0, n_points, dtype=objective.dtype).tolist():
        point = start + share * (end - start)
        gradients = objective.example_gradients(point)
        norms = gradients.norm(dim=1)
        pulled = (gradients + objective.penalty_gradient(point)).norm(dim=1)
        best = norms if best is None else torch.maximum(best, norms)
        regularized = pulled if regularized is None else torch.maximum(regularized, pulled)
    assert best is not None and regularized is not None
    divisor = distance if distance > 0 else float("inf")
    return SegmentLipschitz(
        distance=distance,
        secants=as_array(change.abs() / divisor),
        regularized_secants=as_array((change + penalty).abs() / divisor),
        gradient_norms=as_array(best),
        regularized_gradient_norms=as_array(regularized),
        direction="exact" if quadratic else "lower",
    )


@dataclass(frozen=True, eq=False)
class BallLipschitz:
    """Slopes of n examples' losses over a ball.

    Attributes:
        radius: Of the ball.
        gradient_norms: Largest gradient norm found for each example, shape (n,).
        direction: `lower`: the ascent may have missed a greater one.
    """

    radius: float
    gradient_norms: Array
    direction: Direction = "lower"

    @property
    def rho(self) -> float:
        """Largest gradient norm found over examples."""
        return float(self.gradient_norms.max())


@checked
def ball_lipschitz(
    objective: AdapterObjective,
    middle: Tensor,
    radius: Positive,
    *,
    n_starts: Held = 4,
    n_steps: Annotated[int, partial(check_count, minimum=0, maximum=MOST)] = 10,
    generator: torch.Generator | None = None,
) -> BallLipschitz:
    """Search a ball for the steepest point of each example's loss (penalty left out).

    Projected gradient ascent on the squared gradient norm: from the middle, and from random points
    of the ball; steps of a quarter of the radius along the normalised direction, then halved each
    time. The greatest value of all steps is kept.

    Args:
        objective: Losses; the penalty plays no part.
        middle: Center of the ball, shape (P,).
        radius: Its radius, positive.
        n_starts: Starting points, the middle among them.
        n_steps: Steps from each.
        generator: CPU generator of the random points; None is torch's global one.

    Returns:
        Lower bounds on the constants over the ball.

    Raises:
        ValueError: If slopes in the ball are not finite.
    """
    middle = objective.check_point("middle", middle)
    n, size = len(objective.targets), len(middle)
    every = torch.arange(n, device=middle.device)
    best = torch.zeros(n, dtype=objective.dtype, device=middle.device)
    for start in range(n_starts):
        offset = torch.zeros(n, size, dtype=objective.dtype)
        if start > 0:
            offset = torch.randn(n, size, generator=generator, dtype=objective.dtype)
            lengths = torch.rand(n, 1, generator=generator, dtype=objective.dtype) ** (1.0 / size)
            offset = offset / offset.norm(dim=1, keepdim=True) * lengths * radius
        offset = offset.to(middle.device)
        for step in range(n_steps + 1):
            points = middle + offset
            norms, ascent = objective.steepness(points, every)
            best = torch.maximum(best, norms)
            length = ascent.norm(dim=1, keepdim=True).clamp(min=torch.finfo(best.dtype).tiny)
            offset = offset + ascent / length * (radius * 0.25 * 0.5 ** (step // 3))
            outside = offset.norm(dim=1, keepdim=True).clamp(min=radius) / radius
            offset = offset / outside
    if not best.isfinite().all():
        raise ValueError(f"radius must leave all slopes finite, got radius={radius!r}")
    return BallLipschitz(radius, as_array(best))


@checked
def linear_layer_lipschitz(
    model: object, data: Data, radius: NonNegative, *, loss: BoundedLoss
) -> Array:
    """Bound the slopes over a ball of the factors from above, for a model of one adapted layer.

    With h = W0 x + s B A x, masks or none, the gradient of an example in (A, B) is at most
    s ||g|| ||x|| sqrt(||A||^2 + ||B||^2) in spectral norms, g the slope in h. On the ball of radius
    D around the factors that root is at most T = sqrt(||A0||^2 + ||B0||^2) + D, and ||B A|| is at
    most T^2 / 2. For cross-entropy ||g|| <= sqrt(2); for the squared error it is bounded through h.
    Dropping rows, columns or ranks only shortens vectors; masks that rescale, and masks on the
    entries of B A (which can raise its spectral norm), are refused.

    Args:
        model: An `nn.Sequential` of one LoRA layer, or the layer itself.
        data: (inputs, targets) of n examples: inputs of shape (n, in_features).
        radius: D, non-negative, around the model's factors.
        loss: `cross_entropy`, or `mse` (mean over outputs), as in torch.

    Returns:
        Upper bounds on every example's constant rho over the ball, shape (n,).

    Raises:
        ValueError: If the model is another one, or its masks are not of that kind.
    """
    inputs, targets = data
    parts = list(model) if isinstance(model, nn.Sequential) else [model]
    if len(parts) != 1 or not isinstance(parts[0], LoRALinear) or not isinstance(inputs, Tensor):
        raise ValueError(f"model must be one LoRA layer on a tensor, got {type(model).__name__}")
    check_numbers("data", inputs)
    if targets.is_floating_point():
        check_numbers("data", targets)
    layer = parts[0]
    law = layer.config.mask
    if layer.config.mask_scale > 1 or law in ("activation", "entrywise"):
        raise ValueError(
            "masks must keep or drop whole rows, columns or ranks, without rescaling, got "
            f"mask={law!r}, rescale={layer.config.rescale}"
        )
    with torch.no_grad():
        x, A, B = inputs.double(), layer.lora_A.double(), layer.lora_B.double()
        lengths = x.flatten(1).norm(dim=1)
        total = float(torch.linalg.matrix_norm(A, 2) ** 2 + torch.linalg.matrix_norm(B, 2) ** 2)
        reach = total**0.5 + radius
        if loss == "cross_entropy":
            slope = torch.full_like(lengths, 2.0**0.5)
        else:
            base = layer.base_layer(inputs).double()
            residual = (base - targets.double()).flatten(1)
            far = residual.norm(dim=1) + layer.scaling * lengths * reach**2 / 2.0
            slope = 2.0 * far / residual.shape[1]
        return as_array(layer.scaling * slope * lengths * reach)


def _check_quadratic(objective: AdapterObjective, start: Tensor, end: Tensor) -> None:
    ends = [objective.example_gradients(point) for point in (start, end)]
    middle = objective.example_gradients((start + end) / 2.0)
    error = float((middle - (ends[0] + ends[1]) / 2.0).norm(dim=1).max())
    scale = max(float(gradients.norm(dim=1).max()) for gradients in ends)
    if error > 1e-6 * scale:
        raise ValueError(
            "quadratic=True needs gradients that are affine along the segment, got a deviation of "
            f"{error!r} at its middle, beside norms of {scale!r}"
        )
