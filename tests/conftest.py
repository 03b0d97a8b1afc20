"""Hypothesis profiles: `ci` (default) is deterministic; `thorough` and `nightly` search wider."""

import gc
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=40, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "thorough", deadline=None, max_examples=500, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "nightly", deadline=None, max_examples=5000, suppress_health_check=_SLOW_IS_FINE
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _same_global_seed() -> None:
    """Whatever ran before: a test that draws from torch's global generator draws the same."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`made_once(name, make)`: the folder that `make` filled for whichever test asked first.

    Test workers share it, and a fixture that is built anew, as in random order, finds it. Read
    only: other tests may be reading. If `make` failed, it fails for all.
    """
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder, result = common / name, common / f"{name}.result"
        with FileLock(common / f"{name}.lock"):
            if not result.exists():
                folder.mkdir()
                try:
                    make(folder)
                except BaseException:
                    result.write_text(traceback.format_exc())
                    raise
                result.write_text("")
        assert not result.read_text(), result.read_text()
        return folder

    return once


def pytest_collection_finish() -> None:
    """Exempt what is imported by now from collection: accelerate collects after each training."""
    gc.collect()
    gc.freeze()
