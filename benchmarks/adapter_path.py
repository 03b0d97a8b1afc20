"""How near one adapted layer comes to what the machine can do, and to PEFT's, eager and compiled.

`python -m benchmarks.adapter_path [--rounds R] [--out FILE]`. On a GPU: widths 768 to 8192, 1k to
32k tokens, ranks 8 and 64, fp32 and bf16; on CPU the same at small sizes.

The layer's path is the masked update alone, forward, and forward with backward. It is compared
with the rate of a matrix product and the bandwidth of a copy, measured beside it: the fraction is
the time these would need, for the path's own products and for reading and writing its own tensors
once, over the time it takes. A whole layer (base product included) is compared with PEFT's.
Masks are fresh in every step; the compiled layer must not be compiled again for them.
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from benchmarks.report import origin, spread, synchronize, write
from benchmarks.turns import time_in_turn
from lora_dropout import LoRADropoutConfig, adapt, sample_masks
from lora_dropout.adapters.update import masked_update
from lora_dropout.adapters.use_masks import use_masks
from lora_dropout.masks.draw import LayerSpec, draw_layer_masks

GPU_SIZES = {"width": (768, 2048, 8192), "tokens": (1024, 8192, 32768), "rank": (8, 64)}
CPU_SIZES = {"width": (128, 512), "tokens": (128, 1024), "rank": (8,)}
EXAMPLES = 8  # tokens fall into so many; masks are shared within


def _factors(width: int, rank: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(rank, width, generator=generator)
    B = torch.randn(width, rank, generator=generator)
    return [f.to(device, dtype).requires_grad_() for f in (A, B)]


def check(width: int, tokens: int, rank: int, dtype: torch.dtype, device: torch.device) -> None:
    """The masked update against the formula with whole matrices, in float64.

    Raises:
        AssertionError: If it is further away than the number format explains.
    """
    A, B = _factors(width, rank, dtype, device)
    x = torch.randn(min(tokens, 256), width, device=device, dtype=dtype)
    layer = LayerSpec("layer", "row_column", 0.5, width, width, rank)
    mask = draw_layer_masks([layer], torch.tensor([3]), device=device)["layer"]
    assert mask.rows is not None and mask.columns is not None
    whole = (B.detach().double() * mask.rows[0, :, None]) @ (A.detach().double() * mask.columns[0])
    exact = x.double() @ whole.T
    got = masked_update(x, A, B, mask=mask, scaling=1.0).detach().double()
    error = float((got - exact).abs().max() / exact.abs().max())
    assert error < (3e-2 if dtype == torch.bfloat16 else 3e-3), f"off by {error:g}"


def path(
    width: int, tokens: int, rank: int, dtype: torch.dtype, device: torch.device, rounds: int
) -> dict[str, Any]:
    """The masked update alone, as fractions of the machine's rate and bandwidth."""
    check(width, tokens, rank, dtype, device)
    A, B = _factors(width, rank, dtype, device)
    x = torch.randn(tokens, width, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(width, width, device=device, dtype=dtype)
    held, out = x.detach(), torch.empty_like(x)
    layer = LayerSpec("layer", "row_column", 0.5, width, width, rank)
    mask = draw_layer_masks([layer], torch.tensor([3]), device=device)["layer"]
    back = torch.randn_like(held)

    def forward() -> None:
        with torch.no_grad():
            masked_update(held, A, B, mask=mask, scaling=1.0)

    def both() -> None:
        for tensor in (x, A, B):
            tensor.grad = None
        masked_update(x, A, B, mask=mask, scaling=1.0).backward(back)

    seen = time_in_turn(
        {
            "product": lambda: held @ weight,
            "copy": lambda: out.copy_(held),
            "forward": forward,
            "forward and backward": both,
        },
        rounds=rounds,
        settle=lambda: synchronize(device),
    )
    rate = 2.0 * tokens * width * width / seen["product"]
    bandwidth = 2.0 * held.nbytes / seen["copy"]
    small = tokens * rank * held.element_size()
    # Forward: x in, the hidden row out and in, y out. Backward: y's gradient twice, x, the hidden
    # row and its gradient, x's gradient out.
    traffic = {"forward": 2 * held.nbytes + 2 * small}
    traffic["forward and backward"] = traffic["forward"] + 4 * held.nbytes + 4 * small
    work = {
        "forward": 4.0 * tokens * width * rank,
        "forward and backward": 12.0 * tokens * width * rank,
    }
    row: dict[str, Any] = {
        "teraflops_of_a_product": spread(rate / 1e12),
        "gigabytes_a_second_of_a_copy": spread(bandwidth / 1e9),
    }
    for name in work:
        row[name] = {
            "milliseconds": spread(1000 * seen[name]),
            "fraction_of_product_rate": spread(work[name] / seen[name] / rate),
            "fraction_of_bandwidth": spread(traffic[name] / seen[name] / bandwidth),
        }
    return row


def _layers(
    width: int, rank: int, dtype: torch.dtype, device: torch.device
) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    ours = adapt(
        nn.Sequential(nn.Linear(width, width)),
        LoRADropoutConfig(rank=rank, alpha=2.0 * rank, dropout=0.5),
        generator=torch.Generator().manual_seed(0),
    )
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["0"])
    peft = get_peft_model(nn.Sequential(nn.Linear(width, width)), settings)
    return {"ours": ours.to(device, dtype).train(), "PEFT": peft.to(device, dtype).train()}


def layer(
    width: int, tokens: int, rank: int, dtype: torch.dtype, device: torch.device, rounds: int
) -> dict[str, Any]:
    """A whole adapted layer, forward and backward with fresh masks, against PEFT's without any."""
    x = torch.randn(EXAMPLES, tokens // EXAMPLES, width, device=device, dtype=dtype)
    draws = torch.Generator().manual_seed(1)
    models = _layers(width, rank, dtype, device)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    run: dict[str, Any] = {**models}
    run |= {f"{name}, compiled": torch.compile(model) for name, model in models.items()}
    instances = {"ours, N = 4": 4}
    run["ours, N = 4"] = models["ours"]

    def step(name: str) -> Callable[[], None]:
        def once() -> None:
            run[name].zero_grad(set_to_none=True)
            if name.startswith("PEFT"):
                run[name](x).square().mean().backward()
                return
            masks = sample_masks(
                models["ours"], n_instances=instances.get(name, 1), generator=draws
            )
            with use_masks(models["ours"], masks, rows=len(x)):
                run[name](x).square().mean().backward()

        return once

    seen = time_in_turn(
        {name: step(name) for name in run}, rounds=rounds, settle=lambda: synchronize(device),
        warmup=3,
    )  # fmt: skip
    counters = torch._dynamo.utils.counters
    return {
        "seconds": {name: spread(seconds) for name, seconds in seen.items()},
        "ours / PEFT": spread(seen["ours"] / seen["PEFT"]),
        "ours, N = 4 / PEFT": spread(seen["ours, N = 4"] / seen["PEFT"]),
        "ours, compiled / PEFT, compiled": spread(seen["ours, compiled"] / seen["PEFT, compiled"]),
        "graph_breaks": sum(counters["graph_break"].values()),
        "graphs_of_two_models": counters["stats"]["unique_graphs"],
    }


def measure(
    width: int, tokens: int, rank: int, dtype: torch.dtype, device: torch.device, rounds: int
) -> dict[str, Any]:
    """All numbers of one size."""
    return {
        "width": width,
        "tokens": tokens,
        "rank": rank,
        "dtype": str(dtype).split(".")[1],
        "path": path(width, tokens, rank, dtype, device, rounds),
        "layer": layer(width, tokens, rank, dtype, device, rounds),
    }


def line(row: dict[str, Any]) -> str:
    """One size in words."""
    both = row["path"]["forward and backward"]
    return (
        f"{row['width']} wide, {row['tokens']} tokens, rank {row['rank']}, {row['dtype']}: "
        f"{both['fraction_of_product_rate']['median']:.2f} of the product's rate, "
        f"{both['fraction_of_bandwidth']['median']:.2f} of the bandwidth; layer over PEFT's "
        f"{row['layer']['ours / PEFT']['median']:.2f}, compiled "
        f"{row['layer']['ours, compiled / PEFT, compiled']['median']:.2f}, "
        f"{row['layer']['graph_breaks']} graph breaks, "
        f"{row['layer']['graphs_of_two_models']} graphs"
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/adapter_path.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = GPU_SIZES if device.type == "cuda" else CPU_SIZES
    source, rows, dtypes = origin(), [], (torch.float32, torch.bfloat16)
    for width, tokens, rank in product(*sizes.values()):
        for dtype in dtypes:
            rows.append(measure(width, tokens, rank, dtype, device, options.rounds))
            print(line(rows[-1]), flush=True)
            write(options.out, {"provenance": source, "device": device.type, "rows": rows})


if __name__ == "__main__":
    main()
