"""Claims on the linear layer, where everything is exact."""

from lora_bounds.ledger import layers
from lora_bounds.ledger.evidence import counterexample, proof, sweep
from lora_bounds.trial.claim import Claim, Verdict

_LAWS = (
    (
        "LoRA Dropout",
        layers.row_column_row,
        "k^2 Delta; p k^3 tr(D S D^T) + p k^2 tr(D diag(S) D^T)",
    ),
    ("activation dropout", layers.activation_row, "Delta; (p/k) tr(D diag(S) D^T)"),
    ("rank masks", layers.rank_row, "k Delta; p k sum_j norm(B_j)^2 (A_j S A_j^T)"),
    ("entrywise masks", layers.entrywise_row, "k Delta; p k tr(D diag(S) D^T)"),
)

CLAIMS = (
    *(
        Claim(
            id=f"Linear layer, {name}",
            paper_item="Linear layer, mask moments",
            statement=f"Mean update and mask variance of a linear layer under {name}.",
            assumptions=("masks are independent of the input",),
            evidence=(proof("variance-table"), sweep(row)),
            recorded=Verdict.PROVED,
            formula=f"mean; variance: {formula}   (D = Delta, S = Sigma, k = 1-p)",
            functions=("exact.linear.mask_variance", "exact.linear.mean_factor"),
        )
        for name, row, formula in _LAWS
    ),
    Claim(
        id="Linear layer, objective",
        paper_item="Eq. 7, linear layer",
        statement="The expected masked loss is the risk of the mean update plus half the variance.",
        assumptions=("squared loss (1/2) norm^2",),
        evidence=(proof("induced-regularizer"), sweep(layers.objectives)),
        recorded=Verdict.PROVED,
        formula="E loss = risk(E) + V/2",
        functions=("exact.linear.masked_objective",),
    ),
    Claim(
        id="Linear layer, induced regulariser",
        paper_item="Eq. 11, exact lambda",
        statement=(
            "With isotropic inputs LoRA Dropout is Eq. 11 exactly, at lambda = s^2/(2(1-q)): "
            "lambda is not free."
        ),
        assumptions=("squared loss", "Sigma = s^2 I for the identity with Eq. 11"),
        evidence=(proof("induced-regularizer"), sweep(layers.induced_regularizers)),
        recorded=Verdict.PROVED,
        formula="(1/2) [(p/k) tr(E S E^T) + (p/k^2) tr(E diag(S) E^T)]",
        functions=("bounds.sparsity.induced_regularizer", "bounds.sparsity.induced_regularization"),
    ),
    Claim(
        id="Linear layer, dropout at rate q",
        paper_item="Linear layer, equivalence with dropout",
        statement="LoRA Dropout at p has the expected loss of scaled dropout at q = 2p - p^2.",
        assumptions=("squared loss",),
        evidence=(
            counterexample("dropout-correlated-inputs"),
            proof("dropout-equivalence", assuming="diagonal Sigma, such as isotropic inputs"),
            sweep(layers.dropout_at_rate_q, assuming="diagonal Sigma, such as isotropic inputs"),
        ),
        recorded=Verdict.HOLDS_UNDER,
        formula="Sigma/k + (p/k^2) diag(Sigma) = Sigma + (q/(1-q)) diag(Sigma)",
        functions=("exact.linear.effective_moment",),
    ),
    Claim(
        id="Linear layer, minimiser",
        paper_item="Linear layer, closed-form minimiser",
        statement="The global minimum over updates of rank r, in closed form.",
        assumptions=("M positive definite",),
        evidence=(proof("minimizer"), sweep(layers.minimizers)),
        recorded=Verdict.PROVED,
        formula="E = [G M^(-1/2)]_r M^(-1/2), M = Sigma/k + (p/k^2) diag(Sigma)",
        functions=("exact.linear.minimizer", "exact.linear.effective_moment"),
    ),
    Claim(
        id="Linear layer, raw update",
        paper_item="Fig. 4, linear layer",
        statement=(
            "B A at the minimum runs from least squares to one-variable-at-a-time regression; for "
            "isotropic inputs it is the true solution, and the masks' k^2 is all the shrinkage."
        ),
        assumptions=("full rank",),
        evidence=(proof("regression-limits"), sweep(layers.raw_updates)),
        recorded=Verdict.PROVED,
        formula="B A = E/k^2 = G (k Sigma + p diag(Sigma))^-1",
        functions=("exact.linear.trained_update",),
    ),
    Claim(
        id="Linear layer, free ensemble",
        paper_item="Eq. 8, linear layer",
        statement="Scaling B A by k^2 at inference is the infinite ensemble, at no cost.",
        assumptions=("linear layer",),
        evidence=(proof("variance-table"), sweep(layers.scaled_update_is_the_ensemble)),
        recorded=Verdict.PROVED,
        formula="E over masks of Bhat Ahat x = k^2 B A x",
        functions=("exact.linear.mean_factor",),
    ),
    Claim(
        id="Fig. 4, order from scale alone",
        paper_item="Fig. 4, Drop against Drop_train",
        statement=(
            "A scale mismatch alone can produce the order of Fig. 4: the ensemble (k^2 B A) beats "
            "mask-free inference (B A) exactly if noise is large, and loses if it is small."
        ),
        assumptions=("linear layer with one output", "isotropic inputs, Sigma = I"),
        evidence=(sweep(layers.order_from_scale),),
        recorded=Verdict.HOLDS,
        formula="Drop < Drop_train  iff  (1 + k^2) sigma^2 d/n > (1 - k^2) norm(theta*)^2",
        functions=("exact.linear.trained_update", "exact.linear.mean_factor"),
    ),
)
