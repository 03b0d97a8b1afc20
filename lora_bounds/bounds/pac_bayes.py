"""A PAC-Bayes bound for dropout: no convexity, no Hessian, and it pays log(1/delta).

McAllester 2013 (arXiv 1307.2118): the posterior draws masks at rate p and adds Gaussian noise of
width s around the trained values to every entry that the mask leaves in use; the prior draws the
same masks and adds the same noise around the initial values. Which entries a mask puts out of use
is a matter of its law (`lora_bounds.bounds.laws.MaskLaw.kl_factor`). Both bounds here speak of the
*randomised* predictor that draws masks and noise afresh; divergences are in nats.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds import rounding
from lora_bounds.bounds.laws import TENSOR_KINDS, LawName, MaskLaw, Rows, TensorKind, mask_law
from lora_bounds.bounds.risk import BOUNDED, IID
from lora_bounds.domains import (
    AtMost,
    Call,
    Extended,
    Number,
    OnePositive,
    Positive,
    Probability,
    Rate,
    Real,
    Reals,
    Risk,
    Size,
    Stacked,
    Vector,
    Whole,
    Wholes,
    Words,
    formula,
    kernel_of,
    short,
    together,
    unchecked,
)
from lora_bounds.results import Assumption, bound
from lora_bounds.rounding import Array, Numbers

PRIOR = Assumption("prior before data", "the prior (p, s, initial values) is fixed before the data")
GIBBS = Assumption(
    "randomised risk",
    "the empirical risk is the mean over masks and noise, not that of one draw or of mean weights",
)
GRID = Assumption("grid before data", "the widths were fixed before the data")

_TENSOR, _NORM = Words(*TENSOR_KINDS), Reals("[0, inf)")
_KL_SOURCE = "Seeger 2002; Maurer 2004, arXiv cs/0411099, Theorem 5"


def _moves_in_use(
    law: LawName,
    dropout: Array,
    squared_norm: ArrayLike | Mapping[TensorKind, ArrayLike],
    rows: Array,
    width: Array,
) -> Array:
    # The mean over masks of half the squared norm over s², of the moves of entries in use.
    found = mask_law(law)
    if isinstance(squared_norm, Mapping):
        parts: dict[TensorKind, ArrayLike] = dict(squared_norm)
        shown = {f"squared_norm[{kind!r}]": norm for kind, norm in parts.items()}
        together(dropout=dropout, rows=rows, **shown)
    elif ("A" in found.masked) == ("B" in found.masked):
        parts = {"A": squared_norm}  # of A and B together, whose factors are one
    else:
        raise ValueError(
            f"squared_norm must be given by tensor under law={law!r}, which masks A alone, such as "
            f"{{'A': 1.0, 'B': 1.0}}, got squared_norm={short(squared_norm)}"
        )
    kl_factor, total = kernel_of(MaskLaw.kl_factor), np.zeros(())
    for kind, given in parts.items():
        _TENSOR("tensor", kind)
        factor = np.asarray(kl_factor(found, kind, dropout=dropout, rows=rows))
        norm = _NORM("squared_norm", given)
        part = rounding.quotient((0.5, factor, norm), (width, width))
        # What moves at all does not vanish below the least of the floats.
        total = total + np.where((factor > 0.0) & (norm > 0.0), np.maximum(part, 5e-324), 0.0)
    return total


@formula
def dropout_kl(
    *,
    dropout: Rate,
    squared_norm: ArrayLike | Mapping[TensorKind, ArrayLike],
    width: Positive,
    law: LawName = "row_column",
    rows: Rows = 1,
) -> Numbers:
    """Compute the divergence of posterior and prior, Σ f ‖W-W0‖² / (2 s²) over trained tensors W.

    The masks have one law under both, and an entry is noisy while it is in use, with probability
    f, so the divergence is the mean over masks of that between the Gaussians of the entries in use.
    Under LoRA Dropout it is (1-p)/2 (‖A-A0‖² + ‖B-B0‖²) / s². Divergences of layers add up.

    Args:
        dropout: the rate p of the law's own bits, in [0, 1].
        squared_norm: ‖A-A0‖² + ‖B-B0‖², at least 0; or ‖W-W0‖² by tensor: ``"A"``, ``"B"``, ``"E"``
            (AdaLoRA's Λ) and ``"other"`` (all that has no masks: a head, biases). By tensor alone
            under ``law="activation"``, which has no masks on B.
        width: s, positive.
        law: one of `lora_bounds.MASK_LAWS`; ``"row_column"`` is LoRA Dropout.
        rows: the most rows of the layer's input (tokens) that one example takes part in, at least
            1 and maybe infinite; for ``law="activation"`` alone.

    Returns:
        KL in nats; 0 at p = 1 under LoRA Dropout.

    >>> dropout_kl(dropout=0.5, squared_norm=2.0, width=0.5)
    2.0
    >>> dropout_kl(dropout=0.5, squared_norm={"A": 1.0, "B": 1.0}, width=0.5, law="activation")
    3.0
    """
    return _moves_in_use(law, dropout, squared_norm, rows, width)


def _excess_log(x: Array) -> Array:
    # x - log(1+x) for x > -1, without cancellation.
    z = x / (2.0 + x)
    small = np.abs(z) < 0.1
    square = np.where(small, z, 0.0) ** 2
    series = np.zeros_like(x)
    for odd in range(19, 1, -2):  # log(1+x) = 2 (z + z³/3 + z⁵/5 + ...)
        series = series * square + 1.0 / odd
    return np.where(small, z * (x - 2.0 * square * series), x - np.log1p(x))


def _divergence(q: Array, w: Array) -> tuple[Array, Array]:
    # kl(q‖r) where 1-r = (1-q) exp(-w), and its derivative in w.
    up = -np.expm1(-w)
    rise = (1.0 - q) * up  # r - q
    kl = q * _excess_log(rise / q) + (1.0 - q) * (np.where(w > 0.5, w - up, _excess_log(-up)))
    return kl, rise / (q + rise)


@formula
def kl_inverse(*, empirical_risk: Probability, bound: Extended) -> Numbers:
    """Compute the largest r with kl(q‖r) <= c, for Bernoulli means q and r.

    Newton's method in w = ln((1-q)/(1-r)), in which the divergence is convex and has no pole.

    Args:
        empirical_risk: q in [0, 1].
        bound: c in [0, inf], nats.

    Returns:
        r in [q, 1], rounded up (a positive q below 1e-290 counts as 1e-290).

    >>> round(kl_inverse(empirical_risk=0.0, bound=0.6931471805599453), 12)
    0.5
    """
    q, c = (np.array(item) for item in np.broadcast_arrays(empirical_risk, bound))
    # r grows with q, so a floor under q is safe; it keeps r/q finite.
    floor = np.where(q == 1.0, 0.5, np.maximum(q, 1e-290))
    # Two bounds on the solution give a start on its right; on that side Newton stays there.
    near = np.minimum(np.sqrt(c / 2.0), np.sqrt(2.0 * floor * c) + 2.0 * c)
    inside = near < 1.0 - floor
    close = -np.log1p(-np.where(inside, near, 0.0) / (1.0 - floor))
    # kl >= (1-q) w - q ln(1/q): drop the part -q ln r.
    far = (c - floor * np.log(floor)) / (1.0 - floor)
    w = np.where(inside, np.minimum(close, far), far)
    active = (c > 0.0) & np.isfinite(w) & (w > 0.0)
    w = np.where(active, w, 1.0)
    for _ in range(100):
        kl, slope = _divergence(floor, w)
        step = np.where(active, (kl - c) / slope, 0.0)
        lower = np.maximum(w - step, 0.5 * w)
        moved = np.abs(lower - w) > 1e-15 * w
        w = lower
        if not np.any(moved):
            break
    w = np.where(q == 0.0, c, w)  # there kl(0‖r) = -ln(1-r)
    w = w * (1.0 + 4.0 * rounding.RELATIVE_SLACK)
    r = np.minimum(rounding.up(floor - (1.0 - floor) * np.expm1(-w)), 1.0)
    r = np.where(q == 0.0, np.minimum(rounding.up(-np.expm1(-w)), 1.0), r)
    r = np.where((q == 1.0) | np.isinf(c), 1.0, r)
    return np.where(c == 0.0, q, r)


@bound("PAC-Bayes kl", _KL_SOURCE, IID, BOUNDED, PRIOR, GIBBS)
def pac_bayes_kl_bound(
    *,
    n: Size,
    delta: Probability,
    kl: Extended,
    empirical_risk: Risk,
    loss_range: Positive,
) -> Array:
    """Bound the risk of a randomised predictor by the kl-inverse.

    With probability at least 1-δ over the sample, for all posteriors at once,
    kl(Rhat/C ‖ R/C) <= (KL + ln(2 sqrt(n) / δ)) / n.

    Args:
        n: sample size, at least 1.
        delta: failure probability δ in [0, 1]; at 0 the bound is C.
        kl: divergence of posterior and prior in nats, in [0, inf].
        empirical_risk: Rhat of the randomised predictor, in [0, C].
        loss_range: C, positive.

    Returns:
        The bound on its risk R; at most C up to rounding, and vacuous there.

    >>> pac_bayes_kl_bound(n=1000, delta=0.05, kl=5.0, empirical_risk=0.1, loss_range=1.0).vacuous
    False
    """
    cost = np.log(2.0) + 0.5 * np.log(n) - np.log(delta)
    limit = rounding.up(np.asarray((kl + cost) / n))
    share = np.minimum(empirical_risk / loss_range * (1.0 + rounding.RELATIVE_SLACK), 1.0)
    return loss_range * np.asarray(kernel_of(kl_inverse)(empirical_risk=share, bound=limit))


@formula
def geometric_widths(
    *,
    largest: OnePositive,
    ratio: Annotated[float, Real("(0, 1)")],
    count: Annotated[int, Whole(1, 10**6)],
) -> Array:
    """Make a grid of noise widths to be fixed before the data are seen.

    Args:
        largest: the first width, positive.
        ratio: each width over the one before, in (0, 1).
        count: how many, at least 1.

    Returns:
        The widths, of shape (count,).

    >>> geometric_widths(largest=1.0, ratio=0.5, count=3)
    array([1.  , 0.5 , 0.25])
    """
    return np.asarray(largest * ratio ** np.arange(count))


@bound(
    "PAC-Bayes dropout",
    "McAllester 2013, arXiv 1307.2118, dropout bound, with the kl-inverse and a union bound",
    *(IID, BOUNDED, PRIOR, GIBBS, GRID),
)
def pac_bayes_dropout_bound(
    *,
    n: Annotated[Number, Wholes(1)],
    delta: Probability,
    dropout: Rate,
    squared_norm: ArrayLike | Mapping[TensorKind, ArrayLike],
    widths: Annotated[Any, Vector("widths", "(0, inf)")],
    empirical_risk: Annotated[Any, Stacked(), Stacked("[0, inf)")],
    loss_range: Positive,
    law: LawName = "row_column",
    rows: Rows = 1,
) -> Array:
    """Bound the risk of noisy LoRA Dropout, at the best of several noise widths.

    The best width depends on the data, so each of the K bounds is taken at δ/K: the union bound
    costs ln(K)/n in the divergence. With probability at least 1-δ over the sample all K hold.

    Args:
        n: sample size, at least 1.
        delta: failure probability δ in [0, 1].
        dropout: the rate p of the law's own bits, in [0, 1].
        squared_norm: ‖A-A0‖² + ‖B-B0‖², at least 0, or by tensor, as in `dropout_kl`.
        widths: the K widths, fixed before the data (see `geometric_widths`).
        empirical_risk: Rhat of the randomised predictor at each width, of shape (..., K).
        loss_range: C, positive.
        law: the masks' law, as in `dropout_kl`.
        rows: rows an example, as in `dropout_kl`.

    Returns:
        The bound on the risk at the width where it is least. The other arguments broadcast with
        the leading axes of ``empirical_risk``.

    Raises:
        ValueError: if the last axis of ``empirical_risk`` is not that of ``widths``.
    """
    if empirical_risk.ndim == 0 or empirical_risk.shape[-1] != widths.size:
        raise ValueError(
            f"empirical_risk must have one entry for each of the {widths.size} widths on its last "
            f"axis, got empirical_risk of shape {empirical_risk.shape}"
        )
    together(
        n=n, delta=delta, dropout=dropout, squared_norm=squared_norm, loss_range=loss_range,
        empirical_risk=empirical_risk[..., 0], rows=rows,
    )  # fmt: skip
    whole = loss_range[..., None]
    AtMost("loss_range")("empirical_risk", empirical_risk, Call({"loss_range": whole}))
    norm = 2.0 * _moves_in_use(law, dropout, squared_norm, rows, np.asarray(1.0))
    # The norm holds what the masks leave in use: as much as without masks counts in full.
    one = np.asarray(1.0)
    kl = _moves_in_use("none", one, norm[..., None], one, widths)
    each = unchecked(pac_bayes_kl_bound)(
        n=n[..., None],
        delta=delta[..., None] / widths.size * (1.0 - rounding.RELATIVE_SLACK),
        kl=rounding.up(np.asarray(kl)),
        empirical_risk=empirical_risk,
        loss_range=whole,
    )
    return np.asarray(np.asarray(each.value).min(axis=-1))
