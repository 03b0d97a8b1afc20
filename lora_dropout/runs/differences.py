"""Replays: a recorded result beside its repetition, value by value."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_dropout.door import short

# What a clock, the machine or a path decides, wherever it stands in a result.
NOT_COMPARED = frozenset(
    {
        *("provenance", "settings", "digest", "device", "seconds", "train_seconds", "local_model"),
        *("predict_seconds_1000", "peak_bytes", "peak_gpu_bytes", "peak_mb"),
    }
)
_SHOWN = 20


@dataclass(frozen=True)
class Difference:
    """A value that was not repeated.

    Attributes:
        path: Where it is, such as `results.dev.loss`.
        before: As recorded.
        after: As repeated; None if the repetition has none.
    """

    path: str
    before: Any
    after: Any

    @property
    def relative(self) -> float | None:
        """|after - before| over the larger of both; None unless floats can hold both."""
        pair = (self.before, self.after)
        try:
            if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in pair):
                return None
            return abs(self.after - self.before) / (max(map(abs, pair)) or 1.0)
        except OverflowError:  # a whole number beyond the largest float
            return None

    def __str__(self) -> str:
        size = "" if self.relative is None else f" (relative difference {self.relative:.2g})"
        return f"{self.path}: {short(self.before)} -> {short(self.after)}{size}"


def read_result(path: Path, *fields: str) -> dict[str, Any]:
    """Read a recorded result.

    Args:
        path: The JSON file.
        *fields: What it must hold besides its provenance, each of it by names.

    Returns:
        Its content.

    Raises:
        ValueError: If it is missing or damaged, or lacks what a repetition needs.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--replay: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--replay: {path} is damaged: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"--replay: {path} is no result: {short(content)}")
    for field in ("provenance", *fields):
        if not isinstance(content.get(field), dict):
            raise ValueError(
                f"--replay: {path} cannot be repeated without its {field}, got "
                f"{short(content.get(field))}"
            )
    threads = content["provenance"].get("threads", 1)
    if type(threads) is not int or not 1 <= threads <= 1024:
        raise ValueError(
            f"--replay: {path} is damaged: threads must be a count, got {short(threads)}"
        )
    return content


@contextmanager
def recorded_threads(recorded: Mapping[str, Any]) -> Iterator[None]:
    """Compute with as many threads as a recorded run, if it says how many.

    Args:
        recorded: From `read_result`.

    Yields:
        Nothing.
    """
    import torch

    from lora_dropout.threads import fixed_threads

    with fixed_threads(recorded["provenance"].get("threads", torch.get_num_threads())):
        yield


def differences(recorded: Any, repeated: Any) -> list[Difference]:
    """Values of a record that its repetition does not have to the last bit.

    Args:
        recorded: What JSON gave.
        repeated: The same of the repetition.

    Returns:
        In the order of the record. `NOT_COMPARED` is left out, and so is what the repetition
        holds beyond the record, as a record of older code may hold less.
    """
    after = dict(_leaves(repeated))
    return [
        Difference(path, value, after.get(path))
        for path, value in _leaves(recorded)
        if path not in after or repr(after[path]) != repr(value)
    ]


def report(path: Path, recorded: Mapping[str, Any], repeated: Mapping[str, Any]) -> int:
    """Print what differs, and the verdict in the last line.

    Args:
        path: Of the record.
        recorded: Its content.
        repeated: That of the repetition.

    Returns:
        Exit status: 0 if all values are the same to the last bit, else 1.
    """
    repeated = json.loads(json.dumps(repeated))
    found = differences(recorded, repeated)
    for difference in found[:_SHOWN]:
        print(difference)
    if len(found) > _SHOWN:
        print(f"... and {len(found) - _SHOWN} more")
    before, after = dict(_leaves(recorded)), dict(_leaves(repeated))
    if added := sorted(after.keys() - before.keys()):
        print(f"not in the record: {', '.join(added[:3])}{', ...' if len(added) > 3 else ''}")
    for line in _origins(recorded["provenance"], repeated["provenance"]):
        print(line)
    if not found:
        print(f"identical: {len(before)} values of {path} repeated to the last bit")
        return 0
    sizes = [d.relative for d in found if d.relative is not None]
    print(
        f"differs: {len(found)} of {len(before)} values of {path}: {len(sizes)} numbers, by a "
        f"relative {max(sizes, default=0.0):.2g} at most, and {len(found) - len(sizes)} others"
    )
    return 1


def _origins(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    one, other = dict(_leaves(before)), dict(_leaves(after))
    return [
        f"provenance, {key}: {short(one[key]) if key in one else 'not recorded'} -> "
        f"{short(other[key]) if key in other else 'none'}"
        for key in {**one, **other}
        if key != "command" and (key not in one or key not in other or one[key] != other[key])
    ]


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key not in NOT_COMPARED:
                yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(content, list):
        yield f"{path}: length", len(content)
        for index, value in enumerate(content):
            yield from _leaves(value, f"{path}[{index}]")
    else:
        yield path, content
