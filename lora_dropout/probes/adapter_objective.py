"""The training objective of an adapted model as a function of one vector.

f(theta) = (1/n) sum_i l(x_i; theta) + weight * ||theta - center||^2, under given masks or none; the
penalty is on the adapters' factors (not on `modules_to_save`), as in training. With weight =
lambda q this is arXiv 2404.09610 v1, Eq. 11; with weight 0 and N mask draws, Eq. 7.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lora_dropout.adapters.adapt import adapters, trainable_parameters
from lora_dropout.adapters.use_masks import Masks, check_masks, using
from lora_dropout.data import (
    Data,
    Inputs,
    LossFn,
    call_model,
    evaluating,
    map_inputs,
    model_device,
    n_examples,
    repeat_inputs,
)
from lora_dropout.door import Count, NonNegative, check_numbers, checked, short, unchecked
from lora_dropout.masks.config import Inference
from lora_dropout.probes.example_losses import example_losses
from lora_dropout.probes.intervals import Array
from lora_dropout.training.penalty import factor_names


class AdapterObjective:
    """Values, gradients and curvature products of the objective; the model is left as it is.

    A point theta is a vector of P numbers: the trained parameters (see `trainable_parameters`), one
    after another. Losses of an example are averaged over the mask draws.

    Args:
        model: An adapted model, not merged; it is evaluated in eval mode.
        data: (inputs, targets) of n examples.
        loss_fn: (outputs, targets) -> scalar, a mean over examples.
        masks: N mask draws, or `mean` or `raw` for none.
        weight: Weight of the penalty, lambda q in Eq. 11.
        center: Its center theta0, shape (P,); None is the origin.
        dtype: Precision of everything; the model's numbers are converted.
        max_rows: Greatest number of examples (times mask draws) in one pass; bounds memory.

    Raises:
        ValueError: If the data are empty, a layer is merged or the center has another length.
    """

    @checked
    def __init__(
        self,
        model: nn.Module,
        data: Data,
        *,
        loss_fn: LossFn = F.cross_entropy,
        masks: Masks | Inference = "mean",
        weight: NonNegative = 0.0,
        center: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        max_rows: Count = 1024,
    ) -> None:
        inputs, targets = data
        check_masks(model, masks)
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or float64, got dtype={short(dtype)}")
        merged = [name for name, layer in unchecked(adapters)(model).items() if layer.merged]
        if merged:
            raise ValueError(f"model must be unmerged, layers {merged} are merged")
        device = model_device(model)
        self.model, self.loss_fn, self.masks = model, loss_fn, masks
        self.weight, self.dtype, self.max_rows = weight, dtype, max_rows
        self.inputs = map_inputs(lambda t: self._convert(t.to(device)), inputs)
        self.targets = self._convert(targets.to(device))
        self._call = _Call(model)
        state = {**dict(self._call.named_parameters()), **dict(self._call.named_buffers())}
        self._state = {name: self._convert(tensor.detach()) for name, tensor in state.items()}
        trained = unchecked(trainable_parameters)(model)
        self.shapes = {name: p.shape for name, p in trained.items()}
        factors = set(factor_names(model))
        marks = {name: p.new_full(p.shape, name in factors) for name, p in trained.items()}
        self.penalized = self.flatten(marks)  # 1 for a factor's entry, 0 for other parameters
        self.center = (
            torch.zeros_like(self.point()) if center is None else self.check_point("center", center)
        )

    def point(self) -> Tensor:
        """The model's present parameters.

        Returns:
            Shape (P,).
        """
        return self.flatten(unchecked(trainable_parameters)(self.model))

    def flatten(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Put parameters into a vector.

        Args:
            parameters: Name -> tensor of shape (*batch, *shape), for every trained parameter.

        Returns:
            Shape (*batch, P).
        """
        parts = [
            self._convert(parameters[name].detach()).flatten(-len(shape) if shape else 0)
            for name, shape in self.shapes.items()
        ]
        return torch.cat(parts, dim=-1)

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Undo `flatten`.

        Args:
            theta: Shape (P,).

        Returns:
            Name -> tensor.
        """
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        return {
            name: part.view(shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def check_point(self, name: str, value: Tensor) -> Tensor:
        """Return a point in the objective's precision and place.

        Args:
            name: Name of the argument, for the message.
            value: Shape (P,).

        Returns:
            The point.

        Raises:
            TypeError: If it is no dense tensor of floating-point numbers.
            ValueError: If it has another shape, or its numbers are not finite.
        """
        check_numbers(name, value)
        point = self._vector(value, name)
        if not point.isfinite().all():
            raise ValueError(f"{name} must be finite, got {name}={short(value)} with infinities")
        return point

    def losses(self, theta: Tensor) -> Tensor:
        """Losses of the examples, without the penalty.

        Args:
            theta: Shape (P,).

        Returns:
            Shape (n,).
        """
        with self._ready(), torch.no_grad():
            theta = self._vector(theta)
            return torch.cat([self._losses(theta, *part) for part in self._parts()])

    def pair_losses(self, thetas: Tensor, examples: Tensor) -> Tensor:
        """Losses of example i_k at point k, without the penalty.

        Args:
            thetas: Shape (K, P).
            examples: Indices i_k, int64, shape (K,).

        Returns:
            Shape (K,).
        """
        with self._ready(), torch.no_grad():
            self._need_examples()
            return self._per_example(self._one_loss, thetas, examples)

    def penalty(self, theta: Tensor) -> Tensor:
        """The term weight * ||theta - center||^2.

        Args:
            theta: Shape (..., P).

        Returns:
            Shape (...).
        """
        return self.weight * (theta - self.center).square() @ self.penalized

    def penalty_gradient(self, theta: Tensor) -> Tensor:
        """Its gradient.

        Args:
            theta: Shape (..., P).

        Returns:
            Shape (..., P).
        """
        return 2.0 * self.weight * self.penalized * (theta - self.center)

    def value(self, theta: Tensor) -> float:
        """The objective.

        Args:
            theta: Shape (P,).

        Returns:
            Mean loss plus penalty.
        """
        return float(self.losses(theta).mean() + self.penalty(self._vector(theta)))

    def gradient(self, theta: Tensor) -> Tensor:
        """The objective's gradient.

        Args:
            theta: Shape (P,).

        Returns:
            Shape (P,).
        """
        theta = self._vector(theta)
        total = self.penalty_gradient(theta)
        with self._ready():
            for inputs, targets in self._parts():
                total = total + grad(self._mean)(theta, inputs, targets)
        return total.detach()

    def example_gradients(self, theta: Tensor, examples: Tensor | None = None) -> Tensor:
        """Gradients of the examples' losses, without the penalty.

        Args:
            theta: Shape (P,), or one point an example, shape (K, P).
            examples: Indices, int64, shape (K,); None is all of them.

        Returns:
            Shape (K, P).
        """
        with self._ready():
            self._need_examples()
            if examples is None:
                examples = torch.arange(len(self.targets), device=self.targets.device)
            points = self._convert(theta).expand(len(examples), -1)
            return self._per_example(grad(self._one_loss), points, examples).detach()

    def steepness(self, thetas: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient norms of example i_k at point k, and in which direction they grow.

        Args:
            thetas: Shape (K, P).
            examples: Indices i_k, int64, shape (K,).

        Returns:
            (norms of shape (K,), Hessian of the example's loss times its gradient, of shape (K, P):
            half the gradient of the squared norm).
        """

        def both(theta: Tensor, inputs: Inputs, target: Tensor) -> Tensor:
            slope, pull = vjp(lambda t: grad(self._one_loss)(t, inputs, target), theta)[:2]
            return torch.stack([slope, pull(slope)[0]])

        with self._ready():
            self._need_examples()
            found = self._per_example(both, thetas, examples).detach()
        return found[:, 0].norm(dim=1), found[:, 1]

    def hessian_products(self, theta: Tensor, vectors: Tensor) -> Tensor:
        """Products of the objective's Hessian, penalty included, with vectors.

        Args:
            theta: Shape (P,).
            vectors: Shape (K, P).

        Returns:
            Shape (K, P).
        """

        # The Hessian is symmetric, so reverse mode twice does; forward mode lacks more operations
        # and makes torch warn of its own use of TorchScript.
        def product(theta: Tensor, vector: Tensor, part: tuple[Inputs, Tensor]) -> Tensor:
            return vjp(lambda t: grad(self._mean)(t, *part), theta)[1](vector)[0]

        return self._products(product, theta, vectors)

    def gauss_newton_products(self, theta: Tensor, vectors: Tensor) -> Tensor:
        """Products of the generalised Gauss-Newton matrix, penalty included, with vectors.

        The matrix is J' H J with J the Jacobian of the outputs and H the Hessian of the loss in the
        outputs: the Hessian without the curvature of the network (Schraudolph 2002).

        Args:
            theta: Shape (P,).
            vectors: Shape (K, P).

        Returns:
            Shape (K, P).
        """

        def product(theta: Tensor, vector: Tensor, part: tuple[Inputs, Tensor]) -> Tensor:
            inputs, targets = part
            outputs, pull = vjp(lambda t: self._outputs(t, inputs), theta)[:2]
            # J v as the transpose of the linear map u -> J' u.
            pushed = vjp(lambda u: pull(u)[0], torch.zeros_like(outputs))[1](vector)[0]
            slope = grad(lambda o: self._mean_of(o, targets))
            return pull(vjp(slope, outputs)[1](pushed)[0])[0]

        return self._products(product, theta, vectors)

    def _products(
        self,
        product: Callable[[Tensor, Tensor, tuple[Inputs, Tensor]], Tensor],
        theta: Tensor,
        vectors: Tensor,
    ) -> Tensor:
        theta, vectors = self._vector(theta), self._convert(vectors)
        total = 2.0 * self.weight * self.penalized * vectors
        with self._ready():
            for part in self._parts():
                rows = len(part[1]) * self._n_instances
                several = vmap(
                    lambda v, part=part: product(theta, v, part),
                    chunk_size=max(1, self.max_rows // rows),
                )
                total = total + several(vectors)
        return total.detach()

    @property
    def _n_instances(self) -> int:
        return self.masks.n_instances if isinstance(self.masks, Masks) else 1

    def _parts(self) -> Iterator[tuple[Inputs, Tensor]]:
        step = max(1, self.max_rows // self._n_instances)
        for start in range(0, len(self.targets), step):
            stop = start + step
            yield map_inputs(lambda t: t[start:stop], self.inputs), self.targets[start:stop]  # noqa: B023

    def _outputs(self, theta: Tensor, inputs: Inputs) -> Tensor:
        # (N, b, ...): instance after instance.
        trained = {f"model.{name}": value for name, value in self.unflatten(theta).items()}
        repeated = repeat_inputs(inputs, self._n_instances)
        with using(self.model, self.masks, rows=n_examples(repeated)):
            outputs = functional_call(self._call, {**self._state, **trained}, (repeated,))
        return outputs.unflatten(0, (self._n_instances, -1))

    def _losses(self, theta: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
        outputs, each = self._outputs(theta, inputs), unchecked(example_losses)
        return torch.stack([each(self.loss_fn, o, targets) for o in outputs]).mean(0)

    def _mean_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # The share of these examples in the mean over all n.
        total = torch.stack([self.loss_fn(o, targets) for o in outputs]).mean()
        return total * (len(targets) / len(self.targets))

    def _mean(self, theta: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
        return self._mean_of(self._outputs(theta, inputs), targets)

    def _one_loss(self, theta: Tensor, inputs: Inputs, target: Tensor) -> Tensor:
        one = map_inputs(lambda t: t[None], inputs)
        return self._losses(theta, one, target[None])[0]

    def _per_example(
        self, function: Callable[..., Tensor], thetas: Tensor, examples: Tensor
    ) -> Tensor:
        picked = map_inputs(lambda t: t[examples], self.inputs)
        chunk = max(1, self.max_rows // self._n_instances)
        return vmap(function, chunk_size=chunk)(
            self._convert(thetas), picked, self.targets[examples]
        )

    def _need_examples(self) -> None:
        if isinstance(self.masks, Masks):
            for name, mask in self.masks.layers.items():
                if mask.law == "activation":
                    raise ValueError(
                        "masks of law 'activation' go by an example's place in the batch, so "
                        f"single examples have none; got one for layer {name!r}"
                    )

    def _convert(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _vector(self, theta: Tensor, name: str = "theta") -> Tensor:
        length = sum(shape.numel() for shape in self.shapes.values())
        if theta.shape != (length,):
            raise ValueError(f"{name} must have shape ({length},), got {tuple(theta.shape)}")
        return self._convert(theta.detach()).to(self.targets.device)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.model))
            # The fused kernels have no second derivative.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._n_instances > 1:
                # The batch is placed in the layers' inputs here: it cannot be under torch.func.
                inputs, _ = next(self._parts())
                with torch.no_grad():
                    self._outputs(self.point(), map_inputs(lambda t: t[:1], inputs))
            yield


class _Call(nn.Module):
    """A model that takes its inputs as one object and returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Inputs) -> Tensor:
        return call_model(self.model, inputs)


def as_array(tensor: Tensor) -> Array:
    """A tensor as an array of float64."""
    return tensor.double().cpu().numpy()
