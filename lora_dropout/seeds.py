"""Random streams: a generator for each (seed, purpose), no two of which meet.

torch's CPU generator is a Mersenne Twister that keeps 32 bits of its seed: `manual_seed(2**40)` is
`manual_seed(0)`, and so no sum of a seed and a constant names a stream of its own. Here the whole
state of 19,937 bits is filled from (seed, purpose) by NumPy's `SeedSequence`.
"""

import hashlib
from typing import Annotated, Literal

import numpy as np
import torch

from lora_dropout.door import check_count

Purpose = Literal["training", "evaluation", "retraining", "model"]

_WORDS = 624  # of 32 bits, each in 8 bytes of the state
_HEADER = 24  # seed, words left, whether seeded, next word
TORCH_BITS = 2**32 - 1  # the greatest seed that torch's CPU generator keeps whole


def check_seed(name: str, seed: int, *, maximum: int = 2**63 - 1) -> int:
    """Return `seed` if all of its bits count.

    Args:
        name: Name of the argument, for the message.
        seed: A non-negative integer.
        maximum: The greatest seed there is; `TORCH_BITS` where torch's own seeding is used.

    Returns:
        The seed as a Python int.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is negative or above `maximum`.
    """
    return check_count(name, seed, minimum=0, maximum=maximum)


Seed = Annotated[int, check_seed]


def seeded_generator(seed: int) -> torch.Generator:
    """A generator of a seed of up to 63 bits.

    Args:
        seed: From `check_seed`.

    Returns:
        A CPU generator: torch's `manual_seed(seed)` for a seed below 2^32; a stream of its own for
        each greater one.
    """
    generator = torch.Generator().manual_seed(seed)
    return generator if seed <= TORCH_BITS else _filled(generator, seed, "seed")


def derived_generator(seed: int, purpose: Purpose) -> torch.Generator:
    """A generator for one purpose of a run.

    Args:
        seed: Of the run, from `check_seed`.
        purpose: What is drawn.

    Returns:
        A CPU generator. Its stream is that of no other seed or purpose, and none of torch's own
        `manual_seed`, which a caller may use beside it.
    """
    return _filled(torch.Generator().manual_seed(seed), seed, purpose)


def derived_seed(seed: int, purpose: Purpose) -> int:
    """A seed for another run that goes with a run.

    Args:
        seed: Of the run, from `check_seed`.
        purpose: What the other run is for.

    Returns:
        A seed of 63 bits, the greatest of them 1, so that it is none of those that people choose.
    """
    digest = hashlib.blake2b(f"{purpose} {seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2 | 2**62


def _filled(generator: torch.Generator, seed: int, purpose: str) -> torch.Generator:
    entropy = [seed, *purpose.encode()]
    words = np.random.SeedSequence(entropy).generate_state(_WORDS).astype(np.uint64)
    state = generator.get_state()
    state[_HEADER : _HEADER + 8 * _WORDS] = torch.from_numpy(words.view(np.uint8))
    return generator.set_state(state)
