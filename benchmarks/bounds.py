"""Bounds and exact results against the loops that they replace, and what imports cost."""

import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.turns import ratio_row, time_in_turn
from lora_bounds import theorem_4_4
from lora_bounds.exact.ridge import leave_one_out, ridge_fit
from lora_bounds.problems import make_regression

_CONSTANTS: dict[str, float] = {"lipschitz": 1.0, "curvature": 0.5, "loss_range": 1.0}


def leave_one_out_of_1000(rounds: int) -> list[dict[str, Any]]:
    """The closed form against n refits."""
    data = make_regression(n=1000, d=50, condition_number=10.0, noise=0.5, seed=0)
    x, y = np.asarray(data.inputs), np.asarray(data.targets)

    def closed() -> np.ndarray:
        found = leave_one_out(
            inputs=x, targets=y, regularization=1.0, dropout=0.5, convention="1/(n-1)"
        )
        return found.solutions

    def refits(count: int = len(y)) -> np.ndarray:
        rest = np.arange(len(y))
        return np.stack(
            [
                ridge_fit(
                    inputs=x[rest != i], targets=y[rest != i], regularization=1.0, dropout=0.5
                ).solution
                for i in range(count)
            ]
        )

    np.testing.assert_allclose(closed()[:20], refits(20), rtol=1e-8, atol=1e-10)
    functions = {"closed-form leave-one-out": closed, "1000 refits": refits}
    seen = time_in_turn(functions, rounds=max(3, rounds // 5), warmup=1, title="leave-one-out")
    return [ratio_row(seen, "closed-form leave-one-out", "1000 refits", target=0.01)]


def million_bounds(rounds: int) -> list[dict[str, Any]]:
    """Thm 4.4 for a million settings at once, against a call for each (2000 of them, scaled up)."""
    rng = np.random.default_rng(0)
    n, p = rng.integers(10, 10**6, 10**6), rng.uniform(0.1, 0.9, 10**6)
    lam, delta = rng.uniform(0.1, 10, 10**6), rng.uniform(0.01, 0.5, 10**6)

    def values(rows: Any) -> Any:
        return theorem_4_4(
            n=n[rows],
            dropout=p[rows],
            regularization=lam[rows],
            delta=delta[rows],
            empirical_risk=0.1,
            **_CONSTANTS,
        ).value

    def loop() -> list[float]:
        return [values(i) for i in range(2000)]

    np.testing.assert_array_equal(loop(), values(slice(2000)))
    functions = {"a million bounds at once": lambda: values(slice(None)), "2000 calls": loop}
    seen = time_in_turn(functions, rounds=rounds, title="bounds")
    seen["a million calls (scaled)"] = 500.0 * seen["2000 calls"]
    return [ratio_row(seen, "a million bounds at once", "a million calls (scaled)", target=0.01)]


def imports(rounds: int) -> list[dict[str, Any]]:
    """Fresh processes: what our import adds to the import of what it stands on."""
    rows = []
    for ours, base, target in (("lora_bounds", "numpy", 0.3), ("lora_dropout", "torch", 0.2)):
        functions = {
            name: lambda name=name: subprocess.run(
                [sys.executable, "-c", f"import {name}"], check=True
            )
            for name in (ours, base)
        }
        seen = time_in_turn(functions, rounds=rounds, title=f"import {ours}")
        added = float(np.median(seen[ours] - seen[base]))
        rows.append(
            ratio_row(seen, ours, base, added_seconds=round(added, 3), target_added_seconds=target)
        )
    return rows


def run(rounds: int) -> list[dict[str, Any]]:
    """All of these.

    Args:
        rounds: Turns each.

    Returns:
        The rows.
    """
    return [
        row for case in (leave_one_out_of_1000, million_bounds, imports) for row in case(rounds)
    ]
