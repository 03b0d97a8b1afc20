"""All risk bounds for one problem, side by side."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from lora_bounds.bounds.held_out import clopper_pearson, hoeffding
from lora_bounds.bounds.pac_bayes import dropout_kl, pac_bayes_kl_bound
from lora_bounds.bounds.risk import (
    bousquet_klochkov_zhivotovskiy,
    feldman_vondrak,
    feldman_vondrak_2018,
    lemma_4_3,
    theorem_4_4,
    uniform_stability_bound,
)
from lora_bounds.bounds.stability import self_consistent_stability, uniform_stability
from lora_bounds.domains import (
    OneNonNegative,
    OnePositive,
    OneRate,
    OneSize,
    Real,
    Whole,
    formula,
    short,
    unchecked,
)
from lora_bounds.results import Assumption, BoundResult
from lora_bounds.rounding import Array, up

_LARGEST_N = 2.0**53  # beyond it floats no longer tell n from n + 1
_POINTS = 65  # of a step of the search
_BoundOfN = Callable[[Array], BoundResult]
_Row = tuple[str, _BoundOfN, float, tuple[Assumption, ...]]

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


class Comparison(tuple[ComparedBound, ...]):
    """The rows, with what is missing.

    Attributes:
        left_out: why each bound that has no row has none, by its name.
    """

    left_out: dict[str, str]

    def __new__(cls, rows: Iterable[ComparedBound], left_out: dict[str, str]) -> "Comparison":
        """Returns the rows as a tuple that knows what it leaves out."""
        made = super().__new__(cls, rows)
        made.left_out = dict(left_out)
        return made


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
    if not callable(bound):
        raise TypeError(f"bound must be a function, got bound={short(bound)}")
    first = Whole(1, 32)("least", least)
    found = bound(np.arange(float(first), 33.0))
    if not hasattr(found, "vacuous"):
        raise TypeError(f"bound must return a BoundResult, got {short(found)}")
    return _first_useful(bound, first, found)


def _first_useful(bound: _BoundOfN, first: int, small: BoundResult) -> float:
    # The least n from `first` on, given what the bound says up to 32.
    useful = ~np.asarray(small.vacuous)
    if useful.any():
        return float(first + useful.argmax())
    ends = np.ldexp(1.0, np.arange(6, 54))
    useful = ~np.asarray(bound(ends).vacuous)
    if not useful.any():
        return float(np.inf)
    high = int(ends[useful.argmax()])
    low = high // 2  # vacuous, and so is all before it
    while high - low > 1:
        inside = min(high - low, _POINTS) - 1  # points between the two
        points = [low + (high - low) * (i + 1) // (inside + 1) for i in range(inside)]
        useful = ~np.asarray(bound(np.array(points, dtype=np.float64)).vacuous)
        cut = int(useful.argmax()) if useful.any() else inside
        low, high = [low, *points][cut], [*points, high][cut]
    return float(high)


@formula
def compare_bounds(
    *,
    n: OneSize,
    delta: OneRate,
    dropout: OneRate,
    curvature: OneNonNegative,
    regularization: Annotated[float, Real("[0, inf]")],
    loss_range: OnePositive,
    empirical_risk: float,
    lipschitz: OneNonNegative | None = None,
    regularized_lipschitz: OneNonNegative | None = None,
    squared_norm: float | None = None,
    width: float | None = None,
    feldman_vondrak_constant: OnePositive | None = None,
    held_out_n: int | None = None,
    held_out_errors: int | None = None,
    held_out_risk: float | None = None,
) -> Comparison:
    """Compute every upper bound on the risk that the numbers given allow.

    Each holds with probability at least 1-δ by itself; the least of them does not. The stability
    at each n is that of the same λ, p and constants. A bound whose numbers are not given is left
    out, with the reason in ``left_out``.

    Args:
        n: size of the training sample, at least 1.
        delta: failure probability δ in [0, 1].
        dropout: the rate p in [0, 1].
        curvature: Lmin, at least 0.
        regularization: λ in [0, inf].
        loss_range: C, positive; losses lie in [0, C].
        empirical_risk: on the training sample, in [0, C]; for PAC-Bayes that of the randomised
            predictor.
        lipschitz: ρ, the Lipschitz constant of the *plain* loss of one example, without the
            penalty; all stability bounds but Thm 4.4 need it.
        regularized_lipschitz: η, that of the *regularised* loss of one example, which Thm 4.4 as
            printed takes as given.
        squared_norm: ‖A-A0‖² + ‖B-B0‖²; with ``width`` it adds the PAC-Bayes bound.
        width: the noise width s, fixed before the data.
        feldman_vondrak_constant: the constant that Feldman and Vondrak 2019 leave unnamed; with
            it, their bound is added.
        held_out_n: number of examples that played no part in training or selection.
        held_out_errors: mistakes among them: adds Clopper-Pearson, and Hoeffding; for C = 1, where
            the loss may be 0 or 1.
        held_out_risk: mean loss over them, in [0, C]: adds Hoeffding.

    Returns:
        The rows, from the paper's own bound to the held-out ones, as a tuple with the attribute
        ``left_out``.

    Raises:
        ValueError: if only one of ``squared_norm`` and ``width`` is given, or held-out numbers do
            not fit together.

    >>> rows = compare_bounds(
    ...     n=3668, delta=0.05, dropout=0.5, lipschitz=1.0, curvature=0.0, regularization=1.0,
    ...     loss_range=1.0, empirical_risk=0.1)
    >>> [row.name for row in rows if not row.result.vacuous][:1]
    ['Lemma 4.3, self-consistent stability']
    >>> rows.left_out["held-out, Clopper-Pearson"]
    'needs held_out_n and held_out_errors'
    """
    if (squared_norm is None) != (width is None):
        raise ValueError(
            "squared_norm and width must be given together, got "
            f"squared_norm={short(squared_norm)} and width={short(width)}"
        )
    empirical_risk = Real(f"[0, {loss_range!r}]")("empirical_risk", empirical_risk)
    if squared_norm is not None and width is not None:
        squared_norm = Real("[0, inf)")("squared_norm", squared_norm)
        width = Real("(0, inf)")("width", width)
    held, missing = _held_out(delta, loss_range, held_out_n, held_out_errors, held_out_risk)
    # Formulas take arrays.
    scale: dict[str, Any] = {"delta": np.asarray(delta), "loss_range": np.asarray(loss_range)}
    common: dict[str, Any] = {**scale, "empirical_risk": np.asarray(empirical_risk)}
    flat: dict[str, Any] = {"curvature": np.asarray(curvature)}
    penalty: dict[str, Any] = {
        "dropout": np.asarray(dropout),
        "regularization": np.asarray(regularization),
    }
    named: list[_Row] = []
    left_out: dict[str, str] = {}
    if regularized_lipschitz is None:
        left_out["Thm 4.4 as printed"] = "needs regularized_lipschitz"
    else:
        eta = np.asarray(regularized_lipschitz)
        printed = partial(unchecked(theorem_4_4), lipschitz=eta, **flat, **penalty, **common)
        named.append(("Thm 4.4 as printed", lambda size: printed(n=size), n, ()))
    bounds: list[tuple[str, Callable[..., BoundResult], bool]] = [
        ("Lemma 4.3, self-consistent stability", unchecked(lemma_4_3), True),
        ("Lemma 4.3, uniform stability", unchecked(lemma_4_3), False),
        ("Bousquet-Elisseeff 2002", unchecked(uniform_stability_bound), False),
        ("Feldman-Vondrak 2018", unchecked(feldman_vondrak_2018), False),
        ("Bousquet-Klochkov-Zhivotovskiy 2020", unchecked(bousquet_klochkov_zhivotovskiy), False),
    ]
    if feldman_vondrak_constant is None or n < 2:
        need = "feldman_vondrak_constant" if n >= 2 else "n of at least 2"
        left_out["Feldman-Vondrak 2019"] = f"needs {need}"
    else:
        constant = np.asarray(feldman_vondrak_constant)
        sharp = partial(unchecked(feldman_vondrak), constant=constant)
        bounds.append(("Feldman-Vondrak 2019", sharp, False))
    for name, bound, consistent in bounds:
        if lipschitz is None:
            left_out[name] = "needs lipschitz"
            continue
        rho = np.asarray(lipschitz)
        stability: Callable[..., BoundResult] = (
            partial(unchecked(self_consistent_stability), **flat)
            if consistent
            else unchecked(uniform_stability)
        )
        known = partial(stability, lipschitz=rho, **penalty)

        def stable(
            size: Array,
            bound: Callable[..., BoundResult] = bound,
            known: Callable[..., BoundResult] = known,
        ) -> BoundResult:
            return bound(n=size, stability=np.asarray(known(n=size).value), **common)

        named.append((name, stable, n, known(n=np.asarray(float(n))).assumptions))
    if squared_norm is None or width is None:
        left_out["PAC-Bayes dropout"] = "needs squared_norm and width"
    else:
        divergence = unchecked(dropout_kl)(
            dropout=penalty["dropout"], squared_norm=squared_norm, width=np.asarray(width)
        )
        gibbs = partial(unchecked(pac_bayes_kl_bound), kl=up(np.asarray(divergence)), **common)
        named.append(("PAC-Bayes dropout", lambda size: gibbs(n=size), n, ()))
    rows = [_row(name, bound, size, extra) for name, bound, size, extra in (*named, *held)]
    return Comparison(rows, {**left_out, **missing})


def _held_out(
    delta: float, largest: float, n: int | None, errors: int | None, risk: float | None
) -> tuple[list[_Row], dict[str, str]]:
    # The rows from unseen examples: never from the training risk, nor from the training n.
    hoeffding_name, exact_name = "held-out, Hoeffding", "held-out, Clopper-Pearson"
    given = {"held_out_errors": errors, "held_out_risk": risk}
    if n is None:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} must come with held_out_n, got {name}={value!r} alone")
        missing = {
            hoeffding_name: "needs held_out_n, and held_out_risk or held_out_errors",
            exact_name: "needs held_out_n and held_out_errors",
        }
        return [], missing
    size = Whole(1)("held_out_n", n)
    if errors is None and risk is None:
        raise ValueError(
            "held_out_n must come with held_out_errors or held_out_risk, got "
            f"held_out_n={n!r} alone"
        )
    if risk is not None:
        risk = Real(f"[0, {largest!r}]")("held_out_risk", risk)
    wrong = 0
    if errors is not None:
        wrong = Whole(0, size)("held_out_errors", errors)
        if largest != 1.0:
            raise ValueError(
                "held_out_errors must come with loss_range=1, for a loss of 0 or 1, got "
                f"loss_range={largest!r}; held_out_risk takes any loss"
            )
    mean = np.asarray(wrong / size if risk is None else risk)
    failure = np.asarray(delta)
    averaged = partial(
        unchecked(hoeffding), delta=failure, empirical_risk=mean, loss_range=np.asarray(largest)
    )
    rows: list[_Row] = [(hoeffding_name, lambda m: averaged(n=m), size, ())]
    if errors is None:
        return rows, {exact_name: "needs held_out_errors"}

    def counted(m: Array) -> BoundResult:
        # The same share of mistakes, rounded up to a whole number of them in integers.
        share = [-(-int(one) * wrong // size) for one in np.ravel(m)]
        whole = np.reshape(np.array(share, dtype=np.float64), np.shape(m))
        return unchecked(clopper_pearson)(n=m, delta=failure, errors=whole)

    return [*rows, (exact_name, counted, size, (ZERO_ONE,))], {}


def _row(name: str, bound: _BoundOfN, n: float, extra: tuple[Assumption, ...]) -> ComparedBound:
    result = bound(np.asarray(float(n)))
    first = 2 if name == "Feldman-Vondrak 2019" else 1
    useful = _first_useful(bound, first, bound(np.arange(float(first), 33.0)))
    assumptions = dict.fromkeys((*result.assumptions, *extra))
    return ComparedBound(name, result, useful, tuple(assumptions))
