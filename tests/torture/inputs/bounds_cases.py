"""Valid calls of everything public in `lora_bounds`, and what their results must be."""

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st

import lora_bounds as lb
from lora_bounds import losses, problems
from lora_bounds.bounds.laws import TENSOR_KINDS
from lora_bounds.trial import frequency
from tests.torture.inputs.wild import Case, Valid, finite, no_nan

SHAPES = ((), (), (), (3,), (2, 1), (2, 3))
POSITIVE = (1e-3, 1e3)


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


N, DELTA, P = whole(1, 10**6), some(1e-6, 1.0), some(0.0, 1.0)
LIPSCHITZ, CURVATURE, LAMBDA = some(0.0, 10.0), some(0.0, 10.0), some(0.0, 1e3)
STABILITY, RANGE, RISK = some(0.0, 1.0), some(1.0, 10.0), some(0.0, 1.0)
RATE, SEED = st.floats(0.0, 1.0), st.integers(0, 9)
LAW = st.sampled_from(lb.MASK_LAWS)
QUADRATIC = st.sampled_from(["row_column", "activation", "entrywise", "none"])
CONVENTION = st.sampled_from(["1/n", "1/(n-1)"])
DIRECTION = st.sampled_from(["upper", "lower"])
FLAT = {"n": N, "lipschitz": LIPSCHITZ, "curvature": CURVATURE, "regularization": LAMBDA}
SAMPLE = {"n": N, "delta": DELTA, "loss_range": RANGE, "empirical_risk": RISK}


def keywords(**items: Any) -> Valid:
    return st.fixed_dictionaries(items)


def bound(arguments: dict[str, Any], result: Any) -> None:
    """A bound has a value, a confidence and a verdict on itself that agree."""
    assert isinstance(result, lb.BoundResult)
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


def between(low: float, high: float = np.inf) -> Any:
    return lambda arguments, result: finite(result, low, high)


def clean(arguments: dict[str, Any], result: Any) -> None:
    no_nan(result)


@st.composite
def regression(draw: st.DrawFn, **more: Any) -> dict[str, Any]:
    n, d = draw(st.integers(3, 6)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(SEED))
    found = {"inputs": rng.normal(size=(n, d)), "targets": rng.normal(size=n)}
    found |= {"regularization": draw(st.floats(0.1, 10.0)), "dropout": draw(st.floats(0.1, 1.0))}
    if draw(st.booleans()):
        found["center"] = rng.normal(size=d)
    return found | {name: draw(strategy) for name, strategy in more.items()}


@st.composite
def classification(draw: st.DrawFn, **more: Any) -> dict[str, Any]:
    found = draw(regression(**more))
    found["labels"] = np.where(found.pop("targets") > 0, 1.0, -1.0)
    return found


@st.composite
def layer(draw: st.DrawFn, *names: str, law: Any = None) -> dict[str, Any]:
    out, width, rank = (draw(st.integers(1, 3)) for _ in range(3))
    rng = np.random.default_rng(draw(SEED))
    half = rng.normal(size=(width, width))
    found = {
        "b": rng.normal(size=(out, rank)), "a": rng.normal(size=(rank, width)),
        "second_moment": half @ half.T, "cross_moment": rng.normal(size=(out, width)),
        "mean_update": rng.normal(size=(out, width)), "target_moment": draw(st.floats(0, 10)),
        "dropout": draw(st.floats(0.0, 0.9)), "rank": draw(st.sampled_from([None, 1, 2])),
    }  # fmt: skip
    if law is not None:
        found["law"] = draw(law)
        names = (*names, "law")
    return {name: found[name] for name in names}


@st.composite
def population(draw: st.DrawFn, *, fitted: bool) -> dict[str, Any]:
    found = draw(regression())
    d = found["inputs"].shape[1]
    rng = np.random.default_rng(draw(SEED))
    half = rng.normal(size=(d, d))
    common = {"truth": rng.normal(size=d), "second_moment": half @ half.T, "noise": 0.5}
    if fitted:
        return common | {"solution": rng.normal(size=d)}
    found.pop("targets")
    return found | common


SPECTRA = (
    lb.marchenko_pastur(aspect=2.0),
    lb.marchenko_pastur(aspect=0.5),
    *tuple(lb.wishart_spectrum(n=n, d=d) for n, d in ((5, 2), (2, 3), (3, 3))),
)
SPECTRUM = st.sampled_from(SPECTRA)
BOUNDS = st.sampled_from([
    lb.hoeffding(n=100, delta=0.05, empirical_risk=0.1, loss_range=1.0),
    lb.lemma_a1(n=10, lipschitz=1.0, curvature=0.0, regularization=0.0),
    lb.theorem_4_4(n=50, delta=0.1, lipschitz=1.0, curvature=0.0, regularization=1.0, dropout=0.5,
                   loss_range=1.0, empirical_risk=0.1),
])  # fmt: skip
JUDGED = st.just([
    lb.judge(lb.hoeffding(n=100, delta=0.05, empirical_risk=0.1, loss_range=1.0),
             empirical_risk=0.1, risk=(low, low + 0.1), confidence=0.95)
    for low in (0.0, 0.5)
])  # fmt: skip


def record(kind: type, **items: Any) -> Case:
    """A record says back what it was given, and can be printed."""

    def holds(arguments: dict[str, Any], result: Any) -> None:
        for name, value in arguments.items():
            kept = getattr(result, name)
            same = kept is value or isinstance(kept, np.ndarray | float) or kept == value
            assert same, f"{name} became {kept!r}"
        repr(type(result))

    return Case(f"lora_bounds.{kind.__name__}", kind, keywords(**items), holds, share=0.25)


def risk_like(name: str, **more: Any) -> Case:
    return Case(f"lora_bounds.{name}", getattr(lb, name), keywords(**SAMPLE, **more), bound)


def case(name: str, valid: Valid, holds: Any = clean, **more: Any) -> Case:
    return Case(f"lora_bounds.{name}", getattr(lb, name), valid, holds, **more)


def _logits(draw: st.DrawFn, classes: bool) -> dict[str, Any]:
    rng = np.random.default_rng(draw(SEED))
    members, n = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    if classes:
        return {
            "logits": rng.normal(size=(members, n, 3)), "label": rng.integers(3, size=n),
            "average": draw(st.sampled_from(["probabilities", "logits"])),
        }  # fmt: skip
    return {"logits": rng.normal(size=(members, n)), "target": rng.choice([-1.0, 1.0], n)}


@st.composite
def logits(draw: st.DrawFn, classes: bool) -> dict[str, Any]:
    return _logits(draw, classes)


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, Any]:
    found = _logits(draw, False)
    return {"outputs": found["logits"], "target": found["target"]}


def jensen(arguments: dict[str, Any], result: Any) -> None:
    no_nan(result)
    size = 1.0 + np.abs(np.asarray(result.mean_member))
    assert np.all(np.asarray(result.gap) >= -1e-12 * size), result


def fitted(arguments: dict[str, Any], result: Any) -> None:
    no_nan(result)
    for one in result if isinstance(result, tuple) else (result,):
        for item in dataclasses.fields(one):
            assert np.isfinite(getattr(one, item.name)).all(), f"{item.name} is not finite"


def nonneg_bound(n: Any) -> lb.BoundResult:
    return lb.hoeffding(n=n, delta=0.05, empirical_risk=0.1, loss_range=1.0)


TABLES = st.integers(0, 9).map(lambda s: np.random.default_rng(s).uniform(1, 2, size=(3, 4)))
GRID = st.sampled_from([[0.5], [0.5, 2.0], np.array([0.2, 1.0])])
WIDTHS = st.just(np.array([1.0, 0.5]))

CASES: tuple[Case, ...] = (
    case("drop_probability", keywords(dropout=P), between(0, 1)),
    case("keep_probability", keywords(dropout=P), between(0, 1)),
    case("dropout_rate", keywords(drop_probability=P), between(0, 1)),
    case("mask_law", keywords(law=LAW)),
    Case("lora_bounds.bounds.laws.MaskLaw.drop_probability",
         lambda law, dropout, rank: lb.mask_law(law).drop_probability(dropout=dropout, rank=rank),
         keywords(law=LAW, dropout=P, rank=st.integers(1, 9)), between(0, 1)),
    Case("lora_bounds.bounds.laws.MaskLaw.kl_factor",
         lambda law, tensor, dropout, rows: lb.mask_law(law).kl_factor(
             tensor, dropout=dropout, rows=rows),
         keywords(law=LAW, tensor=st.sampled_from(TENSOR_KINDS), dropout=P, rows=some(1, 99)),
         between(0, 1)),
    case("mask_moments", keywords(law=LAW, dropout=some(0.0, 0.99))),
    case("dropped_norm", keywords(dropout=P, squared_norm=some(0, 10)), between(0)),
    case("inner_maximum", keywords(loss=some(-5, 5), dropout=P, squared_norm=some(0, 10))),
    case("sparsity_penalty",
         keywords(dropout=P, regularization=LAMBDA, squared_norm=some(0, 10)), between(0)),
    case("induced_regularization", keywords(dropout=P, input_scale=some(0.1, 10)), between(0)),
    case("induced_regularizer", layer("mean_update", "second_moment", "dropout"), between(-1e-9)),
    case("lemma_a1", keywords(**FLAT), bound),
    case("paper_stability", keywords(**FLAT, dropout=P), bound),
    case("self_consistent_lipschitz", keywords(
        lipschitz=LIPSCHITZ, regularization=LAMBDA, dropout=P, radius=some(0, 9)), between(0)),
    case("self_consistent_stability", keywords(**FLAT, dropout=P, radius=some(0, 9)), bound),
    case("uniform_stability", keywords(
        n=N, lipschitz=LIPSCHITZ, regularization=LAMBDA, dropout=P, convention=CONVENTION), bound),
    risk_like("bousquet_klochkov_zhivotovskiy", stability=STABILITY),
    case("feldman_vondrak", keywords(**SAMPLE | {"n": whole(2, 10**6)}, stability=STABILITY,
                                     constant=some(0.1, 10)), bound),
    risk_like("feldman_vondrak_2018", stability=STABILITY),
    risk_like("lemma_4_3", stability=STABILITY),
    risk_like("uniform_stability_bound", stability=STABILITY),
    risk_like("theorem_4_4", lipschitz=LIPSCHITZ, curvature=CURVATURE, regularization=LAMBDA,
              dropout=P),
    case("least_delta", keywords(n=N, loss_range=RANGE, empirical_risk=RISK), between(0, 1)),
    case("dropout_kl", keywords(dropout=P, squared_norm=some(0, 9), width=some(0.1, 9)),
         between(0)),
    Case("lora_bounds.dropout_kl, by tensor", lb.dropout_kl, keywords(
        dropout=P, width=some(0.1, 9), law=LAW, rows=some(1, 9),
        squared_norm=st.dictionaries(st.sampled_from(TENSOR_KINDS), st.floats(0, 9))),
        between(0)),
    case("geometric_widths", keywords(
        largest=st.floats(0.1, 9), ratio=st.floats(0.1, 0.9), count=st.integers(1, 9)),
        between(0)),
    case("kl_inverse", keywords(empirical_risk=P, bound=some(0, 9)), between(0, 1)),
    case("pac_bayes_dropout_bound", keywords(
        n=st.integers(1, 999), delta=st.floats(0.01, 1), dropout=RATE, squared_norm=RATE,
        widths=WIDTHS, empirical_risk=st.just(np.array([0.1, 0.2])), loss_range=st.just(1.0)),
        bound),
    risk_like("pac_bayes_kl_bound", kl=some(0, 50)),
    case("clopper_pearson", keywords(n=whole(50, 999), delta=DELTA, errors=whole(0, 50),
                                     direction=DIRECTION), bound),
    risk_like("hoeffding", direction=DIRECTION),
    case("compare_bounds", keywords(
        n=st.integers(1, 9999), delta=st.floats(0.01, 1), dropout=RATE, lipschitz=RATE,
        curvature=RATE, regularization=st.floats(0, 99), loss_range=st.floats(1, 9),
        empirical_risk=RATE, regularized_lipschitz=RATE, held_out_n=st.integers(1, 9999),
        held_out_risk=RATE, squared_norm=RATE, width=st.floats(0.1, 9),
        feldman_vondrak_constant=st.floats(0.1, 9)), share=0.3),
    case("first_nonvacuous", keywords(bound=st.just(nonneg_bound), least=st.integers(1, 32)),
         between(1), share=0.25),
    case("judge", keywords(
        result=BOUNDS, empirical_risk=RATE, risk=st.just((0.2, 0.3)), confidence=RATE,
        facts=st.sampled_from([None, {"unseen data": True}, {"i.i.d. sample": False}]),
        assumptions=st.just(()), name=st.sampled_from([None, "mine"]))),
    case("judgement_table", keywords(judgements=JUDGED)),
    case("cross_entropy_losses", logits(True), jensen),
    case("ensemble_excess", keywords(variance=some(0, 9), n_instances=N), between(0)),
    case("ensemble_loss", keywords(infinite_loss=some(0, 9), variance=some(0, 9), n_instances=N),
         between(0)),
    case("logistic_losses", logits(False), jensen),
    case("squared_losses", outputs(), jensen),
    case("effective_moment", layer("second_moment", "dropout", law=QUADRATIC)),
    case("mask_variance", layer("b", "a", "second_moment", "dropout", law=LAW), between(-1e-9)),
    case("masked_objective", layer(
        "b", "a", "second_moment", "cross_moment", "target_moment", "dropout", law=LAW)),
    case("mean_factor", keywords(law=LAW, dropout=st.floats(0, 0.9)), between(0, 1)),
    case("minimizer", layer("second_moment", "cross_moment", "dropout", "rank", law=QUADRATIC)),
    case("trained_update", layer("second_moment", "cross_moment", "dropout")),
    case("expected_risks", population(fitted=False)),
    case("leave_one_out", regression(convention=CONVENTION), fitted),
    case("population_risk", population(fitted=True), between(0)),
    case("ridge_fit", regression(), fitted),
    case("leave_one_out_fits", classification(convention=CONVENTION), fitted, share=0.25,
         documented=(ArithmeticError,)),
    case("logistic_fit", classification(), fitted, share=0.5, documented=(ArithmeticError,)),
    case("logistic_loss", classification().map(lambda a: {
        "inputs": a["inputs"], "labels": a["labels"],
        "solution": np.ones(a["inputs"].shape[1])}), between(0)),
    case("dropout_limit_risks", keywords(aspect_spectrum=SPECTRUM, dropout=some(0.01, 1),
                                         signal_power=RATE, noise_variance=RATE)),
    case("dropout_turning_ratio", keywords(aspect_spectrum=SPECTRUM, dropout=some(0.01, 0.99))),
    case("sampled_dropout_risks", keywords(
        n=st.integers(2, 4), second_moment=st.just(np.eye(2)), dropout=st.just([0.2, 0.8]),
        samples=st.integers(2, 4), seed=SEED, inference=st.sampled_from(["ensemble", "raw"]))),
    case("regime_map", keywords(aspects=GRID, regularizations=GRID, noise_to_signal=GRID,
                                d=st.sampled_from([None, 2])),
         lambda arguments, result: no_nan((result.aspects, result.critical)), share=0.05),
    case("rising_rates", keywords(spectrum=SPECTRUM, regularization=st.floats(0.1, 9),
                                  noise_to_signal=RATE), share=0.1),
    case("critical_ratio", keywords(spectrum=SPECTRUM, regularization=st.floats(0.1, 9)),
         lambda arguments, result: finite(result.ratio, 0), share=0.1),
    case("ridge_risks", keywords(spectrum=SPECTRUM, weight=some(0, 9), signal_power=RATE,
                                 noise_variance=RATE)),
    case("turning_ratio", keywords(spectrum=SPECTRUM, weight=some(0, 9))),
    case("marchenko_pastur", keywords(aspect=st.floats(0.1, 10))),
    case("wishart_spectrum", keywords(n=st.integers(1, 6), d=st.integers(1, 6)), share=0.2,
         documented=(ArithmeticError,)),
    case("page_trend", keywords(
        table=TABLES, direction=st.sampled_from(["increasing", "decreasing"])), share=0.3),
    case("rate_exponent", keywords(
        sizes=st.just([1, 2, 4, 8]), values=TABLES, confidence=st.floats(0.5, 0.99),
        resamples=st.integers(1, 20), seed=SEED), share=0.3),
    record(lb.Assumption, name=st.text(), statement=st.text(), checked=st.none()),
    record(lb.BoundResult, value=RATE, direction=DIRECTION, confidence=RATE, source=st.text(),
           assumptions=st.just(()), vacuous=st.booleans(), name=st.text(), trivial=RATE),
    record(lb.MaskMoments, mean=RATE, variance=RATE, same_row=RATE, same_column=RATE,
           elsewhere=RATE),
    record(lb.ComparedBound, name=st.text(), result=BOUNDS, nonvacuous_from=RATE,
           assumptions=st.just(())),
    record(lb.Judgement, name=st.text(), bound=RATE, gap_bound=RATE, gap=RATE, ratio=RATE,
           status=st.sampled_from(lb.Status), confidence=RATE, assumptions=st.just(()),
           chance=RATE),
    record(lb.EnsembleLosses, ensemble=RATE, mean_member=RATE, gap=RATE),
    record(lb.LeaveOneOut, solutions=TABLES, loss_changes=TABLES, regularized_changes=TABLES,
           hypothesis_stability=RATE, regularized_stability=RATE),
    record(lb.RidgeFit, solution=TABLES, train_risk=RATE, least_curvature=RATE),
    record(lb.Risks, train=RATE, test=RATE, gap=RATE),
    record(lb.LogisticFit, solution=TABLES, gradient_norm=RATE, least_curvature=RATE,
           iterations=SEED),
    record(lb.SampledRisks, dropout=TABLES, signal_train=TABLES, signal_test=TABLES,
           noise_train=TABLES, noise_test=TABLES),
    record(lb.RegimeMap, aspects=TABLES, regularizations=TABLES, noise_to_signal=TABLES,
           critical=TABLES, rise_start=TABLES, rise_end=TABLES),
    record(lb.Rise, start=RATE, end=RATE),
    record(lb.CriticalRatio, ratio=RATE, weight=RATE, dropout=RATE),
    record(lb.SpectralRisks, train=RATE, test=RATE, gap=RATE),
    record(lb.Spectrum, values=st.just(np.array([0.5, 1.5])),
           weights=st.just(np.array([0.5, 0.5])), aspect=st.just(2.0), invertible=st.booleans()),
    record(lb.RateResult, exponent=RATE, low=RATE, high=RATE, confidence=RATE, rows=SEED,
           columns=SEED),
    record(lb.TrendResult, direction=st.sampled_from(["increasing", "decreasing"]),
           statistic=RATE, p_value=RATE, effect_size=RATE, rows=SEED, columns=SEED,
           method=st.sampled_from(["exact", "normal approximation"])),
    Case("lora_bounds.problems.make_regression", problems.make_regression, keywords(
        n=st.integers(3, 9), d=st.integers(1, 3), condition_number=st.floats(1, 100),
        noise=RATE, seed=SEED), lambda a, r: no_nan((r.inputs, r.targets)), share=0.5),
    Case("lora_bounds.problems.make_classification", problems.make_classification, keywords(
        distinct=st.integers(3, 9), d=st.integers(1, 3), condition_number=st.floats(1, 100),
        separable=st.booleans(), seed=SEED), lambda a, r: no_nan((r.inputs, r.targets)),
        share=0.5),
    Case("lora_bounds.trial.frequency.judge_frequency", frequency.judge_frequency, keywords(
        name=st.text(), failures=st.integers(0, 9), trials=st.integers(9, 99), probability=RATE,
        error_probability=st.floats(1e-9, 0.5)), clean, share=0.5),
    Case("lora_bounds.losses.Loss", lambda loss, prediction, target: loss(prediction, target),
         keywords(loss=st.sampled_from(losses.LOSSES), prediction=some(-9, 9),
                  target=st.sampled_from([-1.0, 1.0])), between(0), fixed=frozenset({"loss"})),
)  # fmt: skip

# Values, not calls.
NOT_CALLED = {"MASK_LAWS", "MaskLaw", "Status"}
