"""T3: the training risk rises with p; the test risk is U-shaped where there is noise."""

from itertools import pairwise

import numpy as np

from lora_bounds.claims.one_parameter import exact_drop_probability, ridge_risk
from lora_bounds.claims.regimes.atoms import Curves, curves
from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.exact.ridge import ridge_fit
from lora_bounds.problems import make_regression
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, counterexample, proof, sweep, unseen
from lora_bounds.trial.proof import Argument, Proof, require_z3

BOTH = "noise variance 0.1 to 10 times the signal's, and lambda q reaches past the optimum"


def prove_training_risk() -> Proof:
    """Prove that the training risk at the minimum of Eq. 11 does not fall with p."""
    z3 = require_z3()
    argument = Argument(
        "At a fixed lambda >= 0, whatever the loss: if theta_1, theta_2 are global minimisers of "
        "Eq. 11 at p_1 < p_2, lambda > 0, then L(theta_1) <= L(theta_2) and norm(theta_1 - "
        "theta0) >= norm(theta_2 - theta0). This is the first half of T3. A U-shaped test risk "
        "does not follow."
    )
    p1, p2, c1, c2, lam = z3.Reals("p1 p2 c1 c2 lam")
    argument.implies(
        "p_1 < p_2 in [0, 1] and lambda > 0 give c_1 < c_2 for c = lambda (2p - p^2)",
        [
            p1 >= 0,
            p1 < p2,
            p2 <= 1,
            lam > 0,
            c1 == lam * (2 * p1 - p1 * p1),
            c2 == lam * (2 * p2 - p2 * p2),
        ],
        c1 < c2,
    )
    l1, l2, r1, r2 = z3.Reals("l1 l2 r1 r2")
    optimal = [c1 >= 0, c1 < c2, l1 + c1 * r1 <= l2 + c1 * r2, l2 + c2 * r2 <= l1 + c2 * r1]
    argument.implies("both minimal: the squared norm does not grow", optimal, r2 <= r1)
    argument.implies(
        "both minimal, and the norms so ordered: the training risk does not fall",
        [*optimal, r2 <= r1],
        l1 <= l2,
    )
    return argument.done()


def training_risk_over_p() -> Sweep:
    """Returns how much the training risk of ridge rises from one p to the next."""
    rng, slacks = np.random.default_rng(18), []
    for _ in range(500):
        data = make_regression(
            n=12,
            d=3,
            condition_number=float(10 ** rng.uniform(0, 3)),
            noise=float(10 ** rng.uniform(-2, 1)),
            seed=int(rng.integers(2**32)),
        )
        lam = float(10 ** rng.uniform(-2, 2))
        risks = [
            ridge_fit(
                inputs=data.inputs, targets=data.targets, regularization=lam, dropout=float(p)
            ).train_risk
            for p in np.linspace(0, 1, 11)
        ]
        slacks += list(np.diff(risks) / risks[-1] + ALGEBRA)
    return Sweep("500 random ridge problems, 11 rates p in [0, 1]", slacks, unseen(500))


_SCOPE = "random laws on 5 atoms, d <= 3, n 3 to 6, w = 2 lambda q from 1e-3 to 1e3"


def _random_laws(seed: int, count: int) -> list[Curves]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        d = int(rng.integers(1, 4))
        atoms, truth = rng.standard_normal((5, d)), rng.standard_normal(d)
        found.append(curves(atoms, truth, n=int(rng.integers(3, 7))))
    return found


def _turns(law: Curves, noise: float) -> list[float]:
    """Returns the fall of the test risk at the first step of w and its rise at the last."""
    steps = np.diff(law.signal_test + noise * law.noise_test) / law.power
    return [-float(steps[0]), float(steps[-1])]


def u_shape_without_noise() -> Sweep:
    """Returns the fall at the first step and the rise at the last, with noiseless targets."""
    return Sweep(
        f"100 {_SCOPE}", [s for law in _random_laws(19, 100) for s in _turns(law, 0.0)], unseen(100)
    )


def u_shape_with_noise() -> Sweep:
    """Returns the same with noise variance 0.1 to 10 times the signal power."""
    rng = np.random.default_rng(20)
    laws = _random_laws(20, 500)
    slacks = [s for law in laws for s in _turns(law, law.power * 10 ** rng.uniform(-1, 1))]
    return Sweep(f"500 {_SCOPE}", slacks, unseen(500))


def replay_test_risk_not_u_shaped(data: Data) -> Replay:
    """Replay the test risk over p, every sample enumerated."""
    risks = [
        ridge_risk(data["atoms"], data["n"], data["regularization"] * exact_drop_probability(p))
        for p in data["p"]
    ]
    atoms = ", ".join(f"({x}, {y})" for x, y in data["atoms"])
    steps = [
        f"n = {data['n']} draws from the equally likely points {atoms} (no noise: y = x), lambda = "
        f"{data['regularization']}; every sample enumerated",
        *(f"p = {p}: E[R] = {risk}" for p, risk in zip(data["p"], risks, strict=True)),
        "training without dropout already has the least test risk",
    ]
    rises = all(before < after for before, after in pairwise(risks))
    return replayed(risks[1], risks[0], steps, data["p"][0] == 0 and rises)


CLAIMS = (
    Claim(
        id="T3, training risk",
        paper_item="T3, training risk",
        statement="The training risk rises with p.",
        assumptions=("global minimisers of Eq. 11 at one lambda, any loss",),
        evidence=(proof(prove_training_risk), sweep(training_risk_over_p)),
        recorded=Verdict.PROVED,
        formula="Rhat(theta(S)) non-decreasing in p",
        functions=("exact.ridge.ridge_fit",),
    ),
    Claim(
        id="T3, test risk",
        paper_item="T3, test risk",
        statement="The test risk is U-shaped in p: it falls at first and rises at last.",
        assumptions=("ridge regression, targets linear in the inputs plus noise",),
        evidence=(
            counterexample(replay_test_risk_not_u_shaped),
            sweep(u_shape_without_noise),
            sweep(u_shape_with_noise, assuming=BOTH),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="R(p) falls near p = 0, rises for large lambda q",
        functions=("exact.ridge.expected_risks",),
    ),
)
