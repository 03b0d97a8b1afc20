"""The KL divergence of the PAC-Bayes dropout bound (McAllester 2013, arXiv 1307.2118)."""

from lora_bounds.proofs.masks import keep_vectors
from lora_bounds.trial.proof import Argument, Proof

CLAIM = "PAC-Bayes dropout, KL"


def prove() -> Proof:
    """Prove KL = (1-p)/2 * (norm(A-A0)^2 + norm(B-B0)^2)/s^2.

    Returns:
        The checked argument.
    """
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
