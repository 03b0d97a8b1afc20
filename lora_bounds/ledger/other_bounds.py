"""Claims on the other bounds for the same model, and on the identity behind stability."""

from itertools import product
from typing import Any

import numpy as np

from lora_bounds.bounds.compare import compare_bounds
from lora_bounds.bounds.pac_bayes import (
    dropout_kl,
    geometric_widths,
    kl_inverse,
    pac_bayes_dropout_bound,
    pac_bayes_kl_bound,
)
from lora_bounds.ledger import coverage
from lora_bounds.ledger.evidence import ALGEBRA, QUADRATURE, Sweep, agreement, proof, sweep
from lora_bounds.trial.claim import Claim, Verdict

PUBLISHED = "the cited theorem, which is not proved again here"


def kl_by_quadrature() -> Sweep:
    """Returns the divergence formula against enumerated masks and integrated Gaussians."""
    slacks = []
    for p in (0.0, 0.3, 0.5, 0.9):
        for shift, width in (((0.5, -1.0, 2.0), 0.7), ((0.1, 0.0, -0.3), 0.05)):
            expected = 0.0
            for kept in product((0, 1), repeat=3):  # one column of A, two rows of B; rank one
                weight = float(np.prod([(1 - p) if k else p for k in kept]))
                for move in np.array(shift)[np.array(kept, bool)]:
                    x = np.linspace(move - 12 * width, move + 12 * width, 4001)
                    density = np.exp(-(((x - move) / width) ** 2) / 2) / (
                        width * np.sqrt(2 * np.pi)
                    )
                    ratio = (x**2 - (x - move) ** 2) / (2 * width**2)
                    expected += weight * float(np.trapezoid(density * ratio, x))
            norm = float(np.sum(np.square(shift)))
            formula = dropout_kl(dropout=p, squared_norm=norm, width=width)
            slacks.append(agreement(formula, expected, QUADRATURE))
    return Sweep("three masked entries, every mask, 4 rates, 2 widths", slacks)


def kl_inverses() -> Sweep:
    """Returns how closely kl(q, kl_inverse(q, c)) is c from above, away from r = 1."""
    q, c = np.meshgrid(np.linspace(0.0, 0.95, 96), np.logspace(-6, 1, 141))
    r = np.asarray(kl_inverse(empirical_risk=q, bound=c))
    inside = r < 1 - 1e-4
    q, c, r = q[inside], c[inside], r[inside]
    left = np.where(q > 0, q * np.log(np.where(q > 0, q, 1.0) / r), 0.0)
    back = left + (1 - q) * np.log((1 - q) / (1 - r))
    return Sweep("q in [0, 0.95], c in [1e-6, 10], r < 0.9999", ALGEBRA - np.abs(back - c))


def union_over_widths() -> Sweep:
    """Returns the bound at the best of K widths minus the best single bound: at least 0."""
    widths = geometric_widths(largest=1.0, ratio=0.5, count=8)
    slacks = []
    for n, norm, p in product((100, 10_000), (0.1, 10.0), (0.0, 0.5, 0.9)):
        risks = 0.1 + 0.3 * widths
        common: dict[str, Any] = {"n": n, "delta": 0.05, "loss_range": 1.0}
        joint = pac_bayes_dropout_bound(
            dropout=p, squared_norm=norm, widths=widths, empirical_risk=risks, **common
        ).value
        kl = dropout_kl(dropout=p, squared_norm=norm, width=widths)
        single = pac_bayes_kl_bound(kl=kl, empirical_risk=risks, **common).value
        slacks.append(float(joint) - float(np.min(single)))
    return Sweep("8 widths, n 100 and 10,000, three rates", slacks)


def held_out_is_the_yardstick() -> Sweep:
    """Returns each stability bound of the comparison minus the held-out one by Hoeffding."""
    slacks = []
    for n, p, lam, delta in product(
        (100, 3668, 10**6), (0.1, 0.5, 1.0), (0.1, 1.0, 1e3), (0.01, 0.1)
    ):
        rows = compare_bounds(
            n=n,
            delta=delta,
            dropout=p,
            lipschitz=1.0,
            regularized_lipschitz=1.0,
            curvature=0.0,
            regularization=lam,
            loss_range=1.0,
            empirical_risk=0.1,
            held_out_n=n,
            held_out_risk=0.1,
        )
        values = {row.name: float(np.asarray(row.result.value)) for row in rows}
        yardstick = values.pop("held-out, Hoeffding")
        slacks += [value - yardstick for value in values.values()]
    return Sweep("n 100 to 1e6, p 0.1 to 1, lambda 0.1 to 1000, delta 0.01 and 0.1", slacks)


def replace_one_identity() -> Sweep:
    """Returns the mean gap against signed replace-one stability, all samples of a ridge problem."""
    atoms = ((1.0, 1.0), (2.0, 1.0), (-1.0, 0.5))
    slacks = []
    for c, n in product((0.1, 1.0), (2, 3)):

        def fit(sample: tuple[tuple[float, float], ...], c: float = c) -> float:
            squares = sum(x * x for x, _ in sample)
            return sum(x * y for x, y in sample) / (squares + 2 * c * len(sample))

        def loss(z: tuple[float, float], t: float) -> float:
            return (z[1] - z[0] * t) ** 2 / 2

        gap = change = 0.0
        for sample in product(atoms, repeat=n):
            t = fit(sample)
            gap += float(
                np.mean([loss(z, t) for z in atoms]) - np.mean([loss(z, t) for z in sample])
            )
            moved = [loss(sample[0], fit((z, *sample[1:]))) for z in atoms]
            change += float(np.mean(moved)) - loss(sample[0], t)
        slacks.append(agreement(gap / 3**n, change / 3**n, ALGEBRA))
    return Sweep("three atoms, n 2 and 3, two penalties, all samples", slacks)


CLAIMS = (
    Claim(
        id="Uniform stability bound",
        paper_item="Bousquet and Elisseeff 2002 Theorem 12",
        statement="Uniform stability bounds the risk with a price of sqrt(ln(1/delta)).",
        assumptions=("i.i.d. sample", "losses in [0, C]", "uniform stability beta"),
        evidence=(proof("theorem-12"), sweep(coverage.bousquet_elisseeff_failures)),
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
        evidence=(sweep(coverage.feldman_vondrak_failures),),
        recorded=Verdict.HOLDS,
        formula="R <= Rhat + 8 C sqrt((4 beta/C + 1/n) ln(8/delta))",
        functions=("bounds.risk.feldman_vondrak_2018", "bounds.risk.feldman_vondrak"),
    ),
    Claim(
        id="Bousquet-Klochkov-Zhivotovskiy",
        paper_item="Bousquet, Klochkov and Zhivotovskiy 2020 Theorem 4",
        statement="The sharpest known dependence on beta, with the constants of its proof.",
        assumptions=("i.i.d. sample", "losses in [0, C]", "uniform stability beta", PUBLISHED),
        evidence=(sweep(coverage.bousquet_klochkov_zhivotovskiy_failures),),
        recorded=Verdict.HOLDS,
        formula="R <= Rhat + 4 beta + e (48 sqrt(2) beta ceil(log2 n) m + 4 C sqrt(m/n))",
        functions=("bounds.risk.bousquet_klochkov_zhivotovskiy",),
    ),
    Claim(
        id="PAC-Bayes dropout, KL",
        paper_item="McAllester 2013 dropout bound, KL",
        statement="The divergence of noisy LoRA Dropout from its prior.",
        assumptions=("same masks and same noise under both",),
        evidence=(proof("dropout-kl"), sweep(kl_by_quadrature)),
        recorded=Verdict.PROVED,
        formula="KL = (1-p)/2 (norm(A-A0)^2 + norm(B-B0)^2) / s^2",
        functions=("bounds.pac_bayes.dropout_kl",),
    ),
    Claim(
        id="PAC-Bayes kl, price of the logarithm",
        paper_item="Maurer 2004 Theorem 1, small n",
        statement="ln(2 sqrt n) is enough for n = 1 to 120, so also below its proof's n >= 8.",
        assumptions=("0-1 losses",),
        evidence=(proof("kl-moment"),),
        recorded=Verdict.PROVED,
        formula="E exp(n kl(Rhat || R)) <= 2 sqrt(n)",
        functions=("bounds.pac_bayes.pac_bayes_kl_bound",),
    ),
    Claim(
        id="PAC-Bayes dropout",
        paper_item="McAllester 2013 dropout bound, Maurer 2004",
        statement="The kl-inverse bounds the randomised risk; a tuned width pays a union bound.",
        assumptions=("i.i.d. sample", "prior and widths fixed before the data", PUBLISHED),
        evidence=(sweep(coverage.pac_bayes_failures), sweep(kl_inverses), sweep(union_over_widths)),
        recorded=Verdict.HOLDS,
        formula="kl(Rhat || R) <= (KL + ln(2 sqrt(n)/delta)) / n",
        functions=(
            "bounds.pac_bayes.pac_bayes_kl_bound",
            "bounds.pac_bayes.kl_inverse",
            "bounds.pac_bayes.pac_bayes_dropout_bound",
            "bounds.pac_bayes.geometric_widths",
        ),
    ),
    Claim(
        id="Held-out, Hoeffding",
        paper_item="Hoeffding 1963 Theorem 1",
        statement="A held-out sample bounds the risk.",
        assumptions=("held-out examples played no part in training",),
        evidence=(sweep(coverage.hoeffding_failures),),
        recorded=Verdict.HOLDS,
        formula="R <= Rhat + C sqrt(ln(1/delta) / (2n))",
        functions=("bounds.held_out.hoeffding",),
    ),
    Claim(
        id="Held-out, Clopper-Pearson",
        paper_item="Clopper and Pearson 1934",
        statement="The exact binomial tail bounds a 0-1 risk.",
        assumptions=("held-out examples played no part in training",),
        evidence=(sweep(coverage.clopper_pearson_failures),),
        recorded=Verdict.HOLDS,
        formula="R <= max {r : P(Bin(n, r) <= errors) >= delta}",
        functions=("bounds.held_out.clopper_pearson",),
    ),
    Claim(
        id="Held-out yardstick",
        paper_item="Thm 4.4, compared",
        statement="At equal n no stability bound is below the held-out one.",
        assumptions=("rho = 1, C = 1, Lmin = 0, Rhat = 0.1",),
        evidence=(sweep(held_out_is_the_yardstick),),
        recorded=Verdict.HOLDS,
        formula="every stability bound >= Rhat + sqrt(ln(1/delta)/(2n))",
        functions=("bounds.compare.compare_bounds", "bounds.compare.first_nonvacuous"),
    ),
    Claim(
        id="Gap is replace-one stability",
        paper_item="Bousquet and Elisseeff 2002 Lemma 7",
        statement="The expected gap is the expected signed change when one example is replaced.",
        assumptions=("i.i.d. sample", "symmetric algorithm"),
        evidence=(proof("replace-one"), sweep(replace_one_identity)),
        recorded=Verdict.PROVED,
        formula="E[R - Rhat] = E[l(z_i; A(S^(i<-z'))) - l(z_i; A(S))]",
    ),
)
