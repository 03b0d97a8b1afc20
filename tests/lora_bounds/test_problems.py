import numpy as np
import pytest
from scipy.optimize import linprog

from lora_bounds.problems import Problem, make_classification, make_regression


@pytest.mark.parametrize("condition", [1.0, 7.0, 1e5])
def test_condition_number_is_as_asked(condition: float) -> None:
    problem = make_regression(n=12, d=3, condition_number=condition, noise=0.0, seed=4)
    values = np.linalg.svd(problem.inputs, compute_uv=False)
    assert values[0] / values[-1] == pytest.approx(condition, rel=1e-9)
    assert values[0] == pytest.approx(np.sqrt(12), rel=1e-12)
    assert problem.targets == pytest.approx(problem.inputs @ problem.weights, abs=1e-12)


def _separable_by_linear_program(problem: Problem) -> bool:
    """Whether some w has y x.w >= 1 for all examples."""
    signed = problem.targets[:, None] * problem.inputs
    d = signed.shape[1]
    found = linprog(
        np.zeros(d), A_ub=-signed, b_ub=-np.ones(len(signed)), bounds=[(None, None)] * d
    )
    return bool(found.status == 0)


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_separability_against_a_linear_program(separable: bool, seed: int) -> None:
    problem = make_classification(
        distinct=6, d=2, condition_number=3.0, separable=separable, seed=seed
    )
    assert _separable_by_linear_program(problem) == separable


def test_arrays_are_read_only_and_reproducible() -> None:
    first, second = (
        make_regression(n=5, d=2, condition_number=2.0, noise=1.0, seed=9) for _ in range(2)
    )
    assert np.array_equal(first.inputs, second.inputs)
    assert np.array_equal(first.targets, second.targets)
    with pytest.raises(ValueError, match="read-only"):
        first.inputs[0, 0] = 1.0


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"noise must be in \[0, inf\), got noise=-1"):
        make_regression(n=5, d=2, condition_number=2.0, noise=-1.0, seed=0)
    with pytest.raises(ValueError, match=r"d must be in \[1, 5\], got d=6"):
        make_regression(n=5, d=6, condition_number=2.0, noise=1.0, seed=0)
    with pytest.raises(ValueError, match=r"condition_number=0\.5"):
        make_classification(distinct=5, d=2, condition_number=0.5, separable=True, seed=0)
