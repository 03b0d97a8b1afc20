"""Timing in turn: what is compared runs in one process, one after the other, again and again.

A busy machine slows all of it alike; what is reported is ratios, turn by turn.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np
from tqdm import tqdm

from benchmarks.report import spread


def time_in_turn(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 2,
    settle: Callable[[], object] = lambda: None,
    title: str = "",
) -> dict[str, np.ndarray]:
    """Time functions in turn.

    Args:
        functions: Name -> what to time.
        rounds: Turns that count.
        warmup: Turns before these.
        settle: Called before a clock is read, such as `torch.cuda.synchronize`.
        title: Label of the progress bar.

    Returns:
        Name -> seconds, shape (rounds,).
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in tqdm(range(warmup + rounds), desc=title, leave=False):
        for name, function in functions.items():
            settle()
            start = time.perf_counter()
            function()
            settle()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio_row(
    seconds: Mapping[str, np.ndarray], name: str, reference: str, **more: object
) -> dict[str, object]:
    """One row of the table: how long a thing takes, over another.

    Args:
        seconds: From `time_in_turn`.
        name: The thing.
        reference: The other.
        **more: Kept in the row.

    Returns:
        The row.
    """
    return {
        "what": name,
        "against": reference,
        "time_ratio": spread(seconds[name] / seconds[reference]),
        "seconds": spread(seconds[name]),
        "reference_seconds": spread(seconds[reference]),
        **more,
    }
