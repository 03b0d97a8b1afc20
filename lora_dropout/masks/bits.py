"""Counter-based random bits: a pure function of (seed, name, position), equal on every device.

SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014):
a Weyl sequence through a 64-bit finaliser, here in wrapping int64 arithmetic.
"""

import hashlib

from torch import Tensor

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15: the golden ratio's Weyl increment
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
UNIT = 2**53  # thresholds are multiples of 1 / UNIT


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser, a bijection of 64-bit words.

    Args:
        z: int64 tensor.

    Returns:
        int64 tensor of the same shape.
    """
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    # int64 shifts keep the sign; the generator wants zeros from the left.
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def random_bits(states: Tensor, counters: Tensor, threshold: Tensor | int) -> Tensor:
    """Bernoulli bits.

    Args:
        states: int64 stream states; they broadcast with the counters.
        counters: int64 positions in the stream, from 0.
        threshold: See `threshold_of`; broadcasts too.

    Returns:
        Bool tensor, True with probability threshold / 2^53.
    """
    uniform = _shift_right(mix(states + (counters + 1) * _GAMMA), 11)  # 53 bits
    return uniform < threshold


def threshold_of(dropout: float) -> int:
    """The threshold that keeps with probability 1 - dropout.

    Args:
        dropout: Rate in [0, 1]; 0 keeps all and 1 keeps nothing, exactly.

    Returns:
        An integer in [0, 2^53].
    """
    return round((1.0 - dropout) * UNIT)


def name_key(name: str) -> int:
    """A 64-bit key of a name, the same in every process.

    Args:
        name: Any string.

    Returns:
        Signed 64-bit integer.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
