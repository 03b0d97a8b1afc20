"""The remark that p -> 1 amounts to no fine-tuning, which Eq. 11 contradicts."""

from fractions import Fraction

from lora_bounds.claims.one_parameter import exact_drop_probability
from lora_bounds.counterexamples import Data, Replay, replayed
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.evidence import counterexample, proof
from lora_bounds.trial.proof import Argument, Proof


def prove_full_dropout_limit() -> Proof:
    """Prove that Eq. 11 stays finite as p -> 1 while the exact regulariser diverges."""
    import sympy

    argument = Argument(
        "As p -> 1 the penalty of Eq. 11 tends to lambda norm(dtheta)^2, finite: for a quadratic "
        "loss with its minimum off theta0 the minimiser of L_lambda does not tend to theta0. The "
        "exact induced regulariser q/(1-q) diverges, and the mean update of its minimiser tends "
        "to 0."
    )
    p = sympy.Symbol("p", positive=True)
    lam, curvature, target, delta, s = sympy.symbols("lambda h c delta s", positive=True)
    q, k = 2 * p - p**2, 1 - p
    penalty = lam * q * delta**2
    argument.zero("limit of the penalty of Eq. 11", sympy.limit(penalty, p, 1) - lam * delta**2)
    objective = curvature * (delta - target) ** 2 / 2 + penalty
    minimiser = sympy.solve(objective.diff(delta), delta)[0]
    argument.zero(
        "minimiser of (h/2)(dtheta - c)^2 + lambda q dtheta^2 is h c/(h + 2 lambda q)",
        minimiser - curvature * target / (curvature + 2 * lam * q),
    )
    limit = sympy.limit(minimiser, p, 1)
    argument.zero(
        "its limit is h c/(h + 2 lambda)", limit - curvature * target / (curvature + 2 * lam)
    )
    argument.check("which is positive: fine-tuning goes on at p = 1", bool(limit.is_positive))
    argument.check(
        "q/(1-q) -> infinity as p -> 1", sympy.limit(q / (1 - q), p, 1, dir="-") == sympy.oo
    )
    cross = sympy.Symbol("g")
    one = cross / (s**2 / k + p / k**2 * s**2)  # E = G M^-1 for one input
    argument.zero(
        "mean update at the exact minimum, one input, is k^2 g/s^2", one - k**2 * cross / s**2
    )
    argument.check("it tends to 0 as p -> 1", sympy.limit(one, p, 1) == 0)
    return argument.done()


def replay_full_dropout_limit(data: Data) -> Replay:
    """Replay the minimiser of Eq. 11 at p = 1."""
    lam, target = data["regularization"], data["target"]
    minimiser = target / (1 + 2 * lam * exact_drop_probability(Fraction(1)))
    steps = [
        f"L(theta) = (1/2)(theta - {target})^2, theta0 = 0, lambda = {lam}, p = 1 so q = 1",
        f"Eq. 11: (1/2)(t - {target})^2 + {lam} t^2 is smallest at t = {minimiser}",
        "no fine-tuning would mean t = 0",
    ]
    return replayed(abs(minimiser), Fraction(0), steps)


CLAIMS = (
    Claim(
        id="Remark p -> 1",
        paper_item="Remark p -> 1",
        statement="Under Eq. 11 the rate p -> 1 amounts to no fine-tuning.",
        assumptions=("one finite lambda",),
        evidence=(
            counterexample(replay_full_dropout_limit),
            proof(prove_full_dropout_limit, of_the_contrary=True),
        ),
        recorded=Verdict.REFUTED,
        formula="argmin L_lambda -> theta0 as p -> 1",
        functions=("bounds.sparsity.sparsity_penalty",),
    ),
    Claim(
        id="Audit 12",
        paper_item="Remark p -> 1",
        statement=(
            "At p = 1 the penalty of Eq. 11 is the finite lambda norm^2; the exact induced "
            "regulariser of a linear layer diverges like q/(1-q)."
        ),
        assumptions=("linear layer and squared loss for the second half",),
        evidence=(proof(prove_full_dropout_limit),),
        recorded=Verdict.PROVED,
        formula="lambda q norm^2 -> lambda norm^2;  (s^2/2) (q/(1-q)) norm(E)^2 -> infinity",
        functions=("bounds.sparsity.sparsity_penalty", "bounds.sparsity.induced_regularization"),
    ),
)
