"""The predictions on trained adapters: what digits experiments of `lora_dropout` measured.

Every number is over runs (a run has its own sample, initial factors, data order and masks), for one
base, one population and one test set of 500. Intervals are two-sided, each end wrong with
probability `ERROR` if means of runs are about normal. A claim whose interval straddles zero stays
NOT ESTABLISHED.
"""

import math

import numpy as np
from scipy import stats

from lora_bounds.claims import Claim, Verdict
from lora_bounds.ledger.evidence import Estimate, measurement
from lora_bounds.measurements import Measurement
from lora_bounds.rounding import Array
from lora_bounds.trend_tests import rate_exponent

ERROR = 0.005
GAP_TOLERANCE, STABILITY_TOLERANCE = 0.1, 0.25


def _mean_of(values: Array, what: str) -> Estimate:
    """Returns the mean over runs with Student's interval."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)
    reach = float(stats.t.ppf(1.0 - ERROR, values.size - 1)) * error
    summary = f"{what}: {mean:.3g} (standard error {error:.2g}, {values.size} runs)"
    return Estimate(summary, mean - reach, mean + reach, ERROR, values.size)


def _order(table: Array, what: str) -> Estimate:
    """Returns the mean over rows of the rank correlation of entries with their places."""
    places = np.arange(table.shape[1])
    rows = [float(stats.spearmanr(places, row).statistic) for row in table]
    return _mean_of(np.asarray(rows), f"Spearman correlation of {what}")


def _near_rate(sizes: Array, table: Array, rate: float, tolerance: float) -> Estimate:
    """Returns the tolerance minus the distance of a measured exponent from the predicted one."""
    found = rate_exponent(sizes, table, confidence=1.0 - 2.0 * ERROR)
    off = np.abs(np.array([found.low, found.high]) - rate)
    least = 0.0 if found.low <= rate <= found.high else float(off.min())
    summary = (
        f"exponent {found.exponent:.3g}, interval [{found.low:.3g}, {found.high:.3g}], "
        f"{found.rows} runs"
    )
    return Estimate(summary, tolerance - float(off.max()), tolerance - least, 2 * ERROR, found.rows)


def _gap(seen: Measurement, inference: str = "mean") -> Array:
    return seen.array(f"test_loss_{inference}") - seen.array(f"train_loss_{inference}")


def gap_falls_over_p(seen: Measurement) -> Estimate:
    """Returns minus the rank correlation of a run's gap with p, true labels."""
    return _order(-_gap(seen)[0], "p and minus the gap")


def gap_falls_over_p_under_noise(seen: Measurement) -> Estimate:
    """Returns the same with 40 % of the labels corrupted."""
    return _order(-_gap(seen)[1], "p and minus the gap")


def training_loss_rises_over_p(seen: Measurement) -> Estimate:
    """Returns the rank correlation of a run's training loss with p, true labels."""
    return _order(seen.array("train_loss_mean")[0], "p and the training loss")


def training_loss_rises_over_p_under_noise(seen: Measurement) -> Estimate:
    """Returns the same with 40 % of the labels corrupted."""
    return _order(seen.array("train_loss_mean")[1], "p and the training loss")


def _u_shape(table: Array, rates: list[float]) -> Estimate:
    """Returns the smaller of the two rises from the best p inside to the ends of the range.

    The best p is chosen on the even runs, the rises are measured on the odd ones.
    """
    best = 1 + int(table[::2, 1:-1].mean(axis=0).argmin())
    odd = table[1::2]
    ends = [_mean_of(odd[:, end] - odd[:, best], "") for end in (0, -1)]
    means = [float((odd[:, end] - odd[:, best]).mean()) for end in (0, -1)]
    summary = (
        f"test loss at p = {rates[0]:g} and {rates[-1]:g} minus that at p = {rates[best]:g}: "
        f"{means[0]:.3g} and {means[1]:.3g} ({len(odd)} runs, p chosen on the others)"
    )
    low, high = min(e.low for e in ends), min(e.high for e in ends)
    return Estimate(summary, low, high, 2 * ERROR, len(odd))


def test_loss_is_u_shaped(seen: Measurement) -> Estimate:
    """Returns the smaller rise of the test loss from its best p, true labels."""
    return _u_shape(seen.array("test_loss_mean")[0], seen.settings["rates"])


def test_loss_is_u_shaped_under_noise(seen: Measurement) -> Estimate:
    """Returns the same with 40 % of the labels corrupted."""
    return _u_shape(seen.array("test_loss_mean")[1], seen.settings["rates"])


def gap_rate_of_lora(seen: Measurement) -> Estimate:
    """Returns how near the exponent of the gap in n is to -1/2, p = 0."""
    return _near_rate(np.asarray(seen.settings["sizes"]), _gap(seen)[0], -0.5, GAP_TOLERANCE)


def gap_rate_of_lora_dropout(seen: Measurement) -> Estimate:
    """Returns how near the exponent of the gap in n is to -1/2, p = 0.5."""
    return _near_rate(np.asarray(seen.settings["sizes"]), _gap(seen)[1], -0.5, GAP_TOLERANCE)


def stability_rate_of_lora(seen: Measurement) -> Estimate:
    """Returns how near the exponent of the stability in n is to -1, p = 0."""
    table = seen.array("absolute")[0]
    return _near_rate(np.asarray(seen.settings["sizes"]), table, -1.0, STABILITY_TOLERANCE)


def stability_rate_of_lora_dropout(seen: Measurement) -> Estimate:
    """Returns how near the exponent of the stability in n is to -1, p = 0.5."""
    table = seen.array("absolute")[1]
    return _near_rate(np.asarray(seen.settings["sizes"]), table, -1.0, STABILITY_TOLERANCE)


def dropout_lowers_stability(seen: Measurement) -> Estimate:
    """Returns the log of beta at p = 0 over beta at p = 0.5, mean over n."""
    plain, masked = seen.array("absolute")
    return _mean_of(np.log(plain / masked).mean(axis=1), "log of beta(p = 0) over beta(p = 0.5)")


def leaving_out_moves_less_than_a_seed(seen: Measurement) -> Estimate:
    """Returns the log of how far a seed moves the solution over how far one example does."""
    ratio = seen.array("noise_distance")[1] / seen.array("distance")[1]
    return _mean_of(np.log(ratio).mean(axis=1), "log of the ratio of distances, p = 0.5")


def _rate(seen: Measurement, p: float) -> int:
    return list(seen.settings["rates"]).index(p)


def ensemble_loss_falls_with_size(seen: Measurement) -> Estimate:
    """Returns minus the rank correlation of a run's ensemble loss with N, p = 0.5."""
    return _order(-seen.array("loss_probabilities")[_rate(seen, 0.5)], "N and minus the loss")


def ensemble_beats_the_mean_network(seen: Measurement) -> Estimate:
    """Returns the loss of the mean network minus that of the largest ensemble, p = 0.5."""
    at = _rate(seen, 0.5)
    ensemble = seen.array("loss_probabilities")[at][:, -1]
    return _mean_of(seen.array("mean_loss")[at] - ensemble, "loss of the mean minus the ensemble's")


def ensemble_beats_lora_in_loss(seen: Measurement) -> Estimate:
    """Returns the test loss of plain LoRA minus that of the largest ensemble, p = 0.5."""
    plain = seen.array("mean_loss")[_rate(seen, 0.0)]
    ensemble = seen.array("loss_probabilities")[_rate(seen, 0.5)][:, -1]
    return _mean_of(plain - ensemble, "loss of plain LoRA minus the ensemble's")


def ensemble_beats_lora_in_accuracy(seen: Measurement) -> Estimate:
    """Returns the accuracy of the largest ensemble, p = 0.5, minus that of plain LoRA."""
    plain = seen.array("mean_accuracy")[_rate(seen, 0.0)]
    ensemble = seen.array("accuracy")[_rate(seen, 0.5)][:, -1]
    return _mean_of(ensemble - plain, "accuracy of the ensemble minus plain LoRA's")


def ensemble_is_better_calibrated_than_lora(seen: Measurement) -> Estimate:
    """Returns the calibration error of plain LoRA minus that of the largest ensemble, p = 0.5."""
    plain = seen.array("mean_ece")[_rate(seen, 0.0)]
    ensemble = seen.array("ece")[_rate(seen, 0.5)][:, -1]
    return _mean_of(plain - ensemble, "ECE of plain LoRA minus the ensemble's")


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
    chance = seen.settings["delta"] * len(seen.values["gap"]) * len(seen.values["gap"][0])
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


DIGITS = "digits transformer, LoRA of rank 8, AdamW, no penalty"
RATES = (DIGITS, "64 examples, 120 steps, p from 0 to 0.7")
SIZES = (DIGITS, "32 to 256 examples, 120 steps")
LEFT_OUT = (DIGITS, "16 to 128 examples, 60 steps, convention 1/n")
MEMBERS = (DIGITS, "64 examples, 120 steps, p = 0.5")
_EXPONENT = ("trend_tests.rate_exponent",)

CLAIMS = (
    Claim(
        id="Digits, gap over p",
        paper_item="T1, measured",
        statement="On digits with true labels the gap of the mean network falls with p.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", gap_falls_over_p),),
        recorded=Verdict.HOLDS,
        formula="mean rank correlation of p and a run's gap < 0",
    ),
    Claim(
        id="Digits, gap over p, corrupted labels",
        paper_item="T1, measured",
        statement="With 40 % of all labels corrupted the gap of the mean network falls with p.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", gap_falls_over_p_under_noise),),
        recorded=Verdict.HOLDS,
        formula="mean rank correlation of p and a run's gap < 0",
    ),
    Claim(
        id="Digits, training loss over p",
        paper_item="T3, training risk, measured",
        statement="The training loss of the mean network rises with p, labels corrupted or not.",
        assumptions=RATES,
        evidence=(
            measurement("digits_rates", training_loss_rises_over_p),
            measurement("digits_rates", training_loss_rises_over_p_under_noise),
        ),
        recorded=Verdict.HOLDS,
        formula="mean rank correlation of p and a run's training loss > 0",
    ),
    Claim(
        id="Digits, test loss over p",
        paper_item="T3, test risk, measured",
        statement="On digits with true labels the test loss is U-shaped in p.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", test_loss_is_u_shaped),),
        recorded=Verdict.HOLDS,
        formula="R(0) > R(p) < R(0.7) at the best p between, chosen on other runs",
    ),
    Claim(
        id="Digits, test loss over p, corrupted labels",
        paper_item="T3, test risk, measured",
        statement="With 40 % of all labels corrupted the test loss is U-shaped in p.",
        assumptions=RATES,
        evidence=(measurement("digits_rates", test_loss_is_u_shaped_under_noise),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="R(0) > R(p) < R(0.7) at the best p between, chosen on other runs",
    ),
    Claim(
        id="Digits, gap over n",
        paper_item="T2, the gap, measured",
        statement="The gap shrinks at the rate 1/sqrt(n) (exponent within 0.1), at p = 0 and 0.5.",
        assumptions=SIZES,
        evidence=(
            measurement("digits_sizes", gap_rate_of_lora),
            measurement("digits_sizes", gap_rate_of_lora_dropout),
        ),
        recorded=Verdict.REFUTED,
        formula="mean gap ~ n^(-1/2)",
        functions=_EXPONENT,
    ),
    Claim(
        id="Digits, stability over n",
        paper_item="Def. 4.1, measured",
        statement="At p = 0.5 the pointwise stability falls like 1/n (exponent within 0.25).",
        assumptions=LEFT_OUT,
        evidence=(measurement("digits_stability", stability_rate_of_lora_dropout),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="beta ~ 1/n",
        functions=_EXPONENT,
    ),
    Claim(
        id="Digits, stability over n, plain LoRA",
        paper_item="Def. 4.1, measured",
        statement="At p = 0 the pointwise stability falls like 1/n (exponent within 0.25).",
        assumptions=LEFT_OUT,
        evidence=(measurement("digits_stability", stability_rate_of_lora),),
        recorded=Verdict.NOT_ESTABLISHED,
        formula="beta ~ 1/n",
        functions=_EXPONENT,
    ),
    Claim(
        id="Digits, stability against p",
        paper_item="Prop. 4.2, measured",
        statement="LoRA Dropout at p = 0.5 is more stable than LoRA: its beta is smaller.",
        assumptions=LEFT_OUT,
        evidence=(measurement("digits_stability", dropout_lowers_stability),),
        recorded=Verdict.HOLDS,
        formula="mean over n of log(beta(0)/beta(0.5)) > 0",
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
        statement="The test loss of the ensemble falls with its size N.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_loss_falls_with_size),),
        recorded=Verdict.HOLDS,
        formula="mean rank correlation of N and a run's ensemble loss < 0",
    ),
    Claim(
        id="Digits, ensemble against mean network",
        paper_item="Thm 4.5, measured",
        statement="An ensemble of 32 has a lower test loss than the mean network.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_beats_the_mean_network),),
        recorded=Verdict.HOLDS,
        formula="loss(mean network) - loss(ensemble) > 0",
    ),
    Claim(
        id="Digits, test loss against LoRA",
        paper_item="Table 1, measured",
        statement="LoRA Dropout with an ensemble of 32 has a lower test loss than LoRA.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_beats_lora_in_loss),),
        recorded=Verdict.HOLDS,
        formula="loss(LoRA) - loss(ensemble) > 0, equal settings",
    ),
    Claim(
        id="Digits, accuracy against LoRA",
        paper_item="Table 1, measured",
        statement="LoRA Dropout with an ensemble of 32 has a higher test accuracy than LoRA.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_beats_lora_in_accuracy),),
        recorded=Verdict.REFUTED,
        formula="accuracy(ensemble) - accuracy(LoRA) > 0, equal settings",
    ),
    Claim(
        id="Digits, calibration against LoRA",
        paper_item="Table 4, measured",
        statement="LoRA Dropout with an ensemble of 32 has a smaller calibration error than LoRA.",
        assumptions=MEMBERS,
        evidence=(measurement("digits_ensemble", ensemble_is_better_calibrated_than_lora),),
        recorded=Verdict.HOLDS,
        formula="ECE(LoRA) - ECE(ensemble) > 0, equal settings",
    ),
    Claim(
        id="Digits, bounds against gap",
        paper_item="Thm 4.4, measured",
        statement="No bound with measured constants lies below the measured gap.",
        assumptions=("digits transformer, p = 0.5, 64 and 512 examples, with and without Eq. 11",),
        evidence=(measurement("digits_bounds", no_bound_is_exceeded),),
        recorded=Verdict.HOLDS,
        formula="bound on the gap >= upper end of the gap's interval",
        functions=("judgement.judge", "compare.compare_bounds"),
    ),
    Claim(
        id="Digits, Thm 4.4 says something",
        paper_item="Thm 4.4, measured",
        statement="With measured constants the bound of Thm 4.4 lies below the range of the loss.",
        assumptions=("digits transformer, p = 0.5, 64 and 512 examples, with Eq. 11",),
        evidence=(measurement("digits_bounds", theorem_4_4_says_something),),
        recorded=Verdict.REFUTED,
        formula="bound on the gap < 2 log 10",
        functions=("generalization.theorem_4_4",),
    ),
)
