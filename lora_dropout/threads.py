"""A fixed number of threads: how a sum is shared among them decides its last bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fixed_threads(number: int = 1) -> Iterator[None]:
    """Compute on a number of torch's CPU threads, then go back to the number before.

    Args:
        number: Threads inside an operation, at least 1.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
