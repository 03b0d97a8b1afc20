"""A seed's results to the last bit: `python -m tests.torture.reproduction.fingerprint [PART ...]`.

Prints JSON. Needs torch, NumPy and SciPy only, so that other interpreters can run it too.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lora_bounds
from lora_dropout import (
    LAWS,
    FitConfig,
    LoRADropoutConfig,
    RankBudget,
    Replica,
    adapt,
    ensemble_predict,
    fit,
    fit_replicas,
    sample_masks,
    trainable_parameters,
)
from lora_dropout.masks.draw import LayerSpec, draw_layer_masks
from lora_dropout.tasks.vit import VisionTransformer

Found = dict[str, Any]
NET = {"a": (6, 16), "b": (16, 16), "c": (16, 3)}
WIDE = {"a": (64, 384), "b": (384, 384), "c": (384, 10)}  # enough work for two threads


class Net(nn.Module):
    """Linear layers that run by name and are registered in any order."""

    def __init__(self, sizes: Mapping[str, tuple[int, int]], order: Iterable[str] = "abc") -> None:
        super().__init__()
        with torch.random.fork_rng():
            for name in order:
                torch.manual_seed(ord(name))
                self.add_module(name, nn.Linear(*sizes[name]))

    def forward(self, x: Tensor) -> Tensor:
        for name in ("a", "b"):
            x = torch.tanh(self.get_submodule(name)(x))
        return self.get_submodule("c")(x)


def net(
    *, order: Iterable[str] = "abc", adapter: str = "lora", mask: str = "row_column",
    sizes: Mapping[str, tuple[int, int]] = NET, dtype: torch.dtype = torch.float32,
) -> nn.Module:  # fmt: skip
    """An adapted net; the order of its layers is that of their registration."""
    config = LoRADropoutConfig(rank=2, alpha=4, dropout=0.5, adapter=adapter, mask=mask)  # type: ignore[arg-type]
    model = Net(sizes, order).to(dtype)
    return adapt(model, config, generator=torch.Generator().manual_seed(0)).to(dtype)


def data(
    shape: Sequence[int] = (96, 6), classes: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[Any, Any]:
    """(train, held out), by a generator of their own."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(*shape, generator=generator, dtype=dtype)
    labels = torch.randint(classes, (shape[0],), generator=generator)
    cut = 2 * shape[0] // 3
    return (inputs[:cut], labels[:cut]), (inputs[cut:], labels[cut:])


def settings(**other: Any) -> FitConfig:
    """Of a short training."""
    return FitConfig(**({"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "seed": 3} | other))


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora, loop": ({}, {"mode": "loop"}),
    "lora, batched": ({}, {"mode": "batched"}),
    "lora, grouped": ({}, {"mode": "grouped"}),
    "lora, penalty, patience": ({}, {"regularization": 0.1, "patience": 2, "weight_decay": 0.1}),
    "lora, entrywise": ({"mask": "entrywise"}, {}),
    "lora, activation": ({"mask": "activation"}, {}),
    "adalora, budget": (
        {"adapter": "adalora", "mask": "rank"},
        {"rank_budget": RankBudget(target_rank=1, warmup_steps=2, final_steps=4, interval=2)},
    ),
}


def outcome(model: nn.Module, result: Any, inputs: Tensor, members: int = 4) -> Found:
    """Weights, history and ensemble predictions of a training."""
    weights = {n: p.detach().double().cpu() for n, p in sorted(trainable_parameters(model).items())}
    generator = torch.Generator().manual_seed(9)
    logits = ensemble_predict(
        model, inputs, n_instances=members, generator=generator, average="probabilities"
    )
    return {
        "weights": {name: values.flatten().tolist() for name, values in weights.items()},
        "history": result.history,
        "ensemble": logits.double().cpu().flatten().tolist(),
    }


def trained(
    model_options: Mapping[str, Any], fit_options: Mapping[str, Any], *, device: str = "cpu",
    folder: Path | None = None,
) -> Found:  # fmt: skip
    """Train a net from its seeds."""
    model = net(**model_options)
    train, held_out = data(dtype=model_options.get("dtype", torch.float32))
    result = fit(
        model,
        train,
        held_out=held_out,
        config=settings(**fit_options),
        device=device,
        checkpoint_folder=folder,
        progress=False,
    )
    return outcome(model, result, held_out[0].to(device))


def masks(device: str = "cpu") -> Found:
    """Every bit of masks of all laws, rates and a few seeds."""
    found: Found = {}
    seeds = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)])
    for law, rate in itertools.product(LAWS, (0.1, 0.5, 0.9)):
        layers = [LayerSpec(name, law, rate, 7, 5, 3) for name in ("a", "x.y", "größe")]
        for name, mask in draw_layer_masks(layers, seeds, device=device).items():
            bits = [t for t in mask._tensors().values() if t is not None and t.dtype == torch.bool]
            if mask.keys is not None:
                bits.append(mask.activation_keep(torch.zeros(5, 4, 5, device=device)))
            text = "".join(str(int(b)) for t in bits for b in t.flatten().tolist())
            found[f"{law} {rate} {name}"] = f"{int('1' + text, 2):x}"
    drawn = sample_masks(net(), n_instances=4, generator=torch.Generator().manual_seed(5))
    for name, mask in sorted(drawn.layers.items()):
        assert mask.rows is not None
        found[f"sampled {name}"] = mask.rows.int().tolist()
    return found


def bounds() -> Found:
    """Bounds and exact results; no torch in them."""
    common = {"n": 100, "delta": 0.05, "loss_range": 1.0, "empirical_risk": 0.1}
    stability = {"lipschitz": 0.5, "curvature": 0.0, "regularization": 10.0, "dropout": 0.5}
    every = lora_bounds.compare_bounds(
        **common, **stability, regularized_lipschitz=0.5, squared_norm=20.0, width=0.3,
        held_out_n=100, held_out_errors=10,
    )  # fmt: skip
    return {
        "Thm 4.4": lora_bounds.theorem_4_4(**common, **stability).value,
        "compared": [[one.name, one.result.value, one.nonvacuous_from] for one in every],
        "kl inverse": float(lora_bounds.kl_inverse(empirical_risk=0.1, bound=0.05)),
    }


def small(device: str = "cpu") -> Found:
    """Trainings of a small net, by each variant of method and loss."""
    return {name: trained(*options, device=device) for name, options in VARIANTS.items()}


def wide() -> Found:
    """A net whose products and sums two threads share."""
    model = net(sizes=WIDE)
    train, held_out = data((384, 64), 10)
    config = settings(epochs=2, batch_size=128)
    result = fit(model, train, held_out=held_out, config=config, device="cpu", progress=False)
    return outcome(model, result, held_out[0])


def transformer() -> Found:
    """The digits transformer on random images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer()
    config = LoRADropoutConfig(rank=8, alpha=16, dropout=0.5, target_modules=r"blocks\..*")
    adapt(model, config, generator=torch.Generator().manual_seed(0))
    train, held_out = data((96, 8, 8), 10)
    result = fit(
        model, train, held_out=held_out, config=settings(epochs=2), device="cpu", progress=False
    )
    return outcome(model, result, held_out[0])


def replicas(chunk_size: int | None = None, dtype: torch.dtype = torch.float32) -> Found:
    """Replicas that differ in seed, rate and examples."""
    model = net(dtype=dtype)
    train, held_out = data(dtype=dtype)
    chosen = [
        Replica(seed=0), Replica(seed=1, dropout=0.2), Replica(seed=2, examples=tuple(range(20))),
        Replica(seed=3, init_seed=4), Replica(seed=0, learning_rate=0.02),
    ]  # fmt: skip
    found = fit_replicas(
        model, train, chosen, config=settings(), device="cpu", chunk_size=chunk_size, progress=False
    )
    outputs = found.outputs(model, held_out[0], inference="ensemble")
    return {
        "weights": {n: v.double().flatten().tolist() for n, v in sorted(found.parameters.items())},
        "objective": found.objective.flatten().tolist(),
        "ensemble": outputs.double().flatten().tolist(),
    }


PARTS: dict[str, Callable[[], Found]] = {
    "masks": masks,
    "bounds": bounds,
    "small": small,
    "wide": wide,
    "transformer": transformer,
    "replicas": replicas,
}


def fingerprint(names: Iterable[str] = PARTS) -> Found:
    """What the seeds give, by part."""
    return {name: PARTS[name]() for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.reproduction.fingerprint")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(fingerprint(options.parts or PARTS)))


if __name__ == "__main__":
    main()
