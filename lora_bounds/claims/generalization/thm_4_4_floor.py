"""When Thm 4.4 says nothing: it never falls under C / sqrt(2 n delta), and pays 1/delta."""

import numpy as np

from lora_bounds.bounds.risk import least_delta, lemma_4_3, theorem_4_4
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import Sweep, proof, sweep
from lora_bounds.trial.proof import Argument, Proof, require_z3


def prove_floor() -> Proof:
    """Prove the floor of Thm 4.4, when it is vacuous, and its price in delta."""
    import sympy

    z3 = require_z3()
    argument = Argument(
        "For every eta, Lmin, lambda, p with Lmin + 2 lambda q > 0 the gap term of Thm 4.4 is at "
        "least C/sqrt(2 n delta); so it is vacuous (>= C) whenever 2 n delta <= 1, and in any "
        "case when n <= (1 + 24 eta^2/(C (Lmin + 2 lambda q)))/(2 delta). It pays 1/delta inside "
        "the root: the ratio to a term in log(1/delta) grows without bound as delta -> 0."
    )
    size, n, delta, eta, denominator, term, level, ratio = z3.Reals(
        "C n delta eta m term level ratio"
    )
    setting = [size > 0, n >= 1, delta > 0, delta <= 1, denominator > 0, ratio >= 0]
    ratio_is = ratio * denominator == eta * eta
    term_is = term * term * (2 * n * delta) == size * size + 24 * size * ratio
    argument.implies(
        "ratio = eta^2/(Lmin + 2 lambda q) is never negative",
        [denominator > 0, ratio_is],
        ratio >= 0,
    )
    argument.implies(
        "term^2 * 2 n delta >= C^2",
        [*setting, term >= 0, term_is],
        term * term * (2 * n * delta) >= size * size,
    )
    scaled = z3.Real("scaled")
    argument.implies(
        "term >= level when level^2 * 2 n delta = C^2 (scaled = 2 n delta)",
        [scaled > 0, term >= 0, level >= 0, level * level * scaled == size * size,
         term * term * scaled >= size * size],
        term >= level,
    )  # fmt: skip
    argument.implies(
        "2 n delta <= 1 makes it vacuous: term >= C",
        [scaled > 0, scaled <= 1, size > 0, term >= 0, term * term * scaled >= size * size],
        term >= size,
    )
    risk = z3.Real("risk")
    argument.implies(
        "2 n delta (C - Rhat)^2 <= C^2 makes it vacuous: Rhat + term >= C",
        [scaled > 0, size > 0, risk >= 0, risk <= size, term >= 0,
         term * term * scaled >= size * size,
         scaled * (size - risk) * (size - risk) <= size * size],
        risk + term >= size,
    )  # fmt: skip
    argument.implies(
        "vacuous exactly when 2 n delta C <= C + 24 ratio",
        [scaled > 0, size > 0, ratio >= 0, term >= 0,
         term * term * scaled == size * size + 24 * size * ratio],
        (term >= size) == (scaled * size <= size + 24 * ratio),
    )  # fmt: skip
    d = sympy.Symbol("delta", positive=True)
    argument.check(
        "(1/delta)/log(1/delta) -> infinity as delta -> 0",
        sympy.limit(1 / (d * sympy.log(1 / d)), d, 0, dir="+") == sympy.oo,
    )
    return argument.done()


def height_over_the_floor() -> Sweep:
    """Returns Thm 4.4 minus its floor C / sqrt(2 n delta), eta down to 0, lambda up to inf."""
    n, delta, lam, eta = np.meshgrid(
        np.logspace(0, 6, 13), np.logspace(-9, 0, 19), [1e-3, 1.0, 1e6, np.inf], [0.0, 1.0, 100.0]
    )
    n = np.floor(n)
    bound = theorem_4_4(
        n=n,
        delta=delta,
        lipschitz=eta,
        curvature=1.0,
        regularization=lam,
        dropout=1.0,
        loss_range=1.0,
        empirical_risk=0.0,
    ).value
    return Sweep("n 1 to 1e6, delta 1e-9 to 1", np.asarray(bound) - 1 / np.sqrt(2 * n * delta))


def vacuous_below_least_delta() -> Sweep:
    """Returns Lemma 4.3 minus C at and below the least useful delta, even for beta = 0."""
    n, risk, share = np.meshgrid(np.floor(np.logspace(0, 6, 13)), np.linspace(0, 0.9, 10), [1, 0.3])
    delta = share * np.asarray(least_delta(n=n, loss_range=1.0, empirical_risk=risk))
    bound = lemma_4_3(n=n, delta=delta, stability=0.0, loss_range=1.0, empirical_risk=risk)
    return Sweep("n 1 to 1e6, Rhat 0 to 0.9", np.asarray(bound.value) - 1.0)


def logarithmic_price() -> Sweep:
    """Returns how far the gap of Thm 4.4 is from growing only like sqrt(ln(1/delta))."""
    delta = np.logspace(-12, -2, 11)
    gap = theorem_4_4(
        n=1000,
        delta=delta,
        lipschitz=1.0,
        curvature=1.0,
        regularization=1.0,
        dropout=0.5,
        loss_range=1.0,
        empirical_risk=0.0,
    ).value
    per_root = np.asarray(gap) / np.sqrt(np.log(1 / delta))
    return Sweep("delta 1e-12 to 1e-2", 2 * per_root[-1] - per_root)


CLAIMS = (
    Claim(
        id="Audit 7",
        paper_item="Lemma 4.3, Thm 4.4, when vacuous",
        statement=(
            "Whatever lambda and p, the gap term is at least C/sqrt(2 n delta): vacuous for "
            "delta <= C^2 / (2 n (C-Rhat)^2)."
        ),
        assumptions=(),
        evidence=(
            proof(prove_floor),
            sweep(height_over_the_floor),
            sweep(vacuous_below_least_delta),
        ),
        recorded=Verdict.PROVED,
        formula="sqrt((C^2 + 24 C eta^2/(Lmin + 2 lambda q))/(2 n delta)) >= C/sqrt(2 n delta)",
        functions=("bounds.risk.theorem_4_4", "bounds.risk.least_delta"),
    ),
    Claim(
        id="Audit 7, price of delta",
        paper_item="Lemma 4.3, Thm 4.4, price of delta",
        statement="The gap term grows only like sqrt(ln(1/delta)), within a factor of 2.",
        assumptions=(),
        evidence=(proof(prove_floor, of_the_contrary=True), sweep(logarithmic_price)),
        recorded=Verdict.REFUTED,
        formula="gap(delta) = O(sqrt(ln(1/delta)))",
        functions=("bounds.risk.theorem_4_4",),
    ),
)
