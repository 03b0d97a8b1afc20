"""The predictions on trained adapters: what digits experiments of `lora_dropout` measured.

What is random: a run (its sample, initial factors, data order and masks, those it is evaluated
under among them) and the examples of the test set, which all runs are crossed with. Samples of
different runs have no example in common. What is fixed: one pretrained base, the settings on file.
An effect is positive where its claim is true; one whose interval straddles zero is NOT ESTABLISHED.

Each claim is called true where it is false, or false where it is true, with probability at most
`ERROR` unless runs are very skewed (`lora_bounds.trial.effects`), and so any of them with at most
`FAMILY_ERROR`. `error_rates`, next to this file, counts how often that happens where an effect is
zero or misses by little. That the loss of an ensemble falls with its size on average is Jensen's
inequality and no measurement: what is on trial is what convexity leaves open.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from lora_bounds.measurements import Measurement
from lora_bounds.rounding import Array
from lora_bounds.trial.claim import Claim, Verdict
from lora_bounds.trial.effects import Effect, MeanEffect, crossed, near, slope, strongest, weakest
from lora_bounds.trial.evidence import Estimate, measurement
from lora_bounds.trial.familywise import each_level

FAMILY_ERROR, N_CLAIMS = 0.05, 18
ERROR = each_level(FAMILY_ERROR, N_CLAIMS)
GAP_TOLERANCE, STABILITY_TOLERANCE = 0.1, 0.25
STEP = 0.25  # of p, from one rate to the next at which a trend must show


def _estimate(effect: Effect, summary: str, runs: int) -> Estimate:
    return Estimate(summary, effect.low(ERROR), effect.high(ERROR), ERROR, runs)


def _single(effect: MeanEffect, what: str, runs: int) -> Estimate:
    summary = f"{what}: {effect.mean:.3g} (standard error {effect.error:.2g}, {runs} runs)"
    return _estimate(effect, summary, runs)


def _several(effects: Sequence[MeanEffect], what: str, runs: int) -> Estimate:
    """Returns the estimate of the weakest of several effects."""
    means = ", ".join(f"{effect.mean:.3g}" for effect in effects)
    return _estimate(weakest(effects), f"{what}: {means} ({runs} runs)", runs)


def _on_test(seen: Measurement, runs: Array, covariance: Array, weights: Array) -> MeanEffect:
    """Returns a contrast of settings, given each run's value, crossed with the test examples."""
    scatter = max(0.0, float(weights @ covariance @ weights))  # rounding can make it negative
    return crossed(runs, example_variance=scatter, examples=int(seen.array("test_examples")))


def _losses(seen: Measurement, case: int) -> Array:
    return seen.array("test_loss_mean_covariance")[case]


def _gap(seen: Measurement, case: int) -> Array:
    return seen.array("test_loss_mean")[case] - seen.array("train_loss_mean")[case]


def _place(seen: Measurement, p: float) -> int:
    return list(seen.settings["rates"]).index(p)


def _rise(seen: Measurement, start: int, end: int) -> Array:
    """Returns the weights of the rise from one rate to another."""
    weights = np.zeros(len(seen.settings["rates"]))
    weights[start], weights[end] = -1.0, 1.0
    return weights


def _steps(seen: Measurement) -> list[Array]:
    rates = np.arange(0.0, seen.settings["rates"][-1] + STEP / 2, STEP)
    places = [_place(seen, float(p)) for p in rates]
    return [_rise(seen, *pair) for pair in pairwise(places)]


def _fall_of_gap(seen: Measurement, case: int, rise: Array) -> MeanEffect:
    return _on_test(seen, -_gap(seen, case) @ rise, _losses(seen, case), rise)


def _gap_falls(seen: Measurement, case: int) -> Estimate:
    effects = [_fall_of_gap(seen, case, rise) for rise in _steps(seen)]
    return _several(
        effects, f"fall of the gap at each step of p by {STEP:g}", len(_gap(seen, case))
    )


def gap_falls_over_p(seen: Measurement) -> Estimate:
    """Returns the least fall of the gap from one rate p to the next, true labels."""
    return _gap_falls(seen, 0)


def gap_falls_over_p_under_noise(seen: Measurement) -> Estimate:
    """Returns the same with 40 % of the labels corrupted."""
    return _gap_falls(seen, 1)


def gap_is_smaller_with_dropout(seen: Measurement) -> Estimate:
    """Returns the gap at p = 0 minus that at p = 0.5, the lesser of true and corrupted labels."""
    rise = _rise(seen, _place(seen, 0.0), _place(seen, 0.5))
    effects = [_fall_of_gap(seen, case, rise) for case in (0, 1)]
    what = "gap at p = 0 minus that at 0.5, labels true and corrupted"
    return _several(effects, what, len(_gap(seen, 0)))


def training_loss_rises_over_p(seen: Measurement) -> Estimate:
    """Returns the least rise of the training loss from one rate p to the next, all labels."""
    tables = seen.array("train_loss_mean")
    effects = [crossed(tables[case] @ rise) for case in (0, 1) for rise in _steps(seen)]
    what = f"rise of the training loss at each step of p by {STEP:g}, labels true, then corrupted"
    return _several(effects, what, len(tables[0]))


def _u_shape(seen: Measurement, case: int) -> Estimate:
    """Returns the smaller of the two rises from a rate inside to the ends, at the best rate."""
    table, rates = seen.array("test_loss_mean")[case], seen.settings["rates"]
    inside = range(1, len(rates) - 1)
    bowls = [
        weakest(
            [
                _on_test(seen, table @ rise, _losses(seen, case), rise)
                for rise in (_rise(seen, place, 0), _rise(seen, place, len(rates) - 1))
            ]
        )
        for place in inside
    ]
    means = table.mean(axis=0)
    best = min(inside, key=lambda place: means[place])
    summary = (
        f"test loss at p = {rates[0]:g} and {rates[-1]:g} minus that at p = {rates[best]:g}: "
        f"{means[0] - means[best]:.3g} and {means[-1] - means[best]:.3g} ({len(table)} runs)"
    )
    return _estimate(strongest(bowls), summary, len(table))


def test_loss_is_u_shaped(seen: Measurement) -> Estimate:
    """Returns the smaller rise of the test loss from its best p, true labels."""
    return _u_shape(seen, 0)


def test_loss_is_u_shaped_under_noise(seen: Measurement) -> Estimate:
    """Returns the same with 40 % of the labels corrupted."""
    return _u_shape(seen, 1)


def _slopes(table: Array, sizes: ArrayLike) -> Array:
    if np.any(table <= 0.0):
        raise ValueError(f"no exponent where a value is not positive, got {float(table.min())!r}")
    return np.log(table) @ slope(sizes)


def gap_rate(seen: Measurement) -> Estimate:
    """Returns how near the exponent of a run's gap in n is to -1/2, at p = 0 and at 0.5."""
    sizes, found = seen.settings["sizes"], []
    for case in (0, 1):
        gap = _gap(seen, case)
        weights = slope(sizes) / gap.mean(axis=0)  # of an example's loss, to first order
        found.append(_on_test(seen, _slopes(gap, sizes), _losses(seen, case), weights))
    effect = weakest([near(one, -0.5, tolerance=GAP_TOLERANCE) for one in found])
    summary = f"exponents {found[0].mean:.3g} and {found[1].mean:.3g} ({len(gap)} runs)"
    return _estimate(effect, summary, len(gap))


def _stability_rate(seen: Measurement, case: int) -> Estimate:
    table = seen.array("absolute")[case]
    found = crossed(_slopes(table, seen.settings["sizes"]))
    summary = f"exponent {found.mean:.3g} (standard error {found.error:.2g}, {len(table)} samples)"
    return _estimate(near(found, -1.0, tolerance=STABILITY_TOLERANCE), summary, len(table))


def stability_rate_of_lora(seen: Measurement) -> Estimate:
    """Returns how near the exponent of a sample's stability in n is to -1, p = 0."""
    return _stability_rate(seen, 0)


def stability_rate_of_lora_dropout(seen: Measurement) -> Estimate:
    """Returns how near the exponent of a sample's stability in n is to -1, p = 0.5."""
    return _stability_rate(seen, 1)


def dropout_lowers_stability(seen: Measurement) -> Estimate:
    """Returns the log of beta at p = 0 over beta at p = 0.5, mean over n."""
    plain, masked = seen.array("absolute")
    effect = crossed(np.log(plain / masked).mean(axis=1))
    return _single(effect, "log of beta(p = 0) over beta(p = 0.5)", len(plain))


def leaving_out_moves_less_than_a_seed(seen: Measurement) -> Estimate:
    """Returns the log of how far a seed moves the solution over how far one example does."""
    ratio = seen.array("noise_distance")[1] / seen.array("distance")[1]
    effect = crossed(np.log(ratio).mean(axis=1))
    return _single(effect, "log of the ratio of distances, p = 0.5", len(ratio))


def _against(
    seen: Measurement, metric: str, places: Sequence[tuple[float, int | None]]
) -> MeanEffect:
    """Returns the metric of the first (rate, size) minus that of the second; None is no masks."""
    ensembles = seen.array("loss_probabilities" if metric == "loss" else metric)
    single, sizes = seen.array(f"mean_{metric}"), list(seen.settings["sizes"])
    weights = np.zeros((len(seen.settings["rates"]), len(sizes) + 1))
    total = np.zeros(ensembles.shape[1])
    for sign, (p, size) in zip((1.0, -1.0), places, strict=True):
        rate = _place(seen, p)
        place = len(sizes) if size is None else sizes.index(size)
        weights[rate, place] = sign
        total += sign * (single[rate] if size is None else ensembles[rate][:, place])
    covariance = seen.array(f"{metric}_covariance").reshape(weights.size, weights.size)
    return _on_test(seen, total, covariance, weights.ravel())


_LARGEST = 16


def ensemble_accuracy_rises_with_size(seen: Measurement) -> Estimate:
    """Returns the least rise of the accuracy at a fourfolding of the ensemble, p = 0.5."""
    pairs = ((4, 1), (_LARGEST, 4))
    effects = [_against(seen, "accuracy", ((0.5, more), (0.5, less))) for more, less in pairs]
    runs = len(seen.values["mean_accuracy"][0])
    return _several(effects, f"rise of the accuracy from 1 to 4 and from 4 to {_LARGEST}", runs)


def _comparison(
    seen: Measurement, metric: str, what: str, places: Sequence[tuple[float, int | None]]
) -> Estimate:
    return _single(_against(seen, metric, places), what, len(seen.values[f"mean_{metric}"][0]))


def ensemble_beats_the_mean_network(seen: Measurement) -> Estimate:
    """Returns the loss of the mean network minus that of the largest ensemble, p = 0.5."""
    what = "loss of the mean minus the ensemble's"
    return _comparison(seen, "loss", what, ((0.5, None), (0.5, _LARGEST)))


def ensemble_beats_lora_in_loss(seen: Measurement) -> Estimate:
    """Returns the test loss of plain LoRA minus that of the largest ensemble, p = 0.5."""
    what = "loss of plain LoRA minus the ensemble's"
    return _comparison(seen, "loss", what, ((0.0, None), (0.5, _LARGEST)))


def ensemble_beats_lora_in_accuracy(seen: Measurement) -> Estimate:
    """Returns the accuracy of the largest ensemble, p = 0.5, minus that of plain LoRA."""
    what = "accuracy of the ensemble minus plain LoRA's"
    return _comparison(seen, "accuracy", what, ((0.5, _LARGEST), (0.0, None)))


def ensemble_is_better_calibrated_than_lora(seen: Measurement) -> Estimate:
    """Returns the calibration error of plain LoRA minus that of the largest ensemble, p = 0.5."""
    what = "ECE of plain LoRA minus the ensemble's"
    return _comparison(seen, "ece", what, ((0.0, None), (0.5, _LARGEST)))


_EXCEEDED = ("exceeded", "CONTRADICTED")


def _bounds(seen: Measurement, key: str) -> list[tuple[str, float | None, str, float]]:
    """Returns name, value (None if infinite) and status of every bound, and an end of its gap."""
    found = []
    for i in range(len(seen.settings["sizes"])):
        for j in range(len(seen.settings["regularizations"])):
            names, bounds, status = (seen.values[k][i][j] for k in ("names", "bounds", "status"))
            end = float(seen.values[key][i][j])
            found += [(*row, end) for row in zip(names, bounds, status, strict=True)]
    return found


def no_bound_is_exceeded(seen: Measurement) -> Estimate:
    """Returns the least distance from the measured gap up to a bound on it.

    The PAC-Bayes bound speaks of a randomised network with a gap of its own: there the audit's
    verdict counts, which compared it with that network's risk on the held-out data.
    """
    margins: dict[str, float] = {}
    for end in ("gap_high", "gap_low"):
        rows = _bounds(seen, end)
        own = [b - gap for name, b, _, gap in rows if b is not None and "PAC-Bayes" not in name]
        other = [-math.inf for _, _, status, _ in rows if status.startswith(_EXCEEDED)]
        margins[end] = min(own + other)
    # An end of a gap's interval is wrong with delta/2, the PAC-Bayes verdict with delta.
    cells = len(seen.values["gap"]) * len(seen.values["gap"][0])
    chance = 1.5 * seen.settings["delta"] * cells
    summary = f"{len(rows)} bounds, least distance of a finite one {margins['gap_high']:.3g}"
    return Estimate(summary, margins["gap_high"], margins["gap_low"], chance, len(rows))


def theorem_4_4_says_something(seen: Measurement) -> Estimate:
    """Returns the loss range minus the least bound on the gap by the theorem as printed."""
    loss_range = 2.0 * math.log(10.0)  # ten digits, losses clipped at twice log 10
    rows = _bounds(seen, "gap")
    finite = [b for name, b, *_ in rows if name.startswith("Thm 4.4") and b is not None]
    margin = loss_range - min(finite)
    summary = f"least bound on the gap {min(finite):.3g} nats, losses at most {loss_range:.3g}"
    return Estimate(summary, margin, margin, 0.0, len(finite))


DIGITS = "digits transformer, LoRA of rank 8, AdamW, no penalty, one base"
RATES = (DIGITS, "32 examples, 120 steps, p from 0 to 0.75")
SIZES = (DIGITS, "8 to 64 examples, 120 steps")
LEFT_OUT = (DIGITS, "8 and 64 examples, 60 steps, convention 1/n")
MEMBERS = (DIGITS, "32 examples, 120 steps, p = 0.5")
_STEPS = "at each step of 0.25 from p = 0 to 0.75"

CLAIMS = (
    Claim(
        id="Digits, gap over p",
        paper_item="T1, measured",
        statement=f"On digits with true labels the gap of the mean network falls with p, {_STEPS}.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", gap_falls_over_p),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="gap(p) - gap(p + 0.25) > 0, for each p",
    ),
    Claim(
        id="Digits, gap over p, corrupted labels",
        paper_item="T1, measured",
        statement="With 40 % of all labels corrupted the gap of the mean network falls with p, "
        f"{_STEPS}.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", gap_falls_over_p_under_noise),),
        recorded=Verdict.HOLDS,
        formula="gap(p) - gap(p + 0.25) > 0, for each p",
    ),
    Claim(
        id="Digits, gap with and without dropout",
        paper_item="T1, measured",
        statement="The gap of the mean network is smaller at p = 0.5 than at p = 0, labels "
        "corrupted or not.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", gap_is_smaller_with_dropout),),
        recorded=Verdict.HOLDS,
        formula="gap(0) - gap(0.5) > 0",
    ),
    Claim(
        id="Digits, training loss over p",
        paper_item="T3, training risk, measured",
        statement=f"The training loss of the mean network rises with p, {_STEPS}, labels "
        "corrupted or not.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", training_loss_rises_over_p),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="loss(p + 0.25) - loss(p) > 0, for each p",
    ),
    Claim(
        id="Digits, test loss over p",
        paper_item="T3, test risk, measured",
        statement="On digits with true labels the test loss is U-shaped in p.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", test_loss_is_u_shaped),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="R(0) > R(p) < R(0.75) at some p between",
    ),
    Claim(
        id="Digits, test loss over p, corrupted labels",
        paper_item="T3, test risk, measured",
        statement="With 40 % of all labels corrupted the test loss is U-shaped in p.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", test_loss_is_u_shaped_under_noise),),
        recorded=Verdict.REFUTED,
        formula="R(0) > R(p) < R(0.75) at some p between",
    ),
    Claim(
        id="Digits, gap over n",
        paper_item="T2, the gap, measured",
        statement="A run's gap shrinks at the rate 1/sqrt(n) (mean exponent within 0.1), at p = 0 "
        "and 0.5.",
        assumptions=SIZES,
        evidence=(measurement("digits_sizes", gap_rate),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="mean slope of log gap over log n = -1/2",
    ),
    Claim(
        id="Digits, stability over n",
        paper_item="Def. 4.1, measured",
        statement="At p = 0.5 a sample's pointwise stability falls like 1/n (mean exponent within "
        "0.25).",
        assumptions=LEFT_OUT,
        evidence=(measurement("digits_stability", stability_rate_of_lora_dropout),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="mean slope of log beta over log n = -1",
    ),
    Claim(
        id="Digits, stability over n, plain LoRA",
        paper_item="Def. 4.1, measured",
        statement="At p = 0 a sample's pointwise stability falls like 1/n (mean exponent within "
        "0.25).",
        assumptions=LEFT_OUT,
        evidence=(measurement("digits_stability", stability_rate_of_lora),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="mean slope of log beta over log n = -1",
    ),
    Claim(
        id="Digits, stability against p",
        paper_item="Prop. 4.2, measured",
        statement="LoRA Dropout at p = 0.5 is more stable than LoRA: a sample's beta is smaller.",
        assumptions=LEFT_OUT,
        evidence=(measurement("digits_stability", dropout_lowers_stability),),
        recorded=Verdict.HOLDS,
        formula="mean over samples and n of log(beta(0)/beta(0.5)) > 0",
    ),
    Claim(
        id="Digits, example against seed",
        paper_item="Def. 4.1, measured",
        statement="At p = 0.5 another seed moves the solution further than a missing example does.",
        assumptions=LEFT_OUT,
        evidence=(measurement("digits_stability", leaving_out_moves_less_than_a_seed),),
        recorded=Verdict.HOLDS,
        formula="norm(theta(S, s') - theta(S, s)) > norm(theta(S^i, s) - theta(S, s))",
    ),
    Claim(
        id="Digits, ensemble size",
        paper_item="T4, measured",
        statement="The test accuracy of the ensemble rises with its size N, from 1 to 4 and from 4 "
        "to 16.",
        assumptions=(*MEMBERS, "not that its loss falls, which Jensen's inequality forces"),
        evidence=(measurement("digits_ensemble", ensemble_accuracy_rises_with_size),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="accuracy(4 N) - accuracy(N) > 0, for N = 1 and 4; no two share a member",
    ),
    Claim(
        id="Digits, ensemble against mean network",
        paper_item="Thm 4.5, measured",
        statement="An ensemble of 16 has a lower test loss than the mean network.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_beats_the_mean_network),),
        recorded=Verdict.HOLDS,
        formula="loss(mean network) - loss(ensemble) > 0",
    ),
    Claim(
        id="Digits, test loss against LoRA",
        paper_item="Table 1, measured",
        statement="LoRA Dropout with an ensemble of 16 has a lower test loss than LoRA.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_beats_lora_in_loss),),
        recorded=Verdict.HOLDS,
        formula="loss(LoRA) - loss(ensemble) > 0, equal settings",
    ),
    Claim(
        id="Digits, accuracy against LoRA",
        paper_item="Table 1, measured",
        statement="LoRA Dropout with an ensemble of 16 has a higher test accuracy than LoRA.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_beats_lora_in_accuracy),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="accuracy(ensemble) - accuracy(LoRA) > 0, equal settings",
    ),
    Claim(
        id="Digits, calibration against LoRA",
        paper_item="Table 4, measured",
        statement="LoRA Dropout with an ensemble of 16 has a smaller calibration error than LoRA, "
        "on 500 test examples.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_is_better_calibrated_than_lora),),
        recorded=Verdict.HOLDS,
        formula="ECE(LoRA) - ECE(ensemble) > 0, equal settings",
    ),
    Claim(
        id="Digits, bounds against gap",
        paper_item="Thm 4.4, measured",
        statement="In four runs no bound with measured constants lies below the measured gap.",
        assumptions=("digits transformer, p = 0.5, 64 and 512 examples, with and without Eq. 11",),
        evidence=(measurement("digits_bounds", no_bound_is_exceeded),),
        recorded=Verdict.HOLDS,
        formula="bound on the gap >= upper end of the gap's interval",
        functions=("bounds.judge.judge", "bounds.compare.compare_bounds"),
    ),
    Claim(
        id="Digits, Thm 4.4 says something",
        paper_item="Thm 4.4, measured",
        statement="In two runs the bound of Thm 4.4 with measured constants lies below the range "
        "of the loss.",
        assumptions=("digits transformer, p = 0.5, 64 and 512 examples, with Eq. 11",),
        evidence=(measurement("digits_bounds", theorem_4_4_says_something),),
        recorded=Verdict.REFUTED,
        formula="bound on the gap < 2 log 10",
        functions=("bounds.risk.theorem_4_4",),
    ),
)
