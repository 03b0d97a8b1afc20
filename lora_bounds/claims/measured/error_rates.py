"""How often the measured claims err.

Run `python -m lora_bounds.claims.measured.error_rates --out FILE`.

For each claim, synthetic measurements go through the claim's own code: an effect of exactly zero in
the place that is hardest to tell, every other place far on the claim's side; a miss by little (such
as a gap that falls with p and then rises a little); and a claim that is just true, which must not
be refuted. Runs, test examples and their interactions scatter like those of the digits experiments,
and not normally. Then the two tools: coverage of runs crossed with examples, on whole tables, and
of `rate_exponent` for few and skewed rows.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lora_bounds.claims.measured import on_digits
from lora_bounds.measurements import Measurement
from lora_bounds.provenance import provenance
from lora_bounds.rounding import Array
from lora_bounds.trial.effects import crossed
from lora_bounds.trial.evidence import Estimate
from lora_bounds.trial.frequency import judge_frequency
from lora_bounds.trial.trends import rate_exponent

REPEATS, SEED, SUSPICION = 2000, 0, 1e-3
RUNS, EXAMPLES = 18, 500

Rng: TypeAlias = np.random.Generator


@dataclass(frozen=True)
class Case:
    """One way of the world, with the verdict that is wrong there.

    Attributes:
        estimate: the claim's statistic.
        name: what is true.
        wrong: ``"supports"`` where the claim is false, ``"refutes"`` where it is true.
        make: draws a measurement.
    """

    estimate: Callable[[Measurement], Estimate]
    name: str
    wrong: str
    make: Callable[[Rng], Measurement]


@dataclass(frozen=True)
class ErrorRate:
    """What a case's repeats came to.

    Attributes:
        what: the claim's statistic, or the tool.
        case: what was true.
        wrong: how often the verdict was wrong.
        repeats: of how many.
        promised: the error probability that is promised.
        lower: Clopper-Pearson lower limit of the true one, wrong with at most 0.001.
        kept: lower <= promised.
    """

    what: str
    case: str
    wrong: int
    repeats: int
    promised: float
    lower: float
    kept: bool


def _seen(settings: dict[str, Any], values: dict[str, Any]) -> Measurement:
    return Measurement("simulated", "simulated", settings, values, {})


def _skewed(rng: Rng, scale: float, shape: tuple[int, ...]) -> Array:
    """Returns gamma noise of mean 0, skewness 1.4."""
    return scale * (rng.gamma(2.0, size=shape) - 2.0) / 2.0**0.5


def _crossed(
    rng: Rng, means: Array, *, runs: int = RUNS, scale: float = 1.0
) -> tuple[Array, Array]:
    """Returns a table of settings over runs, and its covariance over the test examples.

    Scatter as measured on digits: of a run 0.15, of an example 2 (of which settings share 1.9), of
    their interaction 1.1.
    """
    settings = means.size
    shared = _skewed(rng, 1.9, (EXAMPLES, 1)) + _skewed(rng, 0.3, (EXAMPLES, settings))
    own = rng.normal(scale=1.1 / EXAMPLES**0.5, size=(runs, settings))
    table = _skewed(rng, 0.1, (runs, 1)) + _skewed(rng, 0.15, (runs, settings)) + own
    columns = shared + rng.normal(scale=1.1 / runs**0.5, size=shared.shape)
    covariance = np.cov(scale * columns.T)
    return means + scale * (table + shared.mean(axis=0)), covariance


P = np.arange(7) / 8.0  # the rates of the experiment


def loss_over_p(
    test: Array, train: Array, *, other: Array, other_train: Array
) -> Callable[[Rng], Measurement]:
    """Test and training loss over p, for both shares of corrupted labels.

    Args:
        test: mean test loss at each of `P`, true labels.
        train: mean training loss likewise.
        other: mean test loss with corrupted labels.
        other_train: mean training loss likewise.

    Returns:
        Draws a measurement.
    """

    def make(rng: Rng) -> Measurement:
        pairs = [_crossed(rng, means) for means in (test, other)]
        trained = [means + _skewed(rng, 0.03, (RUNS, P.size)) for means in (train, other_train)]
        return _seen(
            {"rates": P.tolist()},
            {
                "test_loss_mean": [table for table, _ in pairs],
                "test_loss_mean_covariance": [covariance for _, covariance in pairs],
                "train_loss_mean": trained,
                "test_examples": EXAMPLES,
            },
        )

    return make


def _over_p(kind: str) -> list[Case]:
    steep, flat, rising = 4.0 - 4.0 * P, np.zeros(P.size), 4.0 * P
    at_last = np.where(P > 0.5, 0.5, P)  # rises to p = 0.5, then stands still
    gaps = {
        ("the gap stands still from p = 0.5 on", "supports"): -4.0 * at_last,
        ("the gap falls to p = 0.5 and rises by 0.02", "supports"): -4.0 * at_last
        + 0.02 * (P > 0.7),
        ("the gap falls by 0.02 at each step", "refutes"): -0.08 * P,
    }
    first, second = on_digits.gap_falls_over_p, on_digits.gap_falls_over_p_under_noise
    if kind == "gap":
        cases = []
        for (name, wrong), gap in gaps.items():
            make = loss_over_p(gap, flat, other=steep, other_train=flat)
            cases.append(Case(first, name, wrong, make))
            make = loss_over_p(steep, flat, other=gap, other_train=flat)
            cases.append(Case(second, name, wrong, make))
        for name, wrong, at in (
            ("the gap is the same with true labels", "supports", 0.0),
            ("the gap is 0.02 greater with true labels", "supports", 0.04),
            ("both gaps are 0.02 smaller", "refutes", -0.04),
        ):
            both = at * P
            make = loss_over_p(both, flat, other=both if at < 0 else steep, other_train=flat)
            cases.append(Case(on_digits.gap_is_smaller_with_dropout, name, wrong, make))
        return cases
    if kind == "training":
        return [
            Case(
                on_digits.training_loss_rises_over_p,
                name,
                wrong,
                loss_over_p(flat, train, other=flat, other_train=other),
            )
            for name, wrong, train, other in (
                ("the loss stands still from p = 0.5 on", "supports", 4.0 * at_last, rising),
                ("the loss rises to p = 0.5 and falls by 0.005", "supports",
                 4.0 * at_last - 0.005 * (P > 0.7), rising),
                ("both losses rise by 0.003 at each step", "refutes", 0.012 * P, 0.012 * P),
            )
        ]  # fmt: skip
    inner = (P > 0) & (P < 0.7)
    bowls = {
        ("the loss is flat, then rises", "supports"): np.where(inner, 0.0, 4.0 * (P > 0.7)),
        ("no rate is better by 0.02 than p = 0", "supports"): np.where(
            inner, 0.02, 4.0 * (P > 0.7)
        ),
        ("a bowl 0.02 deep", "refutes"): np.where(inner, -0.02, 0.0),
    }
    cases = []
    for (name, wrong), loss in bowls.items():
        make = loss_over_p(loss, flat, other=steep, other_train=flat)
        cases.append(Case(on_digits.test_loss_is_u_shaped, name, wrong, make))
        make = loss_over_p(steep, flat, other=loss, other_train=flat)
        cases.append(Case(on_digits.test_loss_is_u_shaped_under_noise, name, wrong, make))
    return cases


def gap_over_n(
    first: float, second: float, *, scatter: float = 1.0
) -> Callable[[Rng], Measurement]:
    """Gaps that fall over n as powers.

    Args:
        first: exponent at p = 0.
        second: exponent at p = 0.5.
        scatter: what the scatter of the losses is multiplied by.

    Returns:
        Draws a measurement.
    """
    sizes = np.array([8.0, 16.0, 32.0, 64.0])

    def make(rng: Rng) -> Measurement:
        tables, covariances = [], []
        for exponent in (first, second):
            typical = 4.0 * (sizes / 8.0) ** exponent
            table, covariance = _crossed(rng, np.zeros(4), runs=9, scale=scatter)
            # Relative scatter of the runs, so that no gap is negative and slopes are exact.
            tables.append(typical * np.exp(table / typical))
            covariances.append(covariance)
        return _seen(
            {"sizes": sizes.tolist()},
            {
                "test_loss_mean": tables,
                "test_loss_mean_covariance": covariances,
                "train_loss_mean": np.zeros((2, 9, 4)),
                "test_examples": EXAMPLES,
            },
        )

    return make


def retrained(
    *, exponents: tuple[float, float] = (-1.0, -1.0), ratio: float = 0.0, scatter: float = 1.0
) -> Callable[[Rng], Measurement]:
    """Stability and distances by retraining.

    Args:
        exponents: of the stability over n, at p = 0 and p = 0.5.
        ratio: mean logarithm of the ratios that are claimed to be above 1.
        scatter: what the scatter of the logarithms is multiplied by.

    Returns:
        Draws a measurement.
    """
    sizes = np.array([8.0, 64.0])
    spread = scatter * np.array([0.35, 0.6])  # relative scatter grows with n

    def make(rng: Rng) -> Measurement:
        noise = [np.exp(-spread * _skewed(rng, 1.0, (17, 2))) for _ in range(4)]
        powers = [(sizes / 8.0) ** exponent for exponent in exponents]
        return _seen(
            {"sizes": sizes.tolist()},
            {
                "absolute": [np.exp(ratio) * powers[0] * noise[0], powers[1] * noise[1]],
                "distance": [noise[2], noise[2]],
                "noise_distance": [noise[3], np.exp(ratio) * noise[3]],
            },
        )

    return make


SIZES, ENSEMBLE_RATES = (1, 2, 4, 8, 16), (0.0, 0.2, 0.5)


def members(metric: str, means: Array, *, scale: float = 1.0) -> Callable[[Rng], Measurement]:
    """A metric of ensembles and of the mean network.

    Args:
        metric: `loss`, `accuracy` or `ece`.
        means: of shape (rates, sizes + 1), last the mean network.
        scale: what the scatter of losses is multiplied by.

    Returns:
        Draws a measurement.
    """
    rates, places = means.shape

    def make(rng: Rng) -> Measurement:
        table, covariance = _crossed(rng, means.ravel(), scale=scale)
        runs = table.reshape(RUNS, rates, places).swapaxes(0, 1)
        key = "loss_probabilities" if metric == "loss" else metric
        return _seen(
            {"rates": list(ENSEMBLE_RATES), "sizes": list(SIZES)},
            {
                key: runs[..., :-1],
                f"mean_{metric}": runs[..., -1],
                f"{metric}_covariance": covariance,
                "test_examples": EXAMPLES,
            },
        )

    return make


def _noise(rng: Rng) -> Measurement:
    """Returns members that know nothing: every answer is right with probability 1/10."""
    places = len(ENSEMBLE_RATES) * (len(SIZES) + 1)
    hits = rng.random((RUNS, places, EXAMPLES)) < 0.1
    runs = hits.mean(axis=2).reshape(RUNS, len(ENSEMBLE_RATES), -1).swapaxes(0, 1)
    return _seen(
        {"rates": list(ENSEMBLE_RATES), "sizes": list(SIZES)},
        {
            "accuracy": runs[..., :-1],
            "mean_accuracy": runs[..., -1],
            "accuracy_covariance": np.cov(hits.mean(axis=0)),
            "test_examples": EXAMPLES,
        },
    )


def _ensembles() -> list[Case]:
    def means(largest: float, *, plain: float = 0.0, mean: float = 0.0) -> Array:
        table = np.zeros((3, 6))
        table[0], table[2] = plain, largest
        table[2, -1] = mean
        return table

    size = on_digits.ensemble_accuracy_rises_with_size
    stops, rises = np.zeros((3, 6)), np.zeros((3, 6))
    stops[2] = (0.0, 0.1, 0.2, 0.199, 0.198, 0.0)
    rises[2] = 0.001 * np.arange(6)
    cases = [
        Case(size, "members that know nothing", "supports", _noise),
        Case(size, "the accuracy rises to N = 4 and falls by 0.002", "supports",
             members("accuracy", stops, scale=0.1)),
        Case(size, "the accuracy rises by 0.002 at each step", "refutes",
             members("accuracy", rises, scale=0.1)),
    ]  # fmt: skip
    for estimate, metric, scale, sign in (
        (on_digits.ensemble_beats_the_mean_network, "loss", 1.0, 1.0),
        (on_digits.ensemble_beats_lora_in_loss, "loss", 1.0, 1.0),
        (on_digits.ensemble_beats_lora_in_accuracy, "accuracy", 0.1, -1.0),
        (on_digits.ensemble_is_better_calibrated_than_lora, "ece", 0.1, 1.0),
    ):
        off = 0.02 * scale * sign
        for name, wrong, other in (
            ("no difference", "supports", 0.0),
            (f"worse by {abs(off):g}", "supports", -off),
            (f"better by {abs(off):g}", "refutes", off),
        ):
            table = means(0.0, plain=other, mean=other)
            cases.append(Case(estimate, name, wrong, members(metric, table, scale=scale)))
    return cases


def audited(excess: float) -> Callable[[Rng], Measurement]:
    """Four audits of losses in [0, 4.6].

    Args:
        excess: by how much the first bound is above the true gap.

    Returns:
        Draws a measurement.
    """
    delta, loss_range = 0.0002, 4.6

    def make(rng: Rng) -> Measurement:
        losses = loss_range * rng.beta(0.5, 1.0, size=(4, EXAMPLES))
        gap = losses.mean(axis=1)
        log = np.log(4.0 / delta)
        slack = np.sqrt(2.0 * losses.var(axis=1, ddof=1) * log / EXAMPLES)
        slack += 7.0 * loss_range * log / (3.0 * (EXAMPLES - 1))
        bounds = loss_range / 3.0 + np.array([excess, 3.0, 3.0, 3.0])
        cell = (2, 2)
        return _seen(
            {"sizes": [64, 512], "regularizations": [0.0, 0.01], "delta": delta},
            {
                "gap": gap.reshape(cell),
                "gap_low": (gap - slack).reshape(cell),
                "gap_high": (gap + slack).reshape(cell),
                "names": [[["a bound"]] * 2] * 2,
                "bounds": bounds.reshape(*cell, 1),
                "status": [[["holds"]] * 2] * 2,
            },
        )

    return make


def cases() -> tuple[Case, ...]:
    """List the cases of every measured claim but Thm 4.4's range, in which nothing is random.

    Returns:
        The cases.
    """
    found = [*_over_p("gap"), *_over_p("training"), *_over_p("test"), *_ensembles()]
    for name, wrong, edge in (
        ("the exponent at p = 0 is at the edge, -0.6", "supports", -0.6),
        ("the exponent at p = 0 is beyond the edge, -0.62", "supports", -0.62),
        ("both exponents are within the edge, -0.58", "refutes", -0.58),
    ):
        make = gap_over_n(edge, edge if wrong == "refutes" else -0.5)
        found.append(Case(on_digits.gap_rate, name, wrong, make))
    for name, wrong, edge in (
        ("the exponent is at the edge, -1.25", "supports", -1.25),
        ("the exponent is beyond the edge, -0.7", "supports", -0.7),
        ("the exponent is within the edge, -0.8", "refutes", -0.8),
    ):
        make = retrained(exponents=(edge, -1.0))
        found.append(Case(on_digits.stability_rate_of_lora, name, wrong, make))
        make = retrained(exponents=(-1.0, edge))
        found.append(Case(on_digits.stability_rate_of_lora_dropout, name, wrong, make))
    for name, wrong, ratio in (
        ("the ratio is 1", "supports", 0.0),
        ("the ratio is 0.98", "supports", np.log(0.98)),
        ("the ratio is 1.02", "refutes", np.log(1.02)),
    ):
        for estimate in (
            on_digits.dropout_lowers_stability,
            on_digits.leaving_out_moves_less_than_a_seed,
        ):
            found.append(Case(estimate, name, wrong, retrained(ratio=float(ratio))))
    for name, wrong, excess in (
        ("a bound is the gap", "supports", 0.0),
        ("a bound is 0.02 below the gap", "supports", -0.02),
        ("a bound is 0.02 above the gap", "refutes", 0.02),
    ):
        found.append(Case(on_digits.no_bound_is_exceeded, name, wrong, audited(excess)))
    return tuple(found)


def _judged(what: str, case: str, wrong: int, repeats: int, promised: float) -> ErrorRate:
    found = judge_frequency(
        name=case, failures=wrong, trials=repeats, probability=promised, error_probability=SUSPICION
    )
    return ErrorRate(what, case, wrong, repeats, promised, found.lower, not found.rejected)


def try_claim(case: Case, *, repeats: int, seed: int = SEED) -> ErrorRate:
    """Count wrong verdicts.

    Args:
        case: what is true, and of which claim.
        repeats: number of measurements that are drawn.
        seed: seed of the draws.

    Returns:
        The count, against the level that every claim promises.
    """
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(repeats):
        found = case.estimate(case.make(rng))
        wrong += found.low > 0 if case.wrong == "supports" else found.high < 0
    return _judged(case.estimate.__name__, case.name, int(wrong), repeats, on_digits.ERROR)


def try_crossed(
    *, run: float, example: float, interaction: float, repeats: int, seed: int = SEED
) -> list[ErrorRate]:
    """Count how often an interval over runs and examples misses the mean, on whole tables.

    Args:
        run: scatter of the runs.
        example: scatter of the examples.
        interaction: scatter of the single entries.
        repeats: number of tables of 12 runs and 100 examples.
        seed: seed of the draws.

    Returns:
        The counts at each end.
    """
    rng, runs, examples, level = np.random.default_rng(seed), 12, 100, 0.01
    misses = np.zeros(2, dtype=int)
    for _ in range(repeats):
        table = interaction * rng.standard_normal((runs, examples))
        table += run * rng.standard_normal((runs, 1)) + _skewed(rng, example, (1, examples))
        effect = crossed(
            table.mean(axis=1),
            example_variance=float(table.mean(axis=0).var(ddof=1)),
            examples=examples,
        )
        misses += (effect.low(level) > 0.0, effect.high(level) < 0.0)
    name = f"scatter of runs {run:g}, examples {example:g}, interactions {interaction:g}"
    return [
        _judged("crossed", f"{name}: {end} end", int(wrong), repeats, level)
        for end, wrong in zip(("lower", "upper"), misses, strict=True)
    ]


LAWS: dict[str, Callable[[Rng, tuple[int, int]], Array]] = {
    "normal, sigma 0.3": lambda rng, shape: 1.0 + 0.3 * np.clip(rng.standard_normal(shape), -3, 3),
    "gamma, shape 1": lambda rng, shape: rng.gamma(1.0, size=shape),
    "lognormal, sigma 0.5": lambda rng, shape: rng.lognormal(sigma=0.5, size=shape),
    "lognormal, sigma 1": lambda rng, shape: rng.lognormal(sigma=1.0, size=shape),
    "lognormal, sigma 0.3 to 0.6 over n": lambda rng, shape: _growing(rng, shape),
}


def _growing(rng: Rng, shape: tuple[int, int]) -> Array:
    sigma = np.linspace(0.3, 0.6, shape[1])
    return rng.lognormal(-(sigma**2) / 2.0, sigma, size=shape)


def try_rate(law: str, *, rows: int, repeats: int, seed: int = SEED) -> list[ErrorRate]:
    """Count how often an end of `rate_exponent`'s interval is on the wrong side of the truth.

    Args:
        law: one of `LAWS`.
        rows: number of rows.
        repeats: number of tables.
        seed: seed of the draws.

    Returns:
        The counts at each end.
    """
    rng, sizes, exponent = np.random.default_rng(seed), np.array([16.0, 32.0, 64.0, 128.0]), -0.75
    misses = np.zeros(2, dtype=int)
    for _ in range(repeats):
        table = LAWS[law](rng, (rows, sizes.size)) * sizes**exponent
        found = rate_exponent(sizes, table, confidence=0.98, resamples=50)
        misses += (found.low > exponent, found.high < exponent)
    return [
        _judged("rate_exponent", f"{law}, {rows} rows: {end} end", int(wrong), repeats, 0.01)
        for end, wrong in zip(("lower", "upper"), misses, strict=True)
    ]


TABLES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.2, 1.0, 1.0), (0.5, 0.5, 0.5))
ROWS = (5, 9, 32)


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything.

    Args:
        argv: The arguments; those of the process unless given.

    Returns:
        0 if every promise was kept, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lora_bounds.claims.measured.error_rates",
        description=__doc__.split("\n\n")[0],
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    out = parser.parse_args(argv).out
    found = [try_claim(case, repeats=REPEATS) for case in cases()]
    for run, example, interaction in TABLES:
        found += try_crossed(run=run, example=example, interaction=interaction, repeats=REPEATS)
    for law in LAWS:
        for rows in ROWS:
            found += try_rate(law, rows=rows, repeats=REPEATS)
    content = {
        "provenance": provenance(),
        "seed": SEED,
        "family_error": on_digits.FAMILY_ERROR,
        "claims": on_digits.N_CLAIMS,
        "error": on_digits.ERROR,
        "rates": [asdict(rate) for rate in found],
    }
    out.write_text(json.dumps(content, indent=1) + "\n")
    broken = [rate for rate in found if not rate.kept]
    for rate in broken:
        print(f"{rate.what}, {rate.case}: {rate.wrong} of {rate.repeats}", file=sys.stderr)
    print(f"{len(found)} error rates, {len(broken)} above what is promised")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
