"""Claims on stability: Def. 4.1, Lemma A.1, Prop. 4.2, and the repair."""

import numpy as np

from lora_bounds.bounds.stability import paper_stability
from lora_bounds.ledger import refits
from lora_bounds.ledger.evidence import Sweep, counterexample, proof, sweep
from lora_bounds.trial.claim import Claim, Verdict

QUADRATIC = "quadratic loss, so that the second-order expansion is exact"


def paper_bound_over_p() -> Sweep:
    """Returns by how much Prop. 4.2 falls from one p to the next, all constants fixed."""
    p = np.linspace(0.0, 1.0, 201)
    lam, least = np.meshgrid(np.logspace(-4, 4, 17), [1e-6, 1e-2, 1.0, 100.0])
    values = paper_stability(
        n=100,
        lipschitz=1.0,
        curvature=least[..., None],
        regularization=lam[..., None],
        dropout=p,
    ).value
    return Sweep("201 rates, lambda 1e-4 to 1e4, Lmin 1e-6 to 100", -np.diff(values, axis=-1))


CLAIMS = (
    Claim(
        id="Def 4.1",
        paper_item="Def. 4.1",
        statement="For ridge regression both conventions of S^i have exact closed-form stability.",
        assumptions=("unique minimisers",),
        evidence=(sweep(refits.leave_one_out_against_refits),),
        recorded=Verdict.HOLDS,
        formula="beta = E_{S,i} abs(l(x_i; theta(S^i)) - l(x_i; theta(S)))",
        functions=("exact.ridge.leave_one_out", "exact.ridge.ridge_fit"),
    ),
    Claim(
        id="Lemma A.1",
        paper_item="Lemma A.1",
        statement="l2-regularised minimisers have pointwise hypothesis stability as printed.",
        assumptions=(
            "eta bounds the slope of the regularised loss of each example between the solutions",
            "Lmin is the least eigenvalue of the Hessian of L at theta(S)",
            "'close' solutions: the paper names no distance, so every distance is admitted",
        ),
        evidence=(
            counterexample("prop-4-2-logistic"),
            proof("lemma-a1", assuming=QUADRATIC),
            sweep(refits.quadratic_stability, assuming=QUADRATIC),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="beta = 2 eta^2 / ((Lmin + 2 lambda) n)",
        functions=("bounds.stability.lemma_a1",),
    ),
    Claim(
        id="Prop 4.2",
        paper_item="Prop. 4.2, Prop. A.2",
        statement="LoRA Dropout has pointwise hypothesis stability as printed.",
        assumptions=(
            "eta bounds the slope of the regularised loss of each example between the solutions",
            "Lmin is the least eigenvalue of the Hessian of L at theta(S)",
            "'close' solutions: the paper names no distance, so every distance is admitted",
        ),
        evidence=(
            counterexample("prop-4-2-logistic"),
            proof("lemma-a1", assuming=QUADRATIC),
            sweep(refits.quadratic_stability, assuming=QUADRATIC),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="beta = 2 eta^2 / ((Lmin + 2 lambda q) n)",
        functions=("bounds.stability.paper_stability",),
    ),
    Claim(
        id="Audit 4",
        paper_item="Prop. 4.2, curvature at the optimum",
        statement=(
            "For a convex loss the curvature at the optimum is enough, up to a factor of 10: "
            "solutions need not be close."
        ),
        assumptions=("one-parameter logistic regression, n <= 8",),
        evidence=(counterexample("prop-4-2-logistic"),),
        recorded=Verdict.REFUTED,
        formula="measured beta <= 10 * 2 eta^2 / ((Lmin(theta(S)) + 2 lambda q) n)",
        functions=("bounds.stability.paper_stability", "exact.logistic.logistic_fit"),
    ),
    Claim(
        id="Lemma A.1, eta of the plain loss",
        paper_item="Lemma A.1, Lipschitz assumption",
        statement="Lemma A.1 holds for L_lambda with eta the Lipschitz constant of L, as stated.",
        assumptions=("linear losses, so nothing else is at stake",),
        evidence=(sweep(refits.plain_slope_in_lemma_a1),),
        recorded=Verdict.REFUTED,
        formula="abs change of L_lambda(x_i; .) <= 2 rho^2 / ((Lmin + 2 lambda) n)",
        functions=("bounds.stability.lemma_a1",),
    ),
    Claim(
        id="Lemma A.1, half the constant",
        paper_item="Lemma A.1, constant",
        statement="For quadratic losses half of the printed constant is enough.",
        assumptions=("quadratic loss", "eta is the slope of the regularised loss"),
        evidence=(proof("lemma-a1"), sweep(refits.half_of_lemma_a1)),
        recorded=Verdict.PROVED,
        formula="beta = eta^2 / ((Lmin + 2 lambda) n)",
        functions=("bounds.stability.lemma_a1",),
    ),
    Claim(
        id="Audit 3",
        paper_item="Lemma A.1, Prop. 4.2, Lipschitz assumption",
        statement=(
            "L_lambda is (rho + 2 lambda q D)-Lipschitz within D of theta0, and minimisers "
            "lie within rho/(2 lambda q), so eta <= 2 rho there."
        ),
        assumptions=("the loss is rho-Lipschitz, and convex or differentiable",),
        evidence=(proof("lipschitz"), sweep(refits.lipschitz_constants)),
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
            proof("lipschitz", assuming=QUADRATIC),
            proof("lemma-a1", assuming=QUADRATIC),
            sweep(refits.quadratic_stability, assuming=QUADRATIC),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="beta = 8 rho^2 / ((Lmin + 2 lambda q) n)",
        functions=("bounds.stability.self_consistent_stability",),
    ),
    Claim(
        id="Audit 5",
        paper_item="Prop. 4.2, repaired",
        statement=(
            "For a convex rho-Lipschitz loss the minimiser of Eq. 11 is uniformly stable, with a "
            "smaller constant and no Hessian at a point."
        ),
        assumptions=("S^i keeps the factor 1/n (with 1/(n-1) the constant doubles)",),
        evidence=(
            proof("uniform-stability"),
            sweep(refits.repaired_uniform_stability),
            sweep(refits.uniform_stability_attained),
        ),
        recorded=Verdict.PROVED,
        formula="for every z: abs(l(z; theta(S)) - l(z; theta(S^i))) <= rho^2 / (2 lambda q n)",
        functions=(
            "bounds.stability.uniform_stability",
            "exact.logistic.leave_one_out_fits",
            "exact.logistic.logistic_fit",
            "exact.logistic.logistic_loss",
        ),
    ),
    Claim(
        id="Audit 6",
        paper_item="Prop. 4.2, Lmin in (A, B)",
        statement=(
            "At a stationary point of the unregularised loss in (A, B) the Hessian has flat "
            "directions (BX, -XA), so Lmin <= 0 there: only lambda q keeps the bound finite."
        ),
        assumptions=("A or B is not zero",),
        evidence=(proof("gauge"),),
        recorded=Verdict.PROVED,
        formula="B -> B G, A -> G^-1 A leaves B A alone",
        functions=("bounds.stability.paper_stability",),
    ),
    Claim(
        id="Prop 4.2, monotone",
        paper_item="Prop. 4.2, Thm 4.4, trend in p",
        statement="At fixed eta, Lmin, lambda, C and n both bounds fall as p grows.",
        assumptions=("the constants do not change with p; measured ones do",),
        evidence=(proof("monotonicity"), sweep(paper_bound_over_p)),
        recorded=Verdict.PROVED,
        formula="d beta / d p <= 0",
        functions=("bounds.stability.paper_stability",),
    ),
    Claim(
        id="Audit 8",
        paper_item="Prop. 4.2, measured trend in p",
        statement="The measured pointwise hypothesis stability falls as p grows.",
        assumptions=("ridge regression with one lambda",),
        evidence=(counterexample("stability-rises"),),
        recorded=Verdict.REFUTED,
        formula="beta(p) non-increasing",
        functions=("exact.ridge.leave_one_out",),
    ),
)
