"""eta is not a constant when the loss carries the quadratic: eta <= 2 rho at the optimum."""

from lora_bounds.trial.proof import Argument, Proof, require_z3

CLAIM = "Lemma A.1, the Lipschitz constant"


def prove() -> Proof:
    """Prove the self-consistent Lipschitz constant of L_lambda.

    Returns:
        The checked argument.
    """
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
