"""Valid calls of all that `lora_bounds` exports, read off the names in their signatures."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import lora_bounds as lb
from lora_bounds import losses, problems
from lora_bounds.bounds.laws import TENSOR_KINDS
from lora_bounds.trial import frequency
from tests.hardening.inputs.attack import Case, finite, no_nan

SHAPES = ((), (), (), (3,), (2, 1), (2, 3))


def some(low: float, high: float) -> st.SearchStrategy[Any]:
    """A number of an interval, or an array of them whose shape broadcasts with the others'."""

    def fill(shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
        if not shape:
            return st.floats(low, high)
        size = int(np.prod(shape))
        entries = st.lists(st.floats(low, high), min_size=size, max_size=size)
        return entries.map(lambda values: np.array(values).reshape(shape))

    return st.sampled_from(SHAPES).flatmap(fill)


def whole(low: int, high: int) -> st.SearchStrategy[Any]:
    return some(low, high).map(np.floor)


RATE, SEED = st.floats(0.0, 1.0), st.integers(0, 9)
PLAIN, TABLE = (
    st.floats(0.1, 9.0),
    SEED.map(lambda s: np.random.default_rng(s).uniform(1, 2, (3, 4))),
)
SPECTRUM = st.sampled_from(
    [lb.marchenko_pastur(aspect=a) for a in (2.0, 0.5)]
    + [lb.wishart_spectrum(n=n, d=d) for n, d in ((5, 2), (2, 3), (3, 3))]
)
HOEFFDING = lb.hoeffding(n=100, delta=0.05, empirical_risk=0.1, loss_range=1.0)
JUDGED = [
    lb.judge(HOEFFDING, empirical_risk=0.1, risk=(low, low + 0.1), confidence=0.95)
    for low in (0.0, 0.5)
]
# What an argument of this name may be, in any function.
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "n": whole(2, 10**6), "delta": some(1e-6, 1.0), "dropout": some(0.0, 1.0),
    "drop_probability": some(0.0, 1.0), "lipschitz": some(0, 10), "curvature": some(0, 10),
    "regularization": some(0, 1e3), "stability": some(0, 1), "loss_range": some(1, 10),
    "empirical_risk": some(0, 1), "constant": some(0.1, 10), "kl": some(0, 50),
    "squared_norm": some(0, 10), "radius": some(0, 9), "input_scale": some(0.1, 10),
    "loss": some(-5, 5), "width": some(0.1, 9), "rows": some(1, 99), "bound": some(0, 9),
    "errors": whole(0, 2), "variance": some(0, 9), "n_instances": whole(1, 10**6),
    "infinite_loss": some(0, 9), "weight": some(0, 9), "law": st.sampled_from(lb.MASK_LAWS),
    "convention": st.sampled_from(["1/n", "1/(n-1)"]),
    "direction": st.sampled_from(["upper", "lower"]), "aspect": st.floats(0.1, 10),
    "spectrum": SPECTRUM, "aspect_spectrum": SPECTRUM, "signal_power": RATE,
    "noise_variance": RATE, "noise_to_signal": RATE, "table": TABLE, "seed": SEED,
    "largest": PLAIN, "ratio": st.floats(0.1, 0.9), "count": SEED.map(lambda k: k + 1),
    "judgements": st.just(JUDGED),
}  # fmt: skip
GRID = st.sampled_from([[0.5], [0.5, 2.0], np.array([0.2, 1.0])])
# Arguments that one function takes otherwise.
OWN: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "compare_bounds": dict.fromkeys(
        ("dropout", "lipschitz", "curvature", "empirical_risk", "regularized_lipschitz",
         "held_out_risk", "squared_norm", "delta"), RATE,
    ) | {
        "n": st.integers(1, 9999), "regularization": PLAIN, "loss_range": st.floats(1, 9),
        "held_out_n": st.integers(1, 9999), "width": PLAIN, "feldman_vondrak_constant": PLAIN,
    },
    "critical_ratio": {"regularization": PLAIN},
    "dropout_kl": {"squared_norm": st.one_of(
        some(0, 9), st.dictionaries(st.sampled_from(TENSOR_KINDS), st.floats(0, 9)))},
    "dropout_limit_risks": {"dropout": some(0.01, 1)},
    "dropout_turning_ratio": {"dropout": some(0.01, 0.99)},
    "first_nonvacuous": {"bound": st.just(lambda n: lb.hoeffding(
        n=n, delta=0.05, empirical_risk=0.1, loss_range=1.0)), "least": st.integers(1, 32)},
    "judge": {
        "result": st.sampled_from([HOEFFDING, lb.lemma_a1(
            n=10, lipschitz=1.0, curvature=0.0, regularization=0.0)]),
        "empirical_risk": RATE, "risk": st.just((0.2, 0.3)), "confidence": RATE,
        "facts": st.sampled_from([None, {"unseen data": True}, {"i.i.d. sample": False}]),
        "assumptions": st.just(()), "name": st.sampled_from([None, "mine"])},
    "mask_moments": {"dropout": some(0.0, 0.99)},
    "mean_factor": {"dropout": st.floats(0, 0.9)},
    "page_trend": {"direction": st.sampled_from(["increasing", "decreasing"])},
    "pac_bayes_dropout_bound": {
        "n": st.integers(1, 999), "delta": st.floats(0.01, 1), "dropout": RATE,
        "squared_norm": RATE, "widths": st.just(np.array([1.0, 0.5])),
        "empirical_risk": st.just(np.array([0.1, 0.2])), "loss_range": st.just(1.0),
        "rows": st.floats(1, 9)},
    "rate_exponent": {"sizes": st.just([1, 2, 4, 8]), "values": TABLE,
                      "confidence": st.floats(0.5, 0.99), "resamples": st.integers(1, 20)},
    "regime_map": {"aspects": GRID, "regularizations": GRID, "noise_to_signal": GRID,
                   "d": st.sampled_from([None, 2])},
    "rising_rates": {"regularization": PLAIN},
    "sampled_dropout_risks": {
        "n": st.integers(2, 4), "second_moment": st.just(np.eye(2)),
        "dropout": st.just([0.2, 0.8]), "samples": st.integers(2, 4),
        "inference": st.sampled_from(["ensemble", "raw"])},
    "wishart_spectrum": {"n": st.integers(1, 6), "d": st.integers(1, 6)},
}  # fmt: skip


@st.composite
def regression(draw: st.DrawFn) -> dict[str, Any]:
    """A sample with all that the functions of ridge and logistic regression ask about it."""
    n, d = draw(st.integers(3, 6)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(SEED))
    half, targets = rng.normal(size=(d, d)), rng.normal(size=n)
    return {
        "inputs": rng.normal(size=(n, d)), "targets": targets,
        "labels": np.where(targets > 0, 1.0, -1.0), "truth": rng.normal(size=d),
        "solution": rng.normal(size=d), "second_moment": half @ half.T, "noise": 0.5,
        "regularization": draw(st.floats(0.1, 10.0)), "dropout": draw(st.floats(0.1, 1.0)),
        "center": rng.normal(size=d) if draw(st.booleans()) else None,
    }  # fmt: skip


@st.composite
def layer(draw: st.DrawFn) -> dict[str, Any]:
    """A linear layer of its moments and factors."""
    out, width, rank = (draw(st.integers(1, 3)) for _ in range(3))
    rng = np.random.default_rng(draw(SEED))
    half = rng.normal(size=(width, width))
    return {
        "b": rng.normal(size=(out, rank)), "a": rng.normal(size=(rank, width)),
        "second_moment": half @ half.T, "cross_moment": rng.normal(size=(out, width)),
        "mean_update": rng.normal(size=(out, width)), "target_moment": draw(st.floats(0, 10)),
        "dropout": draw(st.floats(0.0, 0.9)), "rank": draw(st.sampled_from([None, 1, 2])),
        "law": draw(st.sampled_from(["row_column", "activation", "entrywise", "none"])),
    }  # fmt: skip


@st.composite
def members(draw: st.DrawFn) -> dict[str, Any]:
    """Outputs of a few members on a few examples."""
    rng = np.random.default_rng(draw(SEED))
    count, n = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    plain, target = rng.normal(size=(count, n)), rng.choice([-1.0, 1.0], n)
    return {"outputs": plain, "logits": plain, "target": target}


@st.composite
def class_logits(draw: st.DrawFn) -> dict[str, Any]:
    rng = np.random.default_rng(draw(SEED))
    count, n = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    average = draw(st.sampled_from(["probabilities", "logits"]))
    logits, label = rng.normal(size=(count, n, 3)), rng.integers(3, size=n)
    return {"logits": logits, "label": label, "average": average}


# Arguments that must fit one another, drawn together; a function takes those that it names.
TOGETHER: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "cross_entropy_losses": class_logits()
} | {name: members() for name in ("logistic_losses", "squared_losses")} | {
    name: regression()
    for name in ("expected_risks", "leave_one_out", "leave_one_out_fits", "logistic_fit",
                 "logistic_loss", "population_risk", "ridge_fit")
} | {
    name: layer()
    for name in ("effective_moment", "induced_regularizer", "mask_variance", "masked_objective",
                 "minimizer", "trained_update")
}  # fmt: skip

# What a number that is no bound lies between, where the docstring says so.
INTERVALS = dict.fromkeys(
    ("drop_probability", "keep_probability", "dropout_rate", "kl_inverse", "least_delta",
     "mean_factor", "bounds.laws.MaskLaw.kl_factor", "bounds.laws.MaskLaw.drop_probability"),
    (0.0, 1.0),
) | dict.fromkeys(
    ("dropped_norm", "dropout_kl", "ensemble_excess", "ensemble_loss", "geometric_widths",
     "induced_regularization", "logistic_loss", "losses.Loss", "population_risk",
     "self_consistent_lipschitz", "sparsity_penalty"), (0.0, np.inf),
) | dict.fromkeys(("induced_regularizer", "mask_variance"), (-1e-9, np.inf)) | {
    "first_nonvacuous": (1.0, np.inf)
}  # fmt: skip
# Slow ones get a smaller share of the examples.
SHARES = {
    "critical_ratio": 0.1, "compare_bounds": 0.3, "first_nonvacuous": 0.25, "logistic_fit": 0.5,
    "leave_one_out_fits": 0.25, "page_trend": 0.3, "rate_exponent": 0.3, "regime_map": 0.05,
    "rising_rates": 0.1, "wishart_spectrum": 0.2,
}  # fmt: skip
# These may say that they did not end; Newton's method takes as many digits as it needs.
ITERATED = ("leave_one_out_fits", "logistic_fit", "wishart_spectrum")


def a_bound(arguments: dict[str, Any], result: lb.BoundResult) -> None:
    """A bound has a value, a confidence and a verdict on itself that agree."""
    finite(result.value, 0.0)
    finite(result.confidence, 0.0, 1.0)
    trivial = np.inf if result.direction == "upper" else 0.0
    trivial = trivial if result.trivial is None else result.trivial
    says_nothing = np.less_equal if result.direction == "lower" else np.greater_equal
    assert np.array_equal(np.asarray(result.vacuous), says_nothing(result.value, trivial))
    risk = arguments.get("empirical_risk")
    if risk is not None and np.ndim(risk) == 0 and np.isfinite(float(risk)):
        below = np.asarray(result.value) - float(risk)
        assert (below >= 0).all() if result.direction == "upper" else (below <= 0).all()


def _holds(name: str) -> Callable[[dict[str, Any], Any], None]:
    def holds(arguments: dict[str, Any], result: Any) -> None:
        if isinstance(result, lb.BoundResult):
            a_bound(arguments, result)
        elif name in INTERVALS:
            finite(result, *INTERVALS[name])
        elif isinstance(result, lb.EnsembleLosses):
            no_nan(result)
            size = 1.0 + np.abs(np.asarray(result.mean_member))
            assert np.all(np.asarray(result.gap) >= -1e-12 * size), result  # Jensen
        elif isinstance(result, lb.RegimeMap):  # NaN where nothing rises
            no_nan((result.aspects, result.critical))
        else:
            no_nan(result)

    return holds


def _taken(call: Callable[..., Any], drawn: st.SearchStrategy[dict[str, Any]]) -> Any:
    names = inspect.signature(call).parameters
    return drawn.map(lambda found: {n: found[n] for n in names if n in found})


def case(name: str, call: Callable[..., Any], /, **own: st.SearchStrategy[Any]) -> Case:
    """The attack on a function: by what is drawn together, else by its arguments' names.

    Raises:
        KeyError: If it has an argument without a default of which nothing is known.
    """
    if name in TOGETHER:
        valid = _taken(call, TOGETHER[name])
    else:
        known = ARGUMENTS | OWN.get(name, {}) | own
        chosen = {
            parameter.name: known[parameter.name]
            for parameter in inspect.signature(call).parameters.values()
            if parameter.default is parameter.empty or parameter.name in known
        }
        valid = st.fixed_dictionaries(chosen)
    documented = (ArithmeticError,) if name in ITERATED else ()
    return Case(
        f"lora_bounds.{name}", call, valid, _holds(name), documented=documented,
        share=SHARES.get(name, 1.0), seconds=120.0 if name in ITERATED else 20.0,
    )  # fmt: skip


def _called(name: str) -> bool:
    """Whether it is more than a value, or a record of what functions return."""
    one = getattr(lb, name)
    return not isinstance(one, type) and callable(one)


def _cases() -> dict[str, Case]:
    found = [case(name, getattr(lb, name)) for name in lb.__all__ if _called(name)]
    laws = "bounds.laws.MaskLaw"
    found += [
        case(f"{laws}.drop_probability", lambda law, dropout, rank: lb.mask_law(
            law).drop_probability(dropout=dropout, rank=rank), rank=st.integers(1, 9)),
        case(f"{laws}.kl_factor", lambda law, tensor, dropout, rows: lb.mask_law(
            law).kl_factor(tensor, dropout=dropout, rows=rows),
            tensor=st.sampled_from(TENSOR_KINDS)),
        case("problems.make_regression", problems.make_regression, n=st.integers(3, 9),
             d=st.integers(1, 3), condition_number=st.floats(1, 100), noise=RATE),
        case("problems.make_classification", problems.make_classification,
             distinct=st.integers(3, 9), d=st.integers(1, 3), separable=st.booleans(),
             condition_number=st.floats(1, 100)),
        case("trial.frequency.judge_frequency", frequency.judge_frequency, name=st.text(),
             failures=st.integers(0, 9), trials=st.integers(9, 99), probability=RATE,
             error_probability=st.floats(1e-9, 0.5)),
    ]  # fmt: skip
    called = case("losses.Loss", lambda loss, prediction, target: loss(prediction, target),
                  loss=st.sampled_from(losses.LOSSES), prediction=some(-9, 9),
                  target=st.sampled_from([-1.0, 1.0]))  # fmt: skip
    found.append(dataclasses.replace(called, fixed=frozenset({"loss"})))
    return {one.name: one for one in found}


CASES = _cases()
