"""The Lipschitz constant that Lemma A.1 and Prop. 4.2 take: at most 2 rho at the solutions."""

import numpy as np

from lora_bounds.bounds.sparsity import penalty_weight
from lora_bounds.bounds.stability import self_consistent_lipschitz
from lora_bounds.claims.stability.lemma_a1 import QUADRATIC, prove_lemma_a1, quadratic_stability
from lora_bounds.claims.stability.ridge_problems import ridge_problem, ridge_slopes
from lora_bounds.exact.ridge import ridge_fit
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import ALGEBRA, Sweep, proof, sweep, unseen
from lora_bounds.trial.proof import Argument, Proof, require_z3


def prove_lipschitz() -> Proof:
    """Prove the self-consistent Lipschitz constant of L_lambda."""
    z3 = require_z3()
    argument = Argument(
        "l rho-Lipschitz, c = lambda q > 0, L_lambda = l + c norm(. - theta0)^2. On the ball of "
        "radius D around theta0, L_lambda is (rho + 2cD)-Lipschitz. A minimiser of the mean loss "
        "+ c norm^2 has norm(theta - theta0) <= rho/(2c) if l is convex or differentiable. On "
        "that ball eta <= 2 rho, so Prop. 4.2 reads 8 rho^2/((Lmin + 2 lambda q) n) with no free "
        "eta."
    )
    g1, g2, h1, h2, ng, nh, ns = z3.Reals("g1 g2 h1 h2 ng nh ns")
    dot = z3.Real("dot")
    argument.implies(
        "Cauchy-Schwarz in the plane of two vectors: (g.h)^2 <= norm(g)^2 norm(h)^2",
        [g1 == g1],
        (g1 * h1 + g2 * h2) * (g1 * h1 + g2 * h2) <= (g1 * g1 + g2 * g2) * (h1 * h1 + h2 * h2),
    )
    argument.implies(
        "hence g.h <= norm(g) norm(h)",
        [ng >= 0, nh >= 0, dot * dot <= (ng * nh) * (ng * nh)],
        dot <= ng * nh,
    )
    argument.implies(
        "hence norm(g + h) <= norm(g) + norm(h)",
        [ng >= 0, nh >= 0, ns >= 0, dot <= ng * nh, ns * ns == ng * ng + 2 * dot + nh * nh],
        ns <= ng + nh,
    )
    rho, c, radius, distance, slope, total = z3.Reals("rho c radius distance slope total")
    argument.implies(
        "norm(grad l + 2c(theta - theta0)) <= rho + 2 c D on the ball",
        [slope >= 0, slope <= rho, c > 0, distance >= 0, distance <= radius,
         total <= slope + 2 * c * distance],
        total <= rho + 2 * c * radius,
    )  # fmt: skip
    argument.implies(
        "differentiable l: stationarity 2c norm(theta - theta0) = norm(grad) <= rho",
        [c > 0, slope <= rho, 2 * c * distance == slope, distance >= 0],
        2 * c * distance <= rho,
    )
    gain, drop = z3.Reals("gain drop")
    argument.implies(
        "convex l, no gradient needed: growth c d^2 <= F(theta0) - F(theta) and "
        "l(theta0) - l(theta) <= rho d give 2 c d <= rho",
        [c > 0, distance >= 0, rho >= 0, gain >= c * distance * distance,
         gain == drop - c * distance * distance, drop <= rho * distance],
        2 * c * distance <= rho,
    )  # fmt: skip
    argument.implies(
        "at D = rho/(2c): rho + 2cD = 2 rho",
        [c > 0, rho >= 0, 2 * c * radius == rho],
        rho + 2 * c * radius == 2 * rho,
    )
    scaled, eta, beta = z3.Reals("scaled eta beta")
    argument.implies(
        "Prop. 4.2 with eta <= 2 rho: beta <= 8 rho^2/((Lmin + 2 lambda q) n)",
        [scaled > 0, eta >= 0, eta <= 2 * rho, scaled * beta == 2 * eta * eta],
        scaled * beta <= 8 * rho * rho,
    )
    return argument.done()


def lipschitz_constants() -> Sweep:
    """Returns rho + min(2 lambda q D, rho) minus the measured slope of the penalised loss."""
    rng, slacks = np.random.default_rng(3), []
    for _ in range(1000):
        x, y, lam, p = ridge_problem(rng)
        weight = float(penalty_weight(dropout=p, regularization=lam))
        theta = ridge_fit(inputs=x, targets=y, regularization=lam, dropout=p).solution
        rho, eta = ridge_slopes(x, y, theta[None], weight)
        radius = float(np.linalg.norm(theta))
        for reach in (radius, np.inf):
            limit = self_consistent_lipschitz(
                lipschitz=rho, regularization=lam, dropout=p, radius=reach
            )
            slacks.append(float(limit) * (1 + ALGEBRA) - eta)
    return Sweep("1000 random ridge problems, at the optimum", slacks, unseen(1000))


CLAIMS = (
    Claim(
        id="Audit 3",
        paper_item="Lemma A.1, Prop. 4.2, Lipschitz assumption",
        statement=(
            "L_lambda is (rho + 2 lambda q D)-Lipschitz within D of theta0, and minimisers "
            "lie within rho/(2 lambda q), so eta <= 2 rho there."
        ),
        assumptions=("the loss is rho-Lipschitz, and convex or differentiable",),
        evidence=(proof(prove_lipschitz), sweep(lipschitz_constants)),
        recorded=Verdict.PROVED,
        formula="eta <= rho + min(2 lambda q D, rho)",
        functions=("bounds.stability.self_consistent_lipschitz",),
    ),
    Claim(
        id="Prop 4.2, self-consistent",
        paper_item="Prop. 4.2, with eta = 2 rho",
        statement="Prop. 4.2 with a Lipschitz constant that its own premises imply.",
        assumptions=("the loss of each example has slope at most rho at the solutions",),
        evidence=(
            proof(prove_lipschitz, assuming=QUADRATIC),
            proof(prove_lemma_a1, assuming=QUADRATIC),
            sweep(quadratic_stability, assuming=QUADRATIC),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="beta = 8 rho^2 / ((Lmin + 2 lambda q) n)",
        functions=("bounds.stability.self_consistent_stability",),
    ),
)
