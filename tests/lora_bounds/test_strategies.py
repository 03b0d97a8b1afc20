"""The public strategies keep their promises, and serve a third party in ten lines."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import find, given

from lora_bounds import strategies
from lora_bounds.bounds.risk import theorem_4_4
from lora_bounds.bounds.sparsity import mask_moments
from lora_bounds.losses import Loss
from lora_bounds.problems import Problem, ProblemConstants


@given(strategies.problem_constants())
def test_constants_lie_in_the_domain_of_the_bounds(c: ProblemConstants) -> None:
    result = theorem_4_4(**c.arguments(theorem_4_4))
    assert result.value >= c.empirical_risk


def my_bound(c: ProblemConstants) -> float:
    """A third party's bound: Thm 4.4 with delta, by mistake, where 1/delta belongs."""
    wrong = dict(c.arguments(theorem_4_4), n=round(c.n / c.delta))
    return float(theorem_4_4(**wrong).value)


def test_a_third_party_refutes_its_own_bound() -> None:
    """The ten lines: is my bound never below the published one? Hypothesis finds that it is."""
    c = find(
        strategies.problem_constants(max_n=100),
        lambda c: my_bound(c) < theorem_4_4(**c.arguments(theorem_4_4)).value,
    )
    assert c.n == 1  # shrunk to the simplest problem


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_dropout_rates_reach_both_ends(rate: float) -> None:
    assert find(strategies.dropout_rates(), lambda p: p == rate) == rate


@given(strategies.dropout_rates(low=0.2, high=0.3))
def test_dropout_rates_keep_to_the_interval(p: float) -> None:
    assert 0.2 <= p <= 0.3


@given(strategies.mask_laws(), strategies.dropout_rates(low=0.1, high=0.9))
def test_mask_laws_have_moments(law: str, p: float) -> None:
    assert mask_moments(law=law, dropout=p) is not None


@given(strategies.regression_problems(conditioning="ill"))
def test_ill_conditioned_regression_is_ill_conditioned(problem: Problem) -> None:
    n, d = problem.inputs.shape
    assert n > d
    if d > 1:
        assert np.linalg.cond(problem.inputs) > 0.99e4


@given(strategies.regression_problems(noise=(0.0, 0.0)))
def test_well_conditioned_regression_is_solved_by_its_weights(problem: Problem) -> None:
    assert np.linalg.cond(problem.inputs) < 10.1
    found = np.linalg.lstsq(problem.inputs, problem.targets)[0]
    assert found == pytest.approx(problem.weights, abs=1e-10)


@given(strategies.classification_problems(separable=False))
def test_overlapping_classes_leave_every_direction_wrong_somewhere(problem: Problem) -> None:
    rng = np.random.default_rng(problem.seed)
    directions = rng.standard_normal((problem.inputs.shape[1], 50))
    margins = problem.targets[:, None] * (problem.inputs @ directions)
    assert (margins.min(axis=0) < 0).all()


@given(strategies.classification_problems())
def test_labels_are_signs(problem: Problem) -> None:
    assert set(np.unique(problem.targets)) <= {-1.0, 1.0}
    assert problem.separable in (True, False)


@given(strategies.losses(convex=True, lipschitz=True, targets="sign"))
def test_losses_are_filtered(loss: Loss) -> None:
    assert loss.convex
    assert np.isfinite(loss.lipschitz)
    assert loss.targets == "sign"


def test_rejections() -> None:
    with pytest.raises(ValueError, match=r"conditioning must be 'well' or 'ill', got .*'bad'"):
        strategies.regression_problems(conditioning="bad")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="conditioning must be"):
        strategies.classification_problems(conditioning="bad")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no loss has convex=False, lipschitz=False and .*'real'"):
        strategies.losses(convex=False, lipschitz=False, targets="real")


def test_without_hypothesis_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "try:\n    import lora_bounds.strategies\n"
        "except ImportError as error:\n    print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'lora-dropout[strategies]'" in shown.stdout


FIRST_CALLS = """
import sys, time
import lora_bounds as lb
from hypothesis import given, settings, strategies as st
from lora_bounds import strategies

known = set(sys.modules)

@settings(max_examples=3, database=None, derandomize=True, deadline=None)
@given(strategies.{strategy})
def call(x):
    before = time.process_time()
    {call}
    assert time.process_time() - before < 0.2, "Hypothesis's default deadline"

call()
late = set(sys.modules) - known
slow = ("lora_bounds", "scipy", "sympy", "mpmath")
assert not [name for name in late if name.split(".")[0] in slow], late
"""


@pytest.mark.parametrize(
    ("strategy", "call"),
    [
        ("dropout_rates()", "lb.ridge_risks(spectrum=lb.marchenko_pastur(aspect=2.0), weight=x,"
         " signal_power=1.0, noise_variance=1.0)"),
        ("dropout_rates(low=0.1)", "lb.critical_ratio(spectrum=lb.wishart_spectrum(n=9, d=3),"
         " regularization=x)"),
        ("mask_laws()", "lb.mask_moments(dropout=0.5, law=x)"),
        ("problem_constants()", "lb.theorem_4_4(**x.arguments(lb.theorem_4_4)); lb.clopper_pearson("
         "n=x.n, errors=x.n // 2, delta=x.delta)"),
        ("regression_problems()", "lb.leave_one_out(inputs=x.inputs, targets=x.targets,"
         " regularization=1.0, dropout=0.5); lb.page_trend([[1.0, 2.0, 3.0]] * len(x.inputs),"
         " direction='increasing')"),
        ("classification_problems(max_n=9)", "lb.logistic_fit(inputs=x.inputs, labels=x.targets,"
         " regularization=1.0, dropout=0.5)"),
        ("losses()", "x.value(0.5, 1.0)"),
    ],
)  # fmt: skip
def test_first_examples_import_nothing_slow(strategy: str, call: str) -> None:
    """In a fresh process, where nothing else has been imported before."""
    code = FIRST_CALLS.format(strategy=strategy, call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
