"""One seed, one result: over threads, processes, orders, modes, restarts, copies and Pythons.

`LORA_DROPOUT_OTHER_PYTHON` may name another interpreter that has torch, NumPy and SciPy: what the
seeds give there is then compared, too.
"""

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from lora_dropout.runs.differences import differences
from tests.torture import ROOT
from tests.torture.report import Row
from tests.torture.reproduction import fingerprint as fp
from tests.torture.reproduction.repeats import (
    by_modes,
    copied,
    long_sums,
    orders,
    restarted,
    threads,
)

OTHER = "LORA_DROPOUT_OTHER_PYTHON"


def rounding(n: int) -> float:
    """How far two orders of a sum of n terms (float64) may be apart, relative to the sum.

    At most n u times the terms' sizes together (u = 2^-53); these are about sqrt(n) times the sum
    where signs are random, as in a gradient.
    """
    return n**1.5 * 2.0**-53


def elsewhere(parts: Iterable[str], *, python: str = sys.executable, **environment: str) -> Any:
    """The fingerprint by another process, with a thread of its own."""
    done = subprocess.run(
        [python, "-m", "tests.torture.reproduction.fingerprint", *parts],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{python}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def pieces(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is counted: each part of a fingerprint, and of the small trainings each by itself."""
    for part, content in found.items():
        if part == "small":
            yield from content.items()
        else:
            yield part, content


def row(what: str, pairs: Iterable[tuple[str, Any, Any]], *, within: float = 0.0) -> Row:
    """Compare results in pairs.

    Args:
        what: For the table.
        pairs: (name, result, the same by another way).
        within: Differences allowed, relative to the largest number of the result; 0 is to the
            last bit.

    Returns:
        A row; its note tells the largest difference.
    """
    tried = held = numbers = 0
    worst, wrong = 0.0, []
    for name, one, other in pairs:
        one, other = (json.loads(json.dumps(found)) for found in (one, other))
        sizes = [abs(x) for x in _numbers(one)]
        found = differences(one, other)
        largest = max((_size(d.before, d.after) for d in found), default=0.0)
        relative = largest / (max(sizes, default=0.0) or 1.0)
        good = not found if within == 0.0 else relative <= within
        tried, held, numbers = tried + 1, held + good, numbers + len(sizes)
        worst = max(worst, relative)
        if not good:
            wrong.append(f"{name} ({found[0]})")
    note = f"{numbers:,} numbers to the last bit"
    if within:
        note = f"{numbers:,} numbers, largest relative difference {worst:.1e}, allowed {within:.0e}"
    elif wrong:
        note = f"largest relative difference {worst:.1e}"
    return Row(what, tried, held, note=note + (f"; WRONG: {'; '.join(wrong[:3])}" if wrong else ""))


def _numbers(found: Any) -> Iterator[float]:
    if isinstance(found, Mapping | list):
        for value in found.values() if isinstance(found, Mapping) else found:
            yield from _numbers(value)
    elif isinstance(found, int | float) and abs(found) < float("inf"):
        yield float(found)


def _size(before: Any, after: Any) -> float:
    plain = all(isinstance(value, int | float) for value in (before, after))
    return abs(after - before) if plain else float("inf")


def zipped(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Pieces of two fingerprints, side by side."""
    others = dict(pieces(other))
    return [(name, content, others.get(name)) for name, content in pieces(one)]


def tensors(
    name: str, one: Mapping[str, Any], other: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Two results of `gradients`, tensor by tensor."""
    return [(f"{name} {key}".strip(), value, other[key]) for key, value in one.items()]


def run(long: bool) -> Iterable[Row]:
    """Compute the same in many ways.

    Args:
        long: Whether at length.

    Yields:
        A row a way.
    """
    parts = [*fp.PARTS] if long else ["masks", "bounds", "small", "replicas"]
    names = [*fp.VARIANTS] if long else ["lora, batched", "adalora, budget"]
    with threads(1):
        here = json.loads(json.dumps(fp.fingerprint(parts)))
        small = {name: here["small"][name] for name in names}
    with threads(2):
        there = fp.fingerprint(parts)
    yield row("1 and 2 threads: masks, bounds, trainings", zipped(here, there))
    sums = tensors("", long_sums(1), long_sums(2))
    yield row("1 and 2 threads: gradients that are sums over 65,536 rows, float64", sums,
              within=rounding(65_536))  # fmt: skip
    for seed in ("1", "2") if long else ("1",):
        there = elsewhere(parts, PYTHONHASHSEED=seed)
        found = row(f"another process, PYTHONHASHSEED={seed}", zipped(here, there))
        hint = "" if os.environ.get(OTHER) else f"; {OTHER} adds a row for another Python"
        yield replace(found, note=found.note + hint)
    with threads(1):
        yield row("orders of layers in the model, gradients clipped", orders(names, long))
        found = {adapter: by_modes(adapter) for adapter in ("lora", "adalora")}
        pairs = [p for a, m in found.items() for p in tensors(a, m["loop"], m["batched"])]
        yield row("`loop` and `batched`: loss and gradients, float64", pairs,
                  within=rounding(1_000))  # fmt: skip
        whole = here["replicas"]
        chunks = [(f"chunks of {k}", whole, fp.replicas(k)) for k in ((1, 2, 3) if long else (2,))]
        yield row("replicas in chunks of other sizes", chunks)
        yield row("`fit` stopped after each epoch", [(n, small[n], restarted(n)) for n in names])
        ways = {"pickled": lambda x: pickle.loads(pickle.dumps(x)), "deepcopied": copy.deepcopy}
        pairs = [(f"{n}, {w}", small[n], copied(ways[w], n)) for n in names for w in ways]
        yield row("model, data, masks, settings and result pickled or deepcopied", pairs)
        if python := os.environ.get(OTHER):
            yield other_python(python, here)
        if torch.cuda.is_available():
            yield row("GPU: masks", [("masks", here["masks"], fp.masks("cuda"))])
            pairs = [
                pair
                for adapter, modes in found.items()
                for mode, there in by_modes(adapter, "cuda").items()
                for pair in tensors(f"{adapter}, {mode}", modes[mode], there)
            ]
            yield row("GPU: loss and gradients, float64", pairs, within=rounding(1_000))


def other_python(python: str, here: Mapping[str, Any]) -> Row:
    """What another interpreter finds."""
    says = "import platform, torch; print(platform.python_version(), 'torch', torch.__version__)"
    shown = subprocess.run([python, "-c", says], capture_output=True, text=True, check=True)
    return row(f"Python {shown.stdout.strip()}", zipped(here, elsewhere(here, python=python)))
