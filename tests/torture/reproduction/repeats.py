"""The same result by other ways: threads, orders of layers, modes, restarts, copies."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from lora_dropout import (
    LoRADropoutConfig,
    adapt,
    fit,
    instance_loss,
    sample_masks,
    trainable_parameters,
)
from lora_dropout.training.fit import fit as training
from tests.torture.reproduction import fingerprint as fp


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def away(model: torch.nn.Module) -> torch.nn.Module:
    """The model away from its start, at which half of the gradients are 0."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for _, parameter in sorted(trainable_parameters(model).items()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model


def gradients(found: Callable[[], torch.Tensor], model: torch.nn.Module) -> dict[str, Any]:
    """A loss and its gradients."""
    model.zero_grad()
    loss = found()
    loss.backward()
    grads = {n: p.grad for n, p in trainable_parameters(model).items() if p.grad is not None}
    return {"loss": loss.item(), **{n: g.cpu().flatten().tolist() for n, g in grads.items()}}


def long_sums(number: int) -> dict[str, Any]:
    """Gradients of a LayerNorm and of factors over 65,536 rows, by so many threads (float64)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.LayerNorm(16), torch.nn.Linear(16, 16))
    config = LoRADropoutConfig(rank=2, alpha=4, dropout=0.5, modules_to_save=("0",))
    away(adapt(model, config, generator=torch.Generator().manual_seed(0)).double())
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(64, 1024, 16, generator=generator, dtype=torch.float64) for _ in "xy")
    masks = sample_masks(model, n_instances=2, generator=generator)

    def loss() -> torch.Tensor:
        loss_fn = torch.nn.functional.mse_loss
        return instance_loss(model, x, y, masks=masks, mode="loop", loss_fn=loss_fn)

    with threads(number):
        return gradients(loss, model)


def orders(names: Iterable[str], long: bool) -> Iterator[tuple[str, Any, Any]]:
    """Trainings of one net whose layers are registered in other orders, clipping at work."""
    chosen = list(itertools.permutations("abc"))[1:] if long else ["cab"]
    for name, order in itertools.product(names, chosen):
        model, how = fp.VARIANTS[name]
        how = {**how, "max_grad_norm": 0.01}
        yield f"{name}, {order}", fp.trained(model, how), fp.trained({**model, "order": order}, how)


def by_modes(name: str, device: str = "cpu") -> dict[str, Any]:
    """One loss and its gradients (float64)."""
    model = away(fp.net(dtype=torch.float64, adapter=name)).to(device)
    (inputs, labels), _ = fp.data(dtype=torch.float64)
    masks = sample_masks(model, n_instances=4, generator=torch.Generator().manual_seed(2))
    inputs, labels = inputs.to(device), labels.to(device)
    return {
        mode: gradients(
            lambda mode=mode: instance_loss(model, inputs, labels, masks=masks, mode=mode), model
        )
        for mode in ("loop", "batched")
    }


def restarted(name: str) -> dict[str, Any]:
    """A training stopped after each epoch, each time gone on by a new model."""
    model, how = fp.VARIANTS[name]
    train_epoch, begun = training._Run.train_epoch, list[int]()

    def stop(run: Any) -> None:
        if begun:
            raise KeyboardInterrupt
        begun.append(run.epoch)
        train_epoch(run)

    with tempfile.TemporaryDirectory() as folder:
        training._Run.train_epoch = stop  # type: ignore[method-assign]
        try:
            for _ in range(fp.settings().epochs - 1):
                begun.clear()
                with contextlib.suppress(KeyboardInterrupt):
                    fp.trained(model, how, folder=Path(folder))
        finally:
            training._Run.train_epoch = train_epoch  # type: ignore[method-assign]
        return fp.trained(model, how, folder=Path(folder))


def copied(copies: Callable[[Any], Any], name: str) -> dict[str, Any]:
    """A training of copies: of model, data and settings."""
    options, how = fp.VARIANTS[name]
    model, sets = copies(fp.net(**options)), copies(fp.data())
    masks = sample_masks(model, n_instances=2, generator=torch.Generator().manual_seed(7))
    again = copies(masks)
    for layer, mask in masks.layers.items():
        for one, other in zip(mask._tensors().values(), again.layers[layer]._tensors().values(),
                              strict=True):  # fmt: skip
            assert one is None or (other is not None and torch.equal(one, other))
    result = fit(model, sets[0], held_out=sets[1], config=copies(fp.settings(**how)),
                 device="cpu", progress=False)  # fmt: skip
    return fp.outcome(copies(model), copies(result), sets[1][0])
