"""Stability and bounds for sparsity-regularised logistic regression, by Newton refits."""

import numpy as np
import pytest
from hypothesis import given, settings

from lora_bounds.bounds.compare import compare_bounds
from lora_bounds.bounds.sparsity import drop_probability
from lora_bounds.bounds.stability import uniform_stability
from lora_bounds.exact.logistic import leave_one_out_fits, logistic_fit, logistic_loss
from tests.predictions.checks import (
    caught,
    check_below,
    check_failure_rate,
    check_monotone,
    check_rate,
)
from tests.predictions.strategies import BoundedProblem, bounded_problems

FEW = settings(max_examples=5)


def check_stability(problem: BoundedProblem, bound=uniform_stability):
    """PHS, and the change of loss at every atom, against the repaired Prop. 4.2."""
    x, y = problem.examples(signs=True)
    pick = np.random.default_rng(problem.seed).integers(len(x), size=problem.n)
    setting = {"inputs": x[pick], "labels": y[pick], **problem.penalty}
    full, left = logistic_fit(**setting), leave_one_out_fits(**setting)
    # The slope of a loss at theta is norm(x) / (1 + exp(margin)): largest at an end of a segment.
    thetas = np.array([full.solution, *(found.solution for found in left)])
    slopes = np.linalg.norm(x, axis=1) / (1 + np.exp(y * (thetas @ x.T)))
    limit = float(bound(n=problem.n, lipschitz=float(slopes.max()), **problem.penalty).value)
    losses = np.array([logistic_loss(inputs=x, labels=y, solution=theta) for theta in thetas])
    changes = np.abs(losses[1:] - losses[0])
    check_below(changes, limit, rounding=1e-7)
    check_below(changes[np.arange(problem.n), pick].mean(), limit, rounding=1e-7)


@given(bounded_problems())
def test_stability_is_below_the_repaired_bound(problem):
    check_stability(problem)


CORRUPTIONS = {
    "n by n squared": lambda n, **a: uniform_stability(n=n * n, **a),
    "half of lambda q": lambda regularization, **a: uniform_stability(
        regularization=2 * regularization, **a
    ),
    "slope halved": lambda lipschitz, **a: uniform_stability(lipschitz=lipschitz / 2, **a),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_stability_bound_is_caught(name):
    problem = caught(lambda p: check_stability(p, CORRUPTIONS[name]), bounded_problems())
    assert eval(repr(problem)) == problem


SIZES = (15, 30, 60)


@FEW
@given(bounded_problems(max_atoms=5))
def test_stability_falls_like_one_over_n(problem):
    x, y = problem.examples(signs=True)
    if len(np.unique(np.c_[x, y], axis=0)) < 2:
        return
    rng, rows = np.random.default_rng(problem.seed), []
    for _ in range(12):
        pick, row = rng.integers(len(x), size=max(SIZES)), []
        for n in SIZES:
            setting = {"inputs": x[pick[:n]], "labels": y[pick[:n]], **problem.penalty}
            theta = logistic_fit(**setting).solution
            changes = [
                logistic_loss(inputs=[a], labels=[b], solution=found.solution)
                - logistic_loss(inputs=[a], labels=[b], solution=theta)
                for a, b, found in zip(
                    setting["inputs"], setting["labels"], leave_one_out_fits(**setting), strict=True
                )
            ]
            row.append(float(np.abs(changes).mean()))
        rows.append(row)
    check_rate(SIZES, rows, expected=-1.0, tolerance=0.45)


MET = {
    *("i.i.d. sample", "bounded loss", "symmetric algorithm", "minimisers"),
    *("convex loss", "Lipschitz loss", "pointwise hypothesis stability", "uniform stability"),
}


def check_bounds(problem: BoundedProblem, share=1.0, trials=150):
    """Slope at most 1, and norm(theta) <= 1/(2 lambda q), so losses are at most ln(1 + exp(.))."""
    x, y = problem.examples(signs=True)
    q = float(drop_probability(dropout=problem.dropout))
    largest = float(np.logaddexp(0.0, 1 / (2 * problem.regularization * q)))
    rows = compare_bounds(
        n=problem.n, delta=problem.delta, lipschitz=1.0, curvature=0.0, loss_range=largest,
        empirical_risk=0.0, **problem.penalty,
    )  # fmt: skip
    kept = [row for row in rows if {a.name for a in row.assumptions} <= MET]
    assert len(kept) == 4, [row.name for row in kept]
    rng, draws = np.random.default_rng(problem.seed + 7), []
    for _ in range(trials):
        pick = rng.integers(len(x), size=problem.n)
        theta = logistic_fit(inputs=x[pick], labels=y[pick], **problem.penalty).solution
        losses = logistic_loss(inputs=x, labels=y, solution=theta)
        draws.append(losses.mean() - losses[pick].mean())
    for row in kept:
        failed = int((np.array(draws) > share * float(row.result.value)).sum())
        check_failure_rate(failed, trials, problem.delta)


@FEW
@given(bounded_problems())
def test_bounds_fail_as_rarely_as_they_say(problem):
    check_bounds(problem)


def test_bounds_without_their_slack_are_caught():
    problem = BoundedProblem(3, 3, 6, 0.05, 0.3, 0.05, 1)
    with pytest.raises(AssertionError, match="failed in"):
        check_bounds(problem, share=0.0)


@given(bounded_problems())
def test_training_risk_rises_with_p(problem):
    x, y = problem.examples(signs=True)
    risks = []
    for p in (0.1, 0.3, 0.6, 1.0):
        theta = logistic_fit(
            inputs=x, labels=y, regularization=problem.regularization, dropout=p
        ).solution
        risks.append(float(logistic_loss(inputs=x, labels=y, solution=theta).mean()))
    check_monotone(risks, "increasing")
