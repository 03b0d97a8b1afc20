"""A transformers model whose forward pass is the ensemble's (arXiv 2404.09610 v1, Eq. 8)."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lora_dropout.adapters.layer import masked_layers
from lora_dropout.adapters.use_masks import Masks, use_masks
from lora_dropout.peft.head_loss import head_loss
from lora_dropout.prediction.averaging import OUTPUTS, Averaging, MemberMean

# A cache belongs to one member's layers.
_CACHES = ("past_key_values", "mems", "cache_params", "past_buckets_states", "state")


FieldRule = Callable[[str], Averaging]


class MembersLoss(Tensor):
    """A mean of members' own losses, and what is made of it: torch hands the type on."""


class EnsembleForward:
    """Stands for a model's forward pass: N masked passes, one after another, and their average.

    Scores of classes are averaged by the task's rule, any other numbers (hidden states, boxes)
    plainly. Integers must be the same in all members; caches are left out. The loss is the head's
    own of the averaged outputs where `head_loss` knows it, and else the mean of the members', a
    `MembersLoss`. In a tuple a first entry of one number is the loss, and the scores come next.

    Args:
        model: The model.
        masks: Its N members.
        averaging: Name of an output -> its rule, asked after a first pass, which may state the
            problem.
        ignored: Outputs to leave out.
    """

    def __init__(
        self, model: Any, masks: Masks, averaging: FieldRule, ignored: Collection[str]
    ) -> None:
        self.model, self.masks, self.averaging = model, masks, averaging
        self.inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.forward = model.forward
        self.ignored = {*ignored, *_CACHES} - {"loss"}
        self.layers = masked_layers(model)
        self._forget_calls()

    def check_calls(self) -> None:
        """Check that no layer ran since the last pass: it would have been no member's.

        Raises:
            ValueError: If one did.
        """
        outside = next((name for name, layer in self.layers.items() if layer.called), None)
        if outside is not None:
            raise ValueError(
                f"an ensemble averages what its model returns, but layer {outside!r} ran outside "
                "of the model's forward pass (a part of the model was called by itself): call the "
                "model, or evaluate with inference='mean'"
            )

    def _forget_calls(self) -> None:
        for layer in self.layers.values():
            layer.called = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The ensemble's outputs.

        Args:
            *args: For the model.
            **kwargs: For the model.

        Returns:
            What the model returns.
        """
        self.check_calls()
        config = getattr(self.inner, "config", None)
        as_tuple = config is not None and not kwargs.get(
            "return_dict", getattr(config, "return_dict", True)
        )
        if as_tuple:
            kwargs["return_dict"] = True
        losses: list[Tensor] = []
        means: dict[str, _Mean] = {}
        given, loss_of = kwargs, None
        for index in range(self.masks.n_instances):
            with use_masks(self.model, self.masks.select(index)):
                member = self.forward(*args, **given)
            fields, rebuild = _fields(member)
            del member
            loss = fields.pop("loss", None)
            for name in self.ignored & fields.keys():
                del fields[name]
            if loss is not None:
                losses.append(loss)
            if index == 0:
                means = {name: _Mean(name, self.averaging(name)) for name in fields}
                if loss is not None:
                    loss_of = head_loss(self.inner, fields, kwargs, loss)
                if loss_of is not None:
                    given = _without_labels(self.inner, kwargs)
            for name in list(fields):
                means[name].add(fields.pop(name))
        self._forget_calls()
        result = {name: mean.result() for name, mean in means.items()}
        if losses:
            loss = None if loss_of is None else loss_of(result)
            if loss is None:
                loss = torch.stack(losses).mean(dim=0).as_subclass(MembersLoss)
            result = {"loss": loss, **result}
        output = rebuild(result)
        return output.to_tuple() if as_tuple else output


def _fields(output: Any) -> tuple[dict[str, Any], Callable[[dict[Any, Any]], Any]]:
    # Outputs by name, and what makes outputs of them again.
    if isinstance(output, Mapping):
        return dict(output), _shape_of(output)
    if not isinstance(output, (tuple, list)):
        return {"logits": output}, lambda fields: fields["logits"]
    first = output[0] if output else None
    loss = isinstance(first, Tensor) and first.dim() == 0 and first.is_floating_point()
    names = ["loss", "logits"] if loss else ["logits"]
    names += [f"outputs[{index}]" for index in range(len(names), len(output))]
    return dict(zip(names, output, strict=False)), _shape_of(output)


@contextmanager
def ensemble_forward(
    model: Any, masks: Masks, averaging: FieldRule, ignored: Collection[str]
) -> Iterator[EnsembleForward]:
    """Let a model's forward pass be its ensemble's.

    Args:
        model: The model.
        masks: The members.
        averaging: Name of an output -> its rule.
        ignored: Outputs to leave out.

    Yields:
        The ensemble's forward pass.
    """
    former = {name: vars(model).get(name) for name in ("forward", "generate")}
    ensemble = EnsembleForward(model, masks, averaging, ignored)
    try:
        model.forward, model.generate = ensemble, _refuse_generation
        yield ensemble
        ensemble.check_calls()
    finally:
        for name, value in former.items():
            if value is None:
                delattr(model, name)
            else:
                setattr(model, name, value)


def _refuse_generation(*_: Any, **__: Any) -> Any:
    raise ValueError(
        "an ensemble averages logits, and generates no tokens: evaluate with inference='mean'"
    )


def _without_labels(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    # The loss of these members is not needed, and would hold a language model's logits twice.
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return rest if type(model).__name__.endswith(_LANGUAGE_MODELS) else dict(inputs)
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is None or not type(model).__name__.endswith("ForConditionalGeneration"):
        return dict(inputs)
    if rest.get("decoder_input_ids") is None and rest.get("decoder_inputs_embeds") is None:
        rest["decoder_input_ids"] = shift(labels=inputs["labels"])
    return rest


_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForMaskedLM")


class _Mean:
    """The mean of one field, of any structure."""

    def __init__(self, name: str, averaging: Averaging) -> None:
        self.name, self.averaging = name, averaging
        self.first: Any = None
        self.parts: Any = None

    def add(self, value: Any) -> None:
        # A member's.
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            if self.parts is None:
                self.parts = MemberMean(self.averaging if value.dim() > 1 else OUTPUTS)
            self.parts.add(value)
            return
        if isinstance(value, (Mapping, tuple, list)):
            items = [*(value.items() if isinstance(value, Mapping) else enumerate(value))]
            if self.parts is None:
                self.first = _shape_of(value)
                self.parts = {k: _Mean(f"{self.name}[{k!r}]", self.averaging) for k, _ in items}
            for key, item in items:
                self.parts[key].add(item)
            return
        if not isinstance(value, (Tensor, int, float, str)):  # None, or a cache
            return
        if self.first is None:
            self.first = value
        if not bool(torch.as_tensor(self.first == value).all()):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"an ensemble averages logits, got outputs of {kind} in {self.name!r} that differ "
                "between members: leave them out (ignore_keys), or evaluate with "
                "inference='mean'"
            )

    def result(self) -> Any:
        if isinstance(self.parts, MemberMean):
            return self.parts.result()
        if self.parts is None:
            return self.first
        return self.first({key: part.result() for key, part in self.parts.items()})


def _shape_of(value: Any) -> Callable[[dict[Any, Any]], Any]:
    kind = type(value)
    if isinstance(value, Mapping):
        return lambda parts: parts if kind is dict else kind(**parts)
    if hasattr(kind, "_fields"):
        return lambda parts: kind(*parts.values())
    return lambda parts: kind(parts.values())
