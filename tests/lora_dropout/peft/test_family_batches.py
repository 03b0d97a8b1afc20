"""One pass over several instances against a pass for each, over the families of models."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_dropout import sample_masks, use_masks
from lora_dropout.peft import attach
from tests.lora_dropout.peft.families import FAMILIES, family_batch, family_model
from tests.lora_dropout.strategies import close

ROUTE = {torch.float64: 1e-10, torch.float32: 1e-4}
pytestmark = pytest.mark.filterwarnings("ignore")
_SINGLE = ("mixtral", "qwen2_moe")  # their experts' kernel knows no float64


def outputs(found: Any, rows: int) -> list[Tensor]:
    """The floating-point tensors with the batch first, those of tuples too, without the loss."""
    if isinstance(found, Tensor):
        return [found] if found.is_floating_point() and found.shape[:1] == (rows,) else []
    if isinstance(found, Mapping):
        found = [value for key, value in found.items() if key != "loss"]
    if not isinstance(found, (tuple, list)):
        return []
    return [tensor for part in found for tensor in outputs(part, rows)]


def gradient(model: nn.Module, parts: list[Tensor]) -> Tensor:
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = torch.stack([part.square().sum() for part in parts]).sum()
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([grad.flatten() for grad in found])


@pytest.mark.parametrize("name", FAMILIES)
def test_one_pass_is_a_pass_for_each(name: str) -> None:
    model, part = attach(family_model(name, fresh=False), dropout=0.4), family_batch(name)
    if not name.startswith(_SINGLE):
        model.double()
        part = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v
                for k, v in part.items()}  # fmt: skip
    if name == "yolos-boxes":
        del part["labels"]  # boxes by image, no tensor to copy
    rows = len(next(iter(part.values())))
    masks = sample_masks(model, seeds=torch.arange(2) + 3)
    alone = []
    for index in range(2):
        with use_masks(model, masks.select(index)):
            alone.append(outputs(model(**part), rows))
    copies = {key: value.repeat(2, *[1] * (value.dim() - 1)) for key, value in part.items()}
    with use_masks(model, masks, rows=2 * rows):
        found = outputs(model(**copies), 2 * rows)
    assert found and any(not torch.equal(a, b) for a, b in zip(*alone, strict=True))
    tier = ROUTE[found[0].dtype]
    for first, second, both in zip(*alone, found, strict=True):
        close(both, torch.cat([first, second]), tier)
    expected = gradient(model, alone[0]) + gradient(model, alone[1])
    close(gradient(model, found), expected, tier * float(expected.abs().max()))
    # Grouped: the first row of each pass is the first instance's, the last row the second's.
    with use_masks(model, masks, rows=rows):
        dealt = outputs(model(**part), rows)
    for first, second, mixed in zip(*alone, dealt, strict=True):
        close(mixed[0], first[0], tier)
        close(mixed[-1], second[-1], tier)
