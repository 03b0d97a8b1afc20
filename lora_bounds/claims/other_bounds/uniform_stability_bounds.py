"""Bounds from uniform stability: Bousquet and Elisseeff; Feldman and Vondrak; Bousquet et al."""

from lora_bounds.bounds.risk import (
    bousquet_klochkov_zhivotovskiy,
    feldman_vondrak_2018,
    uniform_stability_bound,
)
from lora_bounds.claims.failure_rates import from_uniform
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import Sweep, proof, sweep
from lora_bounds.trial.proof import Argument, Proof, require_z3

PUBLISHED = "the cited theorem, which is not proved again here"


def prove_theorem_12() -> Proof:
    """Prove R <= Rhat + 2 beta + (4 n beta + C) sqrt(ln(1/delta)/(2n))."""
    import sympy

    z3 = require_z3()
    argument = Argument(
        "Uniform stability beta for removing one point, losses in an interval of length C. With "
        "probability at least 1 - delta over S: R <= Rhat + 2 beta + (4 n beta + C) "
        "sqrt(ln(1/delta)/(2n)). McDiarmid's inequality is cited, the rest is checked."
    )
    before, without, after, beta = z3.Reals("before without after beta")
    argument.implies(
        "replacing a point is removing one and adding one: a loss moves by at most 2 beta",
        [beta >= 0, before - without <= beta, without - after <= beta],
        before - after <= 2 * beta,
    )
    risk, risk2, n, size, same, same2, own, own2 = z3.Reals("risk risk2 n size same same2 own own2")
    hat, hat2 = z3.Reals("hat hat2")
    argument.implies(
        "so R - Rhat moves by at most (4 n beta + C)/n: R by 2 beta, the n-1 other losses by 2 "
        "beta each, the exchanged one by at most C",
        [
            n >= 1,
            beta >= 0,
            size >= 0,
            risk - risk2 <= 2 * beta,
            n * hat == same + own,
            n * hat2 == same2 + own2,
            same2 - same <= (n - 1) * (2 * beta),
            own2 - own <= size,
        ],
        n * ((risk - hat) - (risk2 - hat2)) <= 4 * n * beta + size,
    )
    argument.argued("E[R - Rhat] is the mean of replace-one changes (Lemma 7), hence <= 2 beta")
    m, b, c, d = sympy.symbols("n beta C delta", positive=True)
    deviation = (4 * m * b + c) * sympy.sqrt(sympy.log(1 / d) / (2 * m))
    step = (4 * m * b + c) / m
    argument.zero(
        "McDiarmid's exp(-2 eps^2/(n c^2)) with c = (4 n beta + C)/n equals delta at this eps",
        2 * deviation**2 / (m * step**2) - sympy.log(1 / d),
    )
    return argument.done()


def bousquet_elisseeff_failures() -> Sweep:
    """Returns delta minus how often Bousquet and Elisseeff's Theorem 12 fails."""
    return from_uniform(uniform_stability_bound)


def feldman_vondrak_failures() -> Sweep:
    """Returns delta minus how often Feldman and Vondrak's 2018 bound fails."""
    return from_uniform(feldman_vondrak_2018)


def bousquet_klochkov_zhivotovskiy_failures() -> Sweep:
    """Returns delta minus how often Bousquet, Klochkov and Zhivotovskiy's bound fails."""
    return from_uniform(bousquet_klochkov_zhivotovskiy)


CLAIMS = (
    Claim(
        id="Uniform stability bound",
        paper_item="Bousquet and Elisseeff 2002 Theorem 12",
        statement="Uniform stability bounds the risk with a price of sqrt(ln(1/delta)).",
        assumptions=("i.i.d. sample", "losses in [0, C]", "uniform stability beta"),
        evidence=(proof(prove_theorem_12), sweep(bousquet_elisseeff_failures)),
        recorded=Verdict.PROVED,
        formula="R <= Rhat + 2 beta + (4 n beta + C) sqrt(ln(1/delta) / (2n))",
        functions=("bounds.risk.uniform_stability_bound",),
    ),
    Claim(
        id="Feldman-Vondrak",
        paper_item="Feldman and Vondrak 2018 Theorem 1.2, 2019 Theorem 1.1",
        statement=(
            "A sharper bound for slowly decaying beta (2018). The 2019 one leaves its constant "
            "unnamed, so it is not put on trial."
        ),
        assumptions=("i.i.d. sample", "losses in [0, C]", "uniform stability beta", PUBLISHED),
        evidence=(sweep(feldman_vondrak_failures),),
        recorded=Verdict.HOLDS,
        formula="R <= Rhat + 8 C sqrt((4 beta/C + 1/n) ln(8/delta))",
        functions=("bounds.risk.feldman_vondrak_2018", "bounds.risk.feldman_vondrak"),
    ),
    Claim(
        id="Bousquet-Klochkov-Zhivotovskiy",
        paper_item="Bousquet, Klochkov and Zhivotovskiy 2020 Theorem 4",
        statement="The sharpest known dependence on beta, with the constants of its proof.",
        assumptions=("i.i.d. sample", "losses in [0, C]", "uniform stability beta", PUBLISHED),
        evidence=(sweep(bousquet_klochkov_zhivotovskiy_failures),),
        recorded=Verdict.HOLDS,
        formula="R <= Rhat + 4 beta + e (48 sqrt(2) beta ceil(log2 n) m + 4 C sqrt(m/n))",
        functions=("bounds.risk.bousquet_klochkov_zhivotovskiy",),
    ),
)
