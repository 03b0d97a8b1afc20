"""Claims on sparsity: Eqs. 2 and 9 to 11, the remark on p -> 1, and trend T5."""

from lora_bounds.ledger import masks
from lora_bounds.ledger.evidence import counterexample, proof, sweep
from lora_bounds.trial.claim import Claim, Verdict

CLAIMS = (
    Claim(
        id="Eq. 2",
        paper_item="Eq. 2, q(p)",
        statement="An entry of the masked update is dropped with probability q(p) = 1-(1-p)^2.",
        assumptions=("masks of rows of B and columns of A are independent of each other",),
        evidence=(
            proof("sparsity-penalty"),
            sweep(masks.zeros_of_the_masked_update),
            sweep(masks.round_trips),
        ),
        recorded=Verdict.PROVED,
        formula="q = 1 - (1-p)^2 = 2p - p^2",
        functions=(
            "bounds.sparsity.drop_probability",
            "bounds.sparsity.keep_probability",
            "bounds.sparsity.dropout_rate",
        ),
    ),
    Claim(
        id="Eq. 9",
        paper_item="Eq. 9",
        statement="The constraint E norm(d*dtheta)^2 = 0 leaves room for fine-tuning at p > 0.",
        assumptions=(),
        evidence=(
            counterexample("eq-9-degenerate"),
            proof("degeneracy", of_the_contrary=True),
            sweep(masks.feasible_updates),
        ),
        recorded=Verdict.REFUTED,
        formula="min L(theta0 + dtheta)  subject to  E_d norm(d*dtheta)^2 = 0",
        functions=("bounds.sparsity.dropped_norm",),
    ),
    Claim(
        id="Audit 1",
        paper_item="Eq. 9, Eq. 10, Eq. 11",
        statement=(
            "Eq. 9 is degenerate: for p > 0 only dtheta = 0 is feasible and Eq. 10 equals "
            "L(theta0); Eq. 11 at one finite lambda is a surrogate, not a consequence."
        ),
        assumptions=(),
        evidence=(proof("degeneracy"), sweep(masks.inner_maxima)),
        recorded=Verdict.PROVED,
        formula="E_d norm(d*dtheta)^2 = q norm(dtheta)^2",
        functions=("bounds.sparsity.dropped_norm", "bounds.sparsity.inner_maximum"),
    ),
    Claim(
        id="Eq. 10",
        paper_item="Eq. 10",
        statement="The minimum over dtheta of the maximum over lambda is a fine-tuned model.",
        assumptions=("some dtheta improves on theta0",),
        evidence=(proof("degeneracy", of_the_contrary=True),),
        recorded=Verdict.REFUTED,
        formula="min_dtheta max_lambda L(theta0 + dtheta) + lambda E_d norm(d*dtheta)^2",
        functions=("bounds.sparsity.inner_maximum",),
    ),
    Claim(
        id="Eq. 11",
        paper_item="Eq. 11",
        statement="The sparsity penalty equals lambda q norm(theta-theta0)^2.",
        assumptions=("each entry is dropped with probability q; no independence is needed",),
        evidence=(proof("sparsity-penalty"), sweep(masks.dropped_norms)),
        recorded=Verdict.PROVED,
        formula="L_lambda = L + lambda E_d norm(d*(theta-theta0))^2 = L + lambda q norm(.)^2",
        functions=(
            "bounds.sparsity.sparsity_penalty",
            "bounds.sparsity.penalty_weight",
            "bounds.sparsity.root_penalty_weight",
            "bounds.sparsity.dropped_norm",
        ),
    ),
    Claim(
        id="Eq. 11, independent entries",
        paper_item="Eq. 11, d ~ Bern(q)",
        statement="The entries of the mask of the update are independent Bernoulli variables.",
        assumptions=("0 < p < 1",),
        evidence=(sweep(masks.independence_of_entries),),
        recorded=Verdict.REFUTED,
        formula="corr(d_ij, d_ij') = 0",
        functions=("bounds.sparsity.mask_moments",),
    ),
    Claim(
        id="Audit 2",
        paper_item="Eq. 2, Eq. 11",
        statement=(
            "Mask entries that share a row or a column have correlation k/(1+k), others none; the "
            "mean, hence Eq. 11, does not see it; the variance of the number of zeros does."
        ),
        assumptions=("0 < p < 1",),
        evidence=(proof("mask-covariance"), sweep(masks.mask_correlations)),
        recorded=Verdict.PROVED,
        formula="cov = p k^3, corr = k/(1+k), k = 1-p",
        functions=("bounds.sparsity.mask_moments",),
    ),
    Claim(
        id="Remark p -> 1",
        paper_item="Remark p -> 1",
        statement="Under Eq. 11 the rate p -> 1 amounts to no fine-tuning.",
        assumptions=("one finite lambda",),
        evidence=(
            counterexample("full-dropout-limit"),
            proof("full-dropout-limit", of_the_contrary=True),
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
        evidence=(proof("full-dropout-limit"),),
        recorded=Verdict.PROVED,
        formula="lambda q norm^2 -> lambda norm^2;  (s^2/2) (q/(1-q)) norm(E)^2 -> infinity",
        functions=("bounds.sparsity.sparsity_penalty", "bounds.sparsity.induced_regularization"),
    ),
    Claim(
        id="T5",
        paper_item="T5, sparsity is q(p)",
        statement="The expected sparsity of the masked update is q(p).",
        assumptions=("the unmasked update has no zero entry",),
        evidence=(proof("mask-covariance"), sweep(masks.zeros_of_the_masked_update)),
        recorded=Verdict.PROVED,
        formula="E[share of zeros] = q(p)",
        functions=("bounds.sparsity.drop_probability",),
    ),
    Claim(
        id="T5, rank masks",
        paper_item="T5, Eq. 2, rank masks",
        statement="Masking the rank dimension as well adds no sparsity.",
        assumptions=("no accidental cancellation between components",),
        evidence=(
            counterexample("rank-masks-add-sparsity"),
            proof("rank-masks", of_the_contrary=True),
            sweep(masks.rank_mask_sparsity),
        ),
        recorded=Verdict.REFUTED,
        formula="P(zero) = q + (1-q) p^r, not q",
        functions=("bounds.sparsity.keep_probability",),
    ),
)
