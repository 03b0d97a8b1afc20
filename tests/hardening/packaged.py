"""Readers of the package's own data, pointed at another folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def from_package(module: Any, load: Callable[[], Any]) -> Callable[[Path], Any]:
    """What `load` of a module reads if the package's data folder is elsewhere."""

    class Elsewhere:
        def __init__(self, folder: Path) -> None:
            self.files = lambda package: folder

    def read(folder: Path) -> Any:
        kept, module.resources = module.resources, Elsewhere(folder)
        try:
            return load()
        finally:
            module.resources = kept

    return read
