"""Stability measured by refitting, against the bounds: the sweeps behind the stability claims."""

import numpy as np

from lora_bounds.bounds.sparsity import penalty_weight
from lora_bounds.bounds.stability import (
    Convention,
    lemma_a1,
    paper_stability,
    self_consistent_lipschitz,
    self_consistent_stability,
    uniform_stability,
)
from lora_bounds.exact.logistic import leave_one_out_fits, logistic_fit, logistic_loss
from lora_bounds.exact.ridge import leave_one_out, ridge_fit
from lora_bounds.ledger.evidence import ALGEBRA, Sweep, agreement, unseen
from lora_bounds.problems import make_classification, make_regression
from lora_bounds.rounding import Array

_CONVENTIONS: tuple[Convention, ...] = ("1/n", "1/(n-1)")


def _ridge_problem(rng: np.random.Generator) -> tuple[Array, Array, float, float]:
    d = int(rng.integers(1, 4))
    problem = make_regression(
        n=int(rng.integers(d + 2, 12)),
        d=d,
        condition_number=10 ** float(rng.uniform(0, 2)) if d > 1 else 1.0,
        noise=10 ** float(rng.uniform(-2, 1)),
        seed=int(rng.integers(2**32)),
    )
    regularization, dropout = 10 ** float(rng.uniform(-2, 1)), float(rng.uniform(0.05, 1))
    return problem.inputs, problem.targets, regularization, dropout


def leave_one_out_against_refits() -> Sweep:
    """Returns closed-form leave-one-out solutions of ridge against solving each problem anew."""
    rng, slacks = np.random.default_rng(1), []
    for _ in range(500):
        x, y, lam, p = _ridge_problem(rng)
        weight, n = float(penalty_weight(dropout=p, regularization=lam)), len(x)
        for convention in _CONVENTIONS:
            closed = leave_one_out(
                inputs=x, targets=y, regularization=lam, dropout=p, convention=convention
            )
            divisor = n if convention == "1/n" else n - 1
            for i in range(n):
                kept = np.arange(n) != i
                hessian = x[kept].T @ x[kept] / divisor + 2 * weight * np.eye(x.shape[1])
                refit = np.linalg.solve(hessian, x[kept].T @ y[kept] / divisor)
                slacks.append(agreement(closed.solutions[i], refit, ALGEBRA))
    return Sweep("500 random ridge problems, n < 12, d < 4, both conventions", slacks, unseen(500))


def _ridge_slopes(x: Array, y: Array, solutions: Array, weight: float) -> tuple[float, float]:
    """Returns the largest gradient norms rho of a loss and eta of a penalised one at solutions.

    A gradient norm is convex here, so on a segment between solutions it is largest at an end.
    """
    plain = (solutions @ x.T - y)[:, :, None] * x[None]
    penalised = plain + 2 * weight * solutions[:, None]
    return tuple(float(np.linalg.norm(g, axis=2).max()) for g in (plain, penalised))  # type: ignore[return-value]


def quadratic_stability() -> Sweep:
    """Returns Prop. 4.2, Lemma A.1 and the self-consistent version minus measured stability."""
    rng, slacks = np.random.default_rng(2), []
    for _ in range(1000):
        x, y, lam, p = _ridge_problem(rng)
        weight = float(penalty_weight(dropout=p, regularization=lam))
        fit = ridge_fit(inputs=x, targets=y, regularization=lam, dropout=p)
        left = leave_one_out(
            inputs=x, targets=y, regularization=lam, dropout=p, convention="1/(n-1)"
        )
        rho, eta = _ridge_slopes(x, y, np.vstack([fit.solution, left.solutions]), weight)
        constants = {"n": len(x), "curvature": fit.least_curvature}
        bounds = (
            paper_stability(lipschitz=eta, regularization=lam, dropout=p, **constants),
            lemma_a1(lipschitz=eta, regularization=weight, **constants),
            self_consistent_stability(lipschitz=rho, regularization=lam, dropout=p, **constants),
        )
        worst = float(np.abs(left.regularized_changes).max())
        slacks += [(float(bound.value) - worst) / worst for bound in bounds]
    scope = "1000 random ridge problems, condition 1 to 100, noise 0.01 to 10 (relative margin)"
    return Sweep(scope, slacks, unseen(1000))


def half_of_lemma_a1() -> Sweep:
    """Returns half of Lemma A.1 minus measured stability, relative."""
    rng, slacks = np.random.default_rng(22), []
    for _ in range(1000):
        x, y, lam, p = _ridge_problem(rng)
        weight = float(penalty_weight(dropout=p, regularization=lam))
        fit = ridge_fit(inputs=x, targets=y, regularization=lam, dropout=p)
        left = leave_one_out(
            inputs=x, targets=y, regularization=lam, dropout=p, convention="1/(n-1)"
        )
        _, eta = _ridge_slopes(x, y, np.vstack([fit.solution, left.solutions]), weight)
        bound = lemma_a1(
            n=len(x), lipschitz=eta, curvature=fit.least_curvature, regularization=weight
        ).value
        worst = float(np.abs(left.regularized_changes).max())
        slacks.append((float(bound) / 2 - worst) / worst)
    return Sweep("1000 random ridge problems (relative margin)", slacks, unseen(1000))


def lipschitz_constants() -> Sweep:
    """Returns rho + min(2 lambda q D, rho) minus the measured slope of the penalised loss."""
    rng, slacks = np.random.default_rng(3), []
    for _ in range(1000):
        x, y, lam, p = _ridge_problem(rng)
        weight = float(penalty_weight(dropout=p, regularization=lam))
        theta = ridge_fit(inputs=x, targets=y, regularization=lam, dropout=p).solution
        rho, eta = _ridge_slopes(x, y, theta[None], weight)
        radius = float(np.linalg.norm(theta))
        for reach in (radius, np.inf):
            limit = self_consistent_lipschitz(
                lipschitz=rho, regularization=lam, dropout=p, radius=reach
            )
            slacks.append(float(limit) * (1 + ALGEBRA) - eta)
    return Sweep("1000 random ridge problems, at the optimum", slacks, unseen(1000))


def plain_slope_in_lemma_a1() -> Sweep:
    """Returns Lemma A.1 at the plain loss's constant minus the stability of the penalised loss.

    Two linear losses t and -t, so rho = 1, and a penalty c t^2. By hand, for c = 1: theta(S) = 0,
    theta(S^i) = 1/2 up to sign, so L_lambda changes by 1/2 + 1/4 = 3/4, over 2 rho^2/(2 n) = 1/2.
    """
    slacks = []
    for c in (0.25, 1.0, 4.0):
        bound = lemma_a1(n=2, lipschitz=1.0, curvature=0.0, regularization=c).value
        solution = 1 / (2 * c)  # of S^i = {t -> -t}, factor 1/(n-1) = 1
        slacks.append(float(bound) - (solution + c * solution**2))
    return Sweep("two linear losses, penalty weights 1/4, 1 and 4", slacks)


def repaired_uniform_stability() -> Sweep:
    """Returns the repaired bound minus the largest change of loss at any z, by logistic refits."""
    rng, slacks = np.random.default_rng(4), []
    for _ in range(500):
        d = int(rng.integers(1, 4))
        data = make_classification(
            distinct=int(rng.integers(d + 1, 6)),
            d=d,
            condition_number=float(10 ** rng.uniform(0, 2)) if d > 1 else 1.0,
            separable=bool(rng.integers(2)),
            seed=int(rng.integers(2**32)),
        )
        x, y = data.inputs, data.targets
        rho = float(np.linalg.norm(x, axis=1).max())
        setting = {
            "regularization": 10 ** float(rng.uniform(-2, 1)),
            "dropout": float(rng.uniform(0.05, 1)),
        }
        full = logistic_fit(inputs=x, labels=y, **setting).solution
        for convention in _CONVENTIONS:
            refits = leave_one_out_fits(inputs=x, labels=y, convention=convention, **setting)
            bound = uniform_stability(
                n=len(x), lipschitz=rho, convention=convention, **setting
            ).value
            for refit in refits:
                apart = refit.solution - full
                # The z in the ball of radius rho that feels the change most, and the sample.
                steep = rho * apart / max(float(np.linalg.norm(apart)), 1e-300)
                z, labels = np.vstack([x, steep, -steep]), np.append(y, [1.0, 1.0])
                before, after = (
                    logistic_loss(inputs=z, labels=labels, solution=theta)
                    for theta in (full, refit.solution)
                )
                slacks.append((float(bound) - float(np.abs(after - before).max())) / float(bound))
    scope = "500 random logistic problems (separable or not), both conventions (relative margin)"
    return Sweep(scope, slacks, unseen(500))


def uniform_stability_attained() -> Sweep:
    """Returns how closely linear losses attain the repaired bound, in both conventions.

    Slopes 1, -1, ..., -1 and a penalty c t^2: leaving out the first example moves the solution
    by (1/n)/(2c), or by (2/n)/(2c) where S^i has the factor 1/(n-1); so much does each loss move.
    """
    slacks = []
    for n in (2, 3, 10, 1000):
        slopes = np.append(1.0, -np.ones(n - 1))
        for c in (1e-3, 0.5, 20.0):
            full = -slopes.sum() / n / (2 * c)
            for convention, divisor in zip(_CONVENTIONS, (n, n - 1), strict=True):
                left = -slopes[1:].sum() / divisor / (2 * c)
                bound = uniform_stability(
                    n=n, lipschitz=1.0, regularization=c, dropout=1.0, convention=convention
                ).value
                slacks.append(agreement(float(bound) * c, abs(left - full) * c, ALGEBRA))
    return Sweep("linear losses, n 2 to 1000, three penalties, both conventions", slacks)
