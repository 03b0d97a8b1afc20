"""Hypothesis profiles: `ci` (default) is deterministic; `thorough` and `nightly` search wider."""

import gc
import os
import sys

import pytest
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


def pytest_collection_finish() -> None:
    """Exempt what is imported by now from collection: accelerate collects after each training."""
    gc.collect()
    gc.freeze()
