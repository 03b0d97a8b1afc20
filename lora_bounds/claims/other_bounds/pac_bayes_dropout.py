"""The PAC-Bayes bound of dropout: its divergence, its price ln(2 sqrt n), its failures."""

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import comb, log, sqrt
from typing import Any

import numpy as np
from scipy.stats import binom

from lora_bounds.bounds.pac_bayes import (
    dropout_kl,
    geometric_widths,
    kl_inverse,
    pac_bayes_dropout_bound,
    pac_bayes_kl_bound,
)
from lora_bounds.claims.failure_rates import (
    DELTAS,
    RISKS,
    SIZES,
    bernoulli_failure,
    bernoulli_ok,
    draw_bernoulli,
)
from lora_bounds.claims.linear_layer.layers_by_enumeration import draw_layer, layer_ok
from lora_bounds.claims.other_bounds.uniform_stability_bounds import PUBLISHED
from lora_bounds.claims.symbolic_masks import keep_vectors
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.control import Sides, equal, pair
from lora_bounds.trial.evidence import ALGEBRA, QUADRATURE, Sweep, agreement, proof, sweep
from lora_bounds.trial.proof import Argument, Proof
from lora_bounds.trial.search import Problem


def prove_dropout_kl() -> Proof:
    """Prove KL = (1-p)/2 * (norm(A-A0)^2 + norm(B-B0)^2)/s^2."""
    import sympy

    argument = Argument(
        "Posterior: masks of rate p on columns of A and rows of B, Gaussian noise of standard "
        "deviation s on kept entries around the trained values, dropped entries 0. Prior: the same "
        "around the initial values. KL = (1-p)/2 (norm(A-A0)^2 + norm(B-B0)^2)/s^2, in nats."
    )
    w, m, m0 = sympy.symbols("w m m0", real=True)
    s = sympy.Symbol("s", positive=True)
    density = sympy.exp(-((w - m) ** 2) / (2 * s**2)) / (s * sympy.sqrt(2 * sympy.pi))
    log_ratio = ((w - m0) ** 2 - (w - m) ** 2) / (2 * s**2)
    kl_one = sympy.integrate(sympy.expand(log_ratio) * density, (w, -sympy.oo, sympy.oo))
    argument.check(
        "KL(N(m, s^2) || N(m0, s^2)) = (m - m0)^2/(2 s^2), integrated",
        sympy.simplify(kl_one - (m - m0) ** 2 / (2 * s**2)) == 0,
    )
    p = sympy.Symbol("p")
    da = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"x{i}{j}"))
    db = sympy.Matrix(2, 2, lambda i, j: sympy.Symbol(f"y{i}{j}"))
    expected: sympy.Expr = sympy.Integer(0)
    for columns, column_p in keep_vectors(2, p):
        for rows, row_p in keep_vectors(2, p):
            kept = sum(columns[j] * da[i, j] ** 2 for i in range(2) for j in range(2))
            kept += sum(rows[i] * db[i, j] ** 2 for i in range(2) for j in range(2))
            expected += column_p * row_p * kept / (2 * s**2)
    formula = (1 - p) / (2 * s**2) * (sum(x**2 for x in da) + sum(y**2 for y in db))
    argument.zero("average over all 16 masks of a rank-2 layer 2 x 2", expected - formula)
    argument.argued(
        "chain rule: KL = KL(masks) + E_mask KL(weights | mask); the mask laws are equal, so the "
        "first term is 0; a dropped entry is 0 under both and adds nothing; any shape by linearity"
    )
    return argument.done()


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


def kl_sides(corrupt: Callable[[Any], Any] = lambda p: p) -> Sides:
    """Claim that the PAC-Bayes dropout KL equals its mean over all masks."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        shift, p = [float(u) for u in problem["update"]], float(problem["p"])
        truth = 0.0
        for keep in product((0, 1), repeat=len(shift)):
            probability = float(np.prod([1 - p if bit else p for bit in keep]))
            truth += probability * sum(u * u / 2 for u, bit in zip(shift, keep, strict=True) if bit)
        formula = dropout_kl(dropout=corrupt(p), squared_norm=sum(u * u for u in shift), width=1.0)
        return equal(truth, float(formula))

    return sides


_LARGEST = 120


def kl_moment(n: int) -> Fraction:
    """E exp(n kl(Rhat || R)) for n Bernoulli(R) losses; the same for every R in (0, 1)."""
    terms = (comb(n, k) * k**k * (n - k) ** (n - k) for k in range(n + 1))
    return Fraction(sum(terms), n**n)


def prove_kl_moment() -> Proof:
    """Prove E exp(n kl(Rhat || R)) <= 2 sqrt(n) where the literature's proof does not reach."""
    import sympy

    argument = Argument(
        "For n iid losses in {0, 1} with mean R in (0, 1): E exp(n kl(Rhat || R)) = "
        "sum_k C(n,k) (k/n)^k (1-k/n)^(n-k), and this is at most 2 sqrt(n): checked exactly for "
        f"n <= {_LARGEST}; for n >= 8 it is Maurer 2004 (arXiv cs/0411099), who does not treat "
        "n < 8. Without the logarithm the two-sided bound is false already at n = 1."
    )
    r = sympy.Symbol("R", positive=True)
    for n in (1, 2, 3):
        total = sum(
            sympy.binomial(n, k)
            * r**k
            * (1 - r) ** (n - k)
            * (sympy.Rational(k, n) / r) ** k
            * (sympy.Rational(n - k, n) / (1 - r)) ** (n - k)
            for k in range(n + 1)
        )
        exact = kl_moment(n)
        argument.zero(
            f"n = {n}: R cancels, the moment is {exact}",
            total - sympy.Rational(exact.numerator, exact.denominator),
        )
    argument.check(
        f"moment^2 <= 4 n for every n from 1 to {_LARGEST}",
        all(kl_moment(n) ** 2 <= 4 * n for n in range(1, _LARGEST + 1)),
        engine="fractions",
    )
    argument.check(
        "equality at n = 1: the constant 2 cannot be lowered", kl_moment(1) == 2, engine="fractions"
    )
    argument.argued(
        "losses in [0, 1]: convexity in each loss (Maurer 2004, Lemma 3); then Donsker-Varadhan, "
        "Jensen for the jointly convex kl, and Markov at level delta"
    )
    return argument.done()


def pac_bayes_failures() -> Sweep:
    """Returns delta minus how often the PAC-Bayes bound fails for the best of K predictors.

    K independent predictors of one risk, prior 1/K each, posterior all on the best: KL = ln K.
    """
    slacks = []
    for count in (1, 4, 64):
        for n in SIZES:
            errors = np.arange(n + 1)
            for delta in DELTAS:
                limits = pac_bayes_kl_bound(
                    n=n,
                    delta=delta,
                    kl=float(np.nextafter(np.log(count), np.inf)),
                    empirical_risk=errors / n,
                    loss_range=1.0,
                ).value
                for risk in RISKS:
                    failing = errors[risk > limits]  # 0 to some k: the bound grows with errors
                    some = binom.cdf(failing.max(), n, risk) if failing.size else 0.0
                    slacks.append(delta - float(-np.expm1(count * np.log1p(-some))))
    return Sweep("best of 1, 4 and 64 predictors, n 1 to 1000, 5 deltas, 25 risks", slacks)


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


def two_sided_sides(*, with_logarithm: bool) -> Sides:
    """Claim kl(Rhat || R) <= (KL + ln(2 sqrt(n)/delta))/n on both sides, with KL = 0."""

    def sides(problem: Problem) -> tuple[Any, Any]:
        n, delta, risk = problem["n"], float(problem["delta"]), float(problem["risk"])
        price = (log(2 * sqrt(n)) if with_logarithm else 0.0) - log(delta)

        def misses(empirical: Any) -> Any:
            above = kl_inverse(empirical_risk=empirical, bound=price / n)
            below = kl_inverse(empirical_risk=1 - empirical, bound=price / n)
            return (risk > np.asarray(above)) | (1 - risk > np.asarray(below))

        return bernoulli_failure(problem, misses), delta

    return sides


CLAIMS = (
    Claim(
        id="PAC-Bayes dropout, KL",
        paper_item="McAllester 2013 dropout bound, KL",
        statement="The divergence of noisy LoRA Dropout from its prior.",
        assumptions=("same masks and same noise under both",),
        evidence=(proof(prove_dropout_kl), sweep(kl_by_quadrature)),
        recorded=Verdict.PROVED,
        formula="KL = (1-p)/2 (norm(A-A0)^2 + norm(B-B0)^2) / s^2",
        functions=("bounds.pac_bayes.dropout_kl",),
        controls=(
            pair(
                "PAC-Bayes dropout KL, p for 1-p",
                "KL = (p/2) norm^2/s^2",
                draw_layer,
                layer_ok,
                false=kl_sides(lambda p: 1 - p),
                true=kl_sides(),
            ),
        ),
    ),
    Claim(
        id="PAC-Bayes kl, price of the logarithm",
        paper_item="Maurer 2004 Theorem 1, small n",
        statement="ln(2 sqrt n) is enough for n = 1 to 120, so also below its proof's n >= 8.",
        assumptions=("0-1 losses",),
        evidence=(proof(prove_kl_moment),),
        recorded=Verdict.PROVED,
        formula="E exp(n kl(Rhat || R)) <= 2 sqrt(n)",
        functions=("bounds.pac_bayes.pac_bayes_kl_bound",),
    ),
    Claim(
        id="PAC-Bayes dropout",
        paper_item="McAllester 2013 dropout bound, Maurer 2004",
        statement="The kl-inverse bounds the randomised risk; a tuned width pays a union bound.",
        assumptions=("i.i.d. sample", "prior and widths fixed before the data", PUBLISHED),
        evidence=(sweep(pac_bayes_failures), sweep(kl_inverses), sweep(union_over_widths)),
        recorded=Verdict.HOLDS,
        formula="kl(Rhat || R) <= (KL + ln(2 sqrt(n)/delta)) / n",
        functions=(
            "bounds.pac_bayes.pac_bayes_kl_bound",
            "bounds.pac_bayes.kl_inverse",
            "bounds.pac_bayes.pac_bayes_dropout_bound",
            "bounds.pac_bayes.geometric_widths",
        ),
        controls=(
            pair(
                "kl bound without ln(2 sqrt n)",
                "kl(Rhat || R) <= ln(1/delta)/n with probability 1 - delta",
                draw_bernoulli,
                bernoulli_ok,
                false=two_sided_sides(with_logarithm=False),
                true=two_sided_sides(with_logarithm=True),
            ),
        ),
    ),
)
