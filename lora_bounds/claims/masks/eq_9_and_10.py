"""Eqs. 9 and 10: the constrained problem and its Lagrangian, which leave dtheta = 0 alone."""

from fractions import Fraction

import numpy as np

from lora_bounds.bounds.sparsity import dropped_norm, inner_maximum
from lora_bounds.claims.one_parameter import exact_drop_probability
from lora_bounds.claims.symbolic_masks import keep_vectors
from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import IDENTITY, Sweep, agreement, counterexample, proof, sweep
from lora_bounds.trial.proof import Argument, Proof, require_z3

_RATES = np.linspace(0.0, 1.0, 41)


def prove_degeneracy() -> Proof:
    """Prove that for p > 0 Eq. 9 leaves only dtheta = 0, so Eq. 10 = L(theta0)."""
    import sympy

    z3 = require_z3()
    argument = Argument(
        "For 0 < p <= 1 and q = 2p - p^2: E_d norm(d*dtheta)^2 = q norm(dtheta)^2; hence the only "
        "feasible point of Eq. 9 is dtheta = 0, and min_dtheta max_{lambda>=0} of Eq. 10 is "
        "L(theta0). Eq. 11 (one fixed finite lambda) is therefore a surrogate, not a consequence."
    )
    p = sympy.Symbol("p")
    delta = sympy.Matrix(2, 3, lambda i, j: sympy.Symbol(f"t{i}{j}"))
    dropped = sum(
        prob_r * prob_c * (1 - row[i] * col[j]) * delta[i, j] ** 2
        for row, prob_r in keep_vectors(2, p)
        for col, prob_c in keep_vectors(3, p)
        for i in range(2)
        for j in range(3)
    )
    argument.zero(
        "E_d norm(d*dtheta)^2 = (2p - p^2) norm(dtheta)^2 for a 2 x 3 update, all 32 masks summed",
        dropped - (2 * p - p**2) * sum(t**2 for t in delta),
    )
    argument.argued(
        "any shape: d is 0/1, so the expectation is the sum of P(d_ij = 1) dtheta_ij^2, and "
        "P(d_ij = 1) involves the mask of row i and of column j only"
    )
    q, rate, s, t, s_next = z3.Reals("q rate s t s_next")
    argument.implies(
        "p in (0, 1] gives q > 0", [rate > 0, rate <= 1, q == 2 * rate - rate * rate], q > 0
    )
    argument.implies(
        "induction on the number of entries: s_next = s + t^2, s >= 0 and q s_next = 0 "
        "force t = 0 and s = 0",
        [q > 0, s >= 0, s_next == s + t * t, q * s_next == 0],
        z3.And(t == 0, s == 0),
    )
    penalty, bound, loss, lam = z3.Reals("penalty bound loss lam")
    argument.implies(
        "if the penalty is positive, the maximum over lambda of Eq. 10 exceeds every bound "
        "(take lambda = (bound - loss)/penalty + 1)",
        [penalty > 0, bound > loss, lam * penalty == bound - loss + penalty],
        z3.And(lam > 0, loss + lam * penalty > bound),
    )
    argument.argued("so Eq. 10 is +infinity off dtheta = 0 and L(theta0) there")
    return argument.done()


def feasible_updates() -> Sweep:
    """Returns the room that Eq. 9 leaves: E norm(d * update)^2 must be 0, and it is not."""
    p, norm = np.meshgrid(_RATES[1:], np.logspace(-6, 6, 25))
    return Sweep(
        "p in (0, 1], norm^2 in [1e-6, 1e6]",
        -np.asarray(dropped_norm(dropout=p, squared_norm=norm)),
    )


def inner_maxima() -> Sweep:
    """Returns the inner maximum of Eq. 10: the loss at a zero update, infinite off it."""
    off = inner_maximum(loss=0.3, dropout=_RATES[1:], squared_norm=1e-12)
    at = inner_maximum(loss=0.3, dropout=_RATES, squared_norm=0.0)
    slack = np.where(np.isinf(off), 1.0, -1.0)
    return Sweep("p in [0, 1]", np.append(slack, agreement(at, np.full(41, 0.3), IDENTITY)))


def replay_eq_9_degenerate(data: Data) -> Replay:
    """Replay an update that Eq. 9 forbids and Eq. 11 takes."""
    update, p, lam, target = (data[key] for key in ("update", "p", "regularization", "target"))
    q = exact_drop_probability(p)
    cost = q * update**2
    minimiser = target / (1 + 2 * lam * q)
    steps = [
        f"L(theta) = (1/2)(theta - {target})^2, theta0 = 0, p = {p}, q = {q}",
        f"Eq. 9 at dtheta = {update}: E norm(d*dtheta)^2 = q dtheta^2 = {cost}, not 0: infeasible",
        f"only dtheta = 0 is feasible, value L(0) = {target**2 / 2}",
        f"Eq. 11 with lambda = {lam}: its minimiser is dtheta = {minimiser}, not 0",
    ]
    return replayed(cost, Fraction(0), steps, bool(cost > 0 and minimiser != 0))


CLAIMS = (
    Claim(
        id="Eq. 9",
        paper_item="Eq. 9",
        statement="The constraint E norm(d*dtheta)^2 = 0 leaves room for fine-tuning at p > 0.",
        assumptions=(),
        evidence=(
            counterexample(replay_eq_9_degenerate),
            proof(prove_degeneracy, of_the_contrary=True),
            sweep(feasible_updates),
        ),
        recorded=Verdict.REFUTED,
        formula="min L(theta0 + dtheta)  subject to  E_d norm(d*dtheta)^2 = 0",
        functions=("bounds.sparsity.dropped_norm",),
    ),
    Claim(
        id="Audit 1",
        paper_item="Eq. 9, Eq. 10, Eq. 11",
        statement=(
            "Eq. 9 is degenerate: for p > 0 only dtheta = 0 is feasible and Eq. 10 equals "
            "L(theta0); Eq. 11 at one finite lambda is a surrogate, not a consequence."
        ),
        assumptions=(),
        evidence=(proof(prove_degeneracy), sweep(inner_maxima)),
        recorded=Verdict.PROVED,
        formula="E_d norm(d*dtheta)^2 = q norm(dtheta)^2",
        functions=("bounds.sparsity.dropped_norm", "bounds.sparsity.inner_maximum"),
    ),
    Claim(
        id="Eq. 10",
        paper_item="Eq. 10",
        statement="The minimum over dtheta of the maximum over lambda is a fine-tuned model.",
        assumptions=("some dtheta improves on theta0",),
        evidence=(proof(prove_degeneracy, of_the_contrary=True),),
        recorded=Verdict.REFUTED,
        formula="min_dtheta max_lambda L(theta0 + dtheta) + lambda E_d norm(d*dtheta)^2",
        functions=("bounds.sparsity.inner_maximum",),
    ),
)
