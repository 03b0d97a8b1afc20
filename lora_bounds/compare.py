"""All risk bounds for one problem, side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lora_bounds import checks
from lora_bounds.generalization import (
    bousquet_klochkov_zhivotovskiy,
    feldman_vondrak,
    feldman_vondrak_2018,
    lemma_4_3,
    theorem_4_4,
    uniform_stability_bound,
)
from lora_bounds.held_out import clopper_pearson, hoeffding
from lora_bounds.pac_bayes import dropout_kl, pac_bayes_kl_bound
from lora_bounds.results import Assumption, BoundResult
from lora_bounds.rounding import Array, up
from lora_bounds.stability import self_consistent_stability, uniform_stability

_LARGEST_N = 2.0**53  # beyond it floats no longer tell n from n + 1
_BoundOfN = Callable[[Array], BoundResult]

ZERO_ONE = Assumption("0-1 loss", "every loss is 0 or 1, so that mistakes can be counted")


@dataclass(frozen=True, eq=False)
class ComparedBound:
    """One row of the comparison.

    Attributes:
        name: the bound, and where its stability comes from.
        result: the bound at the problem's own n.
        nonvacuous_from: the least n at which it is not vacuous, all else (the empirical risk
            too) being held fixed; infinite if that is above 2^53.
        assumptions: the assumptions of the bound and of its stability.
    """

    name: str
    result: BoundResult
    nonvacuous_from: float
    assumptions: tuple[Assumption, ...]

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of the assumptions that nobody has checked."""
        return tuple(item.name for item in self.assumptions if item.checked is None)


def first_nonvacuous(bound: _BoundOfN, *, least: int = 1) -> float:
    """Find the least n at which a bound says something.

    Args:
        bound: the bound for an array of n. From n = 33 on it must decrease between one power of
            two and the next; just after a power it may jump up.
        least: where to begin, at most 32.

    Returns:
        The least n, or infinity if there is none up to 2^53.

    Raises:
        TypeError: if ``bound`` is no such function.
    """
    checks.call("bound", bound)
    first = checks.whole_number("least", least, most=32)
    small: Array = np.arange(float(first), 33.0)
    found = bound(small)
    if not hasattr(found, "vacuous"):
        raise TypeError(f"bound must return a BoundResult, got {checks.short(found)}")
    useful = ~np.asarray(found.vacuous)
    if useful.any():
        return float(small[useful.argmax()])
    ends = np.ldexp(1.0, np.arange(6, 54))
    useful = ~np.asarray(bound(ends).vacuous)
    if not useful.any():
        return float(np.inf)
    high = int(ends[useful.argmax()])
    low = high // 2  # vacuous, and so is all before it
    while high - low > 1:
        middle = (low + high) // 2
        if bool(np.asarray(bound(np.array(float(middle))).vacuous)):
            low = middle
        else:
            high = middle
    return float(high)


def compare_bounds(
    *,
    n: int,
    delta: float,
    dropout: float,
    lipschitz: float,
    curvature: float,
    regularization: float,
    loss_range: float,
    empirical_risk: float,
    squared_norm: float | None = None,
    width: float | None = None,
    feldman_vondrak_constant: float | None = None,
) -> tuple[ComparedBound, ...]:
    """Compute every upper bound on the risk that the numbers given allow.

    Each holds with probability at least 1-δ by itself; the least of them does not. The stability
    at each n is that of the same λ, p and constants.

    Args:
        n: sample size, at least 1; the held-out bounds suppose as many unseen examples.
        delta: failure probability δ in [0, 1].
        dropout: the rate p in [0, 1].
        lipschitz: Lipschitz constant of the loss of one example; Thm 4.4 as printed takes it for
            its η, as a reader would.
        curvature: Lmin, at least 0.
        regularization: λ in [0, inf].
        loss_range: C, positive; losses lie in [0, C].
        empirical_risk: in [0, C]; for PAC-Bayes that of the randomised predictor.
        squared_norm: ‖A-A0‖² + ‖B-B0‖²; with ``width`` it adds the PAC-Bayes bound.
        width: the noise width s, fixed before the data.
        feldman_vondrak_constant: the constant that Feldman and Vondrak 2019 leave unnamed; with
            it, their bound is added.

    Returns:
        The rows, from the paper's own bound to the held-out ones; Clopper-Pearson's only for
        C = 1, where the loss may be 0 or 1.

    Raises:
        ValueError: if only one of ``squared_norm`` and ``width`` is given.

    >>> rows = compare_bounds(
    ...     n=3668, delta=0.05, dropout=0.5, lipschitz=1.0, curvature=0.0, regularization=1.0,
    ...     loss_range=1.0, empirical_risk=0.1)
    >>> [row.name for row in rows if not row.result.vacuous][:2]
    ['Thm 4.4 as printed', 'Lemma 4.3, self-consistent stability']
    """
    if (squared_norm is None) != (width is None):
        raise ValueError(
            "squared_norm and width must be given together, got "
            f"squared_norm={checks.short(squared_norm)} and width={checks.short(width)}"
        )
    n = checks.whole_number("n", n)
    dropout = checks.number("dropout", dropout, "[0, 1]")
    loss_range = checks.number("loss_range", loss_range, "(0, inf)")
    empirical_risk = checks.number("empirical_risk", empirical_risk, f"[0, {loss_range!r}]")
    if feldman_vondrak_constant is not None:
        checks.number("feldman_vondrak_constant", feldman_vondrak_constant, "(0, inf)")
    delta = checks.number("delta", delta, "[0, 1]")
    lipschitz = checks.number("lipschitz", lipschitz, "[0, inf)")
    curvature = checks.number("curvature", curvature, "[0, inf)")
    regularization = checks.number("regularization", regularization, "[0, inf]")
    if squared_norm is not None and width is not None:
        squared_norm = checks.number("squared_norm", squared_norm, "[0, inf)")
        width = checks.number("width", width, "(0, inf)")
    common: dict[str, Any] = {
        "delta": delta,
        "loss_range": loss_range,
        "empirical_risk": empirical_risk,
    }
    penalty: dict[str, Any] = {
        "dropout": dropout,
        "regularization": regularization,
        "lipschitz": lipschitz,
    }
    uniform = partial(uniform_stability, **penalty)
    consistent = partial(self_consistent_stability, curvature=curvature, **penalty)

    def stable(
        bound: Callable[..., BoundResult], stability: Callable[..., BoundResult]
    ) -> _BoundOfN:
        return lambda size: bound(n=size, stability=stability(n=size).value, **common)

    def counted(size: Array) -> BoundResult:
        return clopper_pearson(n=size, delta=delta, errors=np.ceil(size * empirical_risk))

    printed = partial(theorem_4_4, curvature=curvature, **penalty, **common)
    from_uniform = uniform(n=n).assumptions
    from_consistent = consistent(n=n).assumptions
    named: list[tuple[str, _BoundOfN, tuple[Assumption, ...]]] = [
        ("Thm 4.4 as printed", lambda size: printed(n=size), ()),
        (
            "Lemma 4.3, self-consistent stability",
            stable(lemma_4_3, consistent),
            from_consistent,
        ),
        ("Lemma 4.3, uniform stability", stable(lemma_4_3, uniform), from_uniform),
        ("Bousquet-Elisseeff 2002", stable(uniform_stability_bound, uniform), from_uniform),
        ("Feldman-Vondrak 2018", stable(feldman_vondrak_2018, uniform), from_uniform),
        (
            "Bousquet-Klochkov-Zhivotovskiy 2020",
            stable(bousquet_klochkov_zhivotovskiy, uniform),
            from_uniform,
        ),
    ]
    if feldman_vondrak_constant is not None and n >= 2:
        sharp = partial(feldman_vondrak, constant=feldman_vondrak_constant)
        named.append(("Feldman-Vondrak 2019", stable(sharp, uniform), from_uniform))
    if squared_norm is not None and width is not None:
        divergence = dropout_kl(dropout=dropout, squared_norm=squared_norm, width=width)
        gibbs = partial(pac_bayes_kl_bound, kl=up(np.asarray(divergence)), **common)
        named.append(("PAC-Bayes dropout", lambda size: gibbs(n=size), ()))
    named.append(("held-out, Hoeffding", lambda size: hoeffding(n=size, **common), ()))
    if loss_range == 1.0:
        named.append(("held-out, Clopper-Pearson", counted, (ZERO_ONE,)))
    return tuple(_row(name, bound, n, extra) for name, bound, extra in named)


def _row(name: str, bound: _BoundOfN, n: int, extra: tuple[Assumption, ...]) -> ComparedBound:
    result = bound(np.asarray(float(n)))
    least = 2 if name == "Feldman-Vondrak 2019" else 1
    assumptions = dict.fromkeys((*result.assumptions, *extra))
    return ComparedBound(name, result, first_nonvacuous(bound, least=least), tuple(assumptions))
