"""Masks, instances and ensembles against the plain passes that they replace."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.turns import ratio_row, time_in_turn
from lora_dropout import LoRADropoutConfig, adapt, ensemble_predict, predict, sample_masks
from lora_dropout.adapters.use_masks import use_masks
from lora_dropout.tasks.vit import VisionTransformer
from lora_dropout.training.objective import InstanceMode, instance_loss


def digits_model(dropout: float, device: torch.device, mask: str = "row_column") -> nn.Module:
    """The digits transformer with random weights and adapters whose B is not zero."""
    torch.manual_seed(0)
    config = LoRADropoutConfig(
        rank=8,
        alpha=16.0,
        dropout=dropout,
        mask=mask,  # type: ignore[arg-type]
        target_modules=r"blocks\..*",
    )
    model = adapt(VisionTransformer(), config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model.to(device)


def _batch(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(size, 8, 8, generator=generator)
    return images.to(device), torch.randint(10, (size,), generator=generator).to(device)


def _step(
    size: int, instances: int, mode: InstanceMode, device: torch.device
) -> Callable[[], object]:
    model = digits_model(0.5, device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    images, labels = _batch(size, device)
    draws = torch.Generator().manual_seed(2)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        masks = sample_masks(model, n_instances=instances, generator=draws)
        instance_loss(model, images, labels, masks=masks, mode=mode).backward()
        optimizer.step()

    return step


def instances(device: torch.device, rounds: int, settle: Callable[[], object]) -> list[dict]:
    """Eq. 7 with N = 4: dealt out over the batch against N = 1; in one pass against four."""
    model = digits_model(0.5, device).train()
    images, labels = _batch(8, device)
    masks = sample_masks(model, n_instances=4, generator=torch.Generator().manual_seed(0))
    modes: tuple[InstanceMode, ...] = ("loop", "batched")
    losses = [instance_loss(model, images, labels, masks=masks, mode=m).item() for m in modes]
    assert abs(losses[0] - losses[1]) < 1e-5 * abs(losses[0]), losses
    rows = []
    for size in (4, 32, 128):
        steps = {
            "N = 1": _step(size, 1, "batched", device),
            "N = 4, grouped": _step(size, 4, "grouped", device),
            "N = 4, batched": _step(size, 4, "batched", device),
            "N = 4, four passes": _step(size, 4, "loop", device),
        }
        seen = time_in_turn(steps, rounds=rounds, settle=settle, title=f"instances, batch {size}")
        rows.append(ratio_row(seen, "N = 4, grouped", "N = 1", batch=size, target=1.05))
        rows.append(ratio_row(seen, "N = 4, batched", "N = 4, four passes", batch=size, target=1.0))
    return rows


def ensembles(device: torch.device, rounds: int, settle: Callable[[], object]) -> list[dict]:
    """An ensemble of 16 in one pass, against 16 passes."""
    model, rows = digits_model(0.5, device).eval(), []
    masks = sample_masks(model, n_instances=16, generator=torch.Generator().manual_seed(0))

    def passes(images: Tensor) -> Tensor:
        total = []
        with torch.no_grad():
            for k in range(16):
                with use_masks(model, masks.gather(torch.tensor([k])), rows=len(images)):
                    total.append(model(images).softmax(dim=-1))
        return torch.stack(total).mean(dim=0).log()

    for size, target in ((1, 1 / 3), (8, None), (32, None)):
        images, _ = _batch(size, device)
        at_once = ensemble_predict(model, images, masks=masks, average="probabilities")
        at_once = at_once.log_softmax(dim=-1)
        torch.testing.assert_close(at_once, passes(images), rtol=1e-4, atol=1e-5)
        seen = time_in_turn(
            {
                "ensemble of 16": partial(ensemble_predict, model, images, masks=masks),
                "16 passes": partial(passes, images),
            },
            rounds=rounds,
            settle=settle,
            title=f"ensemble, batch {size}",
        )
        rows.append(ratio_row(seen, "ensemble of 16", "16 passes", batch=size, target=target))
    return rows


def inference(device: torch.device, rounds: int, settle: Callable[[], object]) -> list[dict]:
    """The mean network against the same adapter without masks."""
    masked, plain = digits_model(0.5, device), digits_model(0.0, device, "none")
    images, _ = _batch(32, device)
    torch.testing.assert_close(
        predict(masked, images, inference="raw"), predict(plain, images, inference="raw")
    )
    masked.eval(), plain.eval()

    def forward(model: nn.Module) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                model(images)

        return run

    seen = time_in_turn(
        {"`mean` inference": forward(masked), "plain LoRA forward": forward(plain)},
        rounds=4 * rounds,
        settle=settle,
        title="inference",
    )
    return [ratio_row(seen, "`mean` inference", "plain LoRA forward", batch=32, target=1.01)]


def masked_against_plain(
    device: torch.device, rounds: int, settle: Callable[[], object]
) -> list[dict]:
    """One training step, N = 1: masks of the paper against no dropout, and against nn.Dropout.

    `fit` and the Trainer draw the masks of all layers at once; in a loop of one's own each layer
    draws as its forward pass comes to it.
    """
    images, labels = _batch(32, device)
    steps = {"masks on (fit)": _step(32, 1, "batched", device)}
    for name, mask, rate in (
        ("masks on (own loop)", "row_column", 0.5),
        ("no dropout", "none", 0.0),
        ("activation dropout", "activation", 0.1),
    ):
        steps[name] = _plain_step(digits_model(rate, device, mask).train(), images, labels)
    seen = time_in_turn(steps, rounds=2 * rounds, settle=settle, title="step")
    return [
        ratio_row(seen, "masks on (fit)", "no dropout", batch=32, target=1.02),
        ratio_row(seen, "masks on (own loop)", "no dropout", batch=32, target=1.02),
        ratio_row(seen, "masks on (fit)", "activation dropout", batch=32, target=1.0),
    ]


def _plain_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def run(device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """All of these.

    Args:
        device: Where.
        rounds: Turns each.

    Returns:
        The rows.
    """
    settle: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    cases = (masked_against_plain, instances, ensembles, inference)
    return [row for case in cases for row in case(device, rounds, settle)]
