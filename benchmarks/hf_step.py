"""Peak memory and time of a training step: LoRA Dropout on a PEFT model against plain PEFT.

`python -m benchmarks.hf_step [--model FOLDER] [--out FILE]`

Times: all variants of a model in one process, in turn, so that a busy machine slows them alike;
medians with quartiles, and ratios to PEFT without dropout taken turn by turn. Memory on CPU: a
process of its own for each variant, the growth of its resident set to its highest during a step
(Linux: VmHWM, reset before the step), with the allocator told to give memory back; on CUDA
`max_memory_allocated` less what was allocated before. A step is forward, backward and AdamW.
"""

import argparse
import ctypes
import multiprocessing
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from benchmarks.report import origin, spread, synchronize, write
from lora_dropout import sample_masks
from lora_dropout.peft import attach
from lora_dropout.training.objective import InstanceMode, instance_losses

VOCABULARY, LENGTH, BATCH, RANK = 1000, 64, 16, 8


class Variant(NamedTuple):
    """A way to train; `instances` is None for PEFT as it is."""

    lora_dropout: float = 0.0
    instances: int | None = None
    mode: InstanceMode = "loop"
    dropout: float = 0.5


VARIANTS = {
    "PEFT, lora_dropout=0": Variant(),
    "PEFT, lora_dropout=0.1": Variant(lora_dropout=0.1),
    "attach, N=1": Variant(instances=1),
    "attach, N=4, grouped": Variant(instances=4, mode="grouped"),
    "attach, N=4, loop": Variant(instances=4, mode="loop"),
    "attach, N=4, batched": Variant(instances=4, mode="batched"),
}
REFERENCE = "PEFT, lora_dropout=0"
END = {"bos_token_id": 1, "eos_token_id": 2}
SHAPES = ("bert", "gpt2", "llama")


def base_model(name: str) -> tuple[nn.Module, list[str]]:
    """A model of one of `SHAPES` with seeded random weights, or the one in a folder."""
    torch.manual_seed(0)
    size = {"vocab_size": VOCABULARY, "num_labels": 2, "pad_token_id": 0, **END}
    if name == "bert":
        shape = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = BertConfig(intermediate_size=1024, **shape, **off, **size)
        return BertForSequenceClassification(config), ["query", "key", "value", "dense"]
    if name == "gpt2":
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = GPT2Config(n_embd=256, n_layer=4, n_head=4, **off, **size)
        return GPT2ForSequenceClassification(config), ["c_attn", "c_proj", "c_fc"]
    if name == "llama":
        shape = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
        config = LlamaConfig(intermediate_size=688, num_key_value_heads=2, **shape, **size)
        return LlamaForSequenceClassification(config), [
            f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")
        ]
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2, **off)
    return model.float(), ["query", "key", "value", "dense"]


def make_step(name: str, variant: Variant, device: torch.device) -> Callable[[], float]:
    """A function that makes one training step and returns its loss."""
    base, targets = base_model(name)
    settings = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=targets,
        lora_dropout=variant.lora_dropout,
        exclude_modules=r".*(pooler|score|classifier).*",
        fan_in_fan_out=name == "gpt2",
    )
    model = get_peft_model(base, settings)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for key, parameter in sorted(model.named_parameters()):
            if "lora_B" in key:  # at zero, masks would change nothing
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    if variant.instances is not None:
        attach(model, dropout=variant.dropout, n_instances=variant.instances)
    model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, VOCABULARY, (BATCH, LENGTH), generator=generator).to(device)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    labels = torch.randint(0, 2, (BATCH,), generator=generator).to(device)
    draws = torch.Generator().manual_seed(3)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in _losses(model, inputs, labels, variant, draws):
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        return total

    return step


def _losses(
    model: nn.Module,
    inputs: dict[str, Tensor],
    labels: Tensor,
    variant: Variant,
    draws: torch.Generator,
) -> Iterator[Tensor]:
    if variant.instances is None:
        yield F.cross_entropy(model(**inputs).logits.float(), labels)
    else:
        masks = sample_masks(model, n_instances=variant.instances, generator=draws)
        yield from instance_losses(model, inputs, labels, masks=masks, mode=variant.mode)


def check(name: str, device: torch.device) -> float:
    """Largest relative difference in loss, over three steps, of `attach` at p = 0 from PEFT.

    Raises:
        AssertionError: If it is above what another order of summation explains.
    """
    plain = make_step(name, Variant(), device)
    masked = make_step(name, Variant(instances=1, dropout=0.0), device)
    worst = max(abs(masked() / plain() - 1) for _ in range(3))
    assert worst < (2e-2 if device.type == "cuda" else 1e-5), f"{name}: losses differ by {worst:g}"
    return worst


def times(name: str, device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Seconds a step, by variant, turn by turn."""
    steps = {label: make_step(name, variant, device) for label, variant in VARIANTS.items()}
    seconds: dict[str, list[float]] = {label: [] for label in steps}
    for number in tqdm(range(rounds + 2), desc=f"{Path(name).name}: time"):
        for label, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            if number >= 2:  # the first two warm up
                seconds[label].append(time.perf_counter() - start)
    return seconds


def peak_memory(name: str, label: str, device: torch.device) -> float:
    """MiB that a step needs above what the model and the optimiser hold; for a fresh process."""
    step = make_step(name, VARIANTS[label], device)
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_in_own_process(name: str, label: str, device: torch.device) -> float:
    """`peak_memory`, on CPU in a forked process, so that others' leftovers do not count."""
    if device.type == "cuda":
        return peak_memory(name, label, device)
    with multiprocessing.get_context("fork").Pool(1, initializer=_give_memory_back) as pool:
        return pool.apply(peak_memory, (name, label, device))


def _give_memory_back() -> None:
    # glibc's M_MMAP_THRESHOLD: freed blocks of 64 KiB and more leave the process at once.
    ctypes.CDLL(None).mallopt(-3, 65536)


def measure_peaks(name: str, device: torch.device) -> dict[str, list[float]]:
    """MiB by variant, twice; all models first: a process that has trained has memory to reuse."""
    bar = tqdm(VARIANTS, desc=f"{Path(name).name}: memory")
    return {label: [peak_in_own_process(name, label, device) for _ in range(2)] for label in bar}


def measure_times(name: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """All other numbers of one model."""
    difference = check(name, device)
    seconds = times(name, device, rounds)
    rows = {}
    for label in VARIANTS:
        ratios = np.array(seconds[label]) / np.array(seconds[REFERENCE])
        rows[label] = {
            "milliseconds": spread(1000 * np.array(seconds[label])),
            "time_ratio": spread(ratios),
        }
    return {"loss_difference_at_p_0": difference, "variants": rows}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="folder of a BERT-like encoder, besides the three shapes")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hf_step.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [*SHAPES, *([options.model] if options.model else [])]
    peaks = {name: measure_peaks(name, device) for name in names}
    models = {}
    for name in names:
        numbers = measure_times(name, device, options.rounds)
        for label, row in numbers["variants"].items():
            row["peak_mib"] = [round(peak, 1) for peak in peaks[name][label]]
        models[Path(name).name] = numbers
    source = origin()
    source["versions"] |= {name: version(name) for name in ("peft", "transformers")}
    if options.model:
        source["command"] = source["command"].replace(options.model, Path(options.model).name)
    result = {
        "provenance": source,
        "device": "cuda" if device.type == "cuda" else "cpu, one thread",
        "dtype": "bfloat16" if device.type == "cuda" else "float32",
        "batch": BATCH,
        "tokens": LENGTH,
        "rank": RANK,
        "models": models,
    }
    write(options.out, result)
    for model, numbers in models.items():
        print(model)
        for label, row in numbers["variants"].items():
            print(
                f"  {label:24} {row['milliseconds']['median']:8.1f} ms "
                f"x{row['time_ratio']['median']:.2f}  {max(row['peak_mib']):8.1f} MiB"
            )


if __name__ == "__main__":
    main()
