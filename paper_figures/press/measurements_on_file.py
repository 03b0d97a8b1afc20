"""Measurements on file, for figures: skipped, with the command that makes them, where missing."""

from lora_bounds import measurements
from lora_bounds.measurements import Measurement
from paper_figures.press.figure import Missing


def measured(name: str) -> Measurement:
    """Read a measurement.

    Args:
        name: One of `paper_figures.experiments`.

    Returns:
        It.

    Raises:
        Missing: If it is not on file.
    """
    if name not in measurements.ids():
        raise Missing(f"needs the measurement {name!r}: make measurements")
    return measurements.load(name)
