"""Def. 4.1: pointwise hypothesis stability, which ridge regression has in closed form."""

import numpy as np

from lora_bounds.bounds.sparsity import penalty_weight
from lora_bounds.claims.stability.ridge_problems import CONVENTIONS, ridge_problem
from lora_bounds.exact.ridge import leave_one_out
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, agreement, sweep, unseen


def leave_one_out_against_refits() -> Sweep:
    """Returns closed-form leave-one-out solutions of ridge against solving each problem anew."""
    rng, slacks = np.random.default_rng(1), []
    for _ in range(500):
        x, y, lam, p = ridge_problem(rng)
        weight, n = float(penalty_weight(dropout=p, regularization=lam)), len(x)
        for convention in CONVENTIONS:
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


CLAIMS = (
    Claim(
        id="Def 4.1",
        paper_item="Def. 4.1",
        statement="For ridge regression both conventions of S^i have exact closed-form stability.",
        assumptions=("unique minimisers",),
        evidence=(sweep(leave_one_out_against_refits),),
        recorded=Verdict.HOLDS,
        formula="beta = E_{S,i} abs(l(x_i; theta(S^i)) - l(x_i; theta(S)))",
        functions=("exact.ridge.leave_one_out", "exact.ridge.ridge_fit"),
    ),
)
