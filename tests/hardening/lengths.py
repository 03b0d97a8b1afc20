"""How long an attack goes on."""

from typing import Any

import pytest


def lengths(short: Any, long: Any) -> list[Any]:
    """Parameters of one test: the first for `make test`, the second for `make hardening`."""
    return [
        pytest.param(short, id="short"),
        pytest.param(long, id="long", marks=pytest.mark.hardening),
    ]
