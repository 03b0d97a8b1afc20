"""Measurements of trained adapters: numbers on file, with the command that made them.

Training needs torch, this package does not: `python -m paper_figures.experiments` trains and writes
these files; the claims decide from them, each time anew.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measurement:
    """What one experiment measured.

    Attributes:
        id: Its name, also the name of its file.
        question: What it was run to find out.
        settings: Everything that was chosen in advance, sample sizes among it.
        values: Name -> number or nested list of numbers; see the experiment for the axes.
        provenance: Command, commit, versions, hardware.
    """

    id: str
    question: str
    settings: dict[str, Any]
    values: dict[str, Any]
    provenance: dict[str, Any]

    def array(self, name: str) -> NDArray[np.float64]:
        """One of the values, as an array.

        Args:
            name: Its name.

        Returns:
            The numbers.

        Raises:
            ValueError: There is no such value, or a number of it is not finite.
        """
        if name not in self.values:
            raise ValueError(f"no value with name={name!r}; known: {', '.join(self.values)}")
        array = np.asarray(self.values[name], dtype=np.float64)
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} of measurement {self.id!r} must be finite")
        return array


def ids() -> tuple[str, ...]:
    """Names of all measurements on file.

    Returns:
        The ids in alphabetical order.
    """
    folder = resources.files(__package__) / "data"
    return tuple(sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".json")))


def load(measurement_id: str) -> Measurement:
    """Read a measurement.

    Args:
        measurement_id: One of `ids()`.

    Returns:
        The measurement.

    Raises:
        ValueError: There is no such measurement, or its file is damaged.
    """
    if measurement_id not in ids():
        raise ValueError(
            f"no measurement with measurement_id={measurement_id!r}; known: {', '.join(ids())}"
        )
    file = resources.files(__package__) / "data" / f"{measurement_id}.json"
    return read(file)


def read(file: Traversable) -> Measurement:
    """Read a measurement from a file.

    Args:
        file: What `python -m paper_figures.experiments` wrote.

    Returns:
        The measurement.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        content = json.loads(file.read_text())
        digest = content.pop("digest")
        text = json.dumps(content, sort_keys=True)
        if digest != hashlib.blake2b(text.encode(), digest_size=16).hexdigest():
            raise ValueError("its content is not that of its digest")
        return Measurement(id=file.name.removesuffix(".json"), **content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {str(error)[:200]!r}") from error
