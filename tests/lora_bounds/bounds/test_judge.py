"""Judgements: the unfavourable end decides, and nothing excuses a bound whose premises all hold."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_bounds import hoeffding, theorem_4_4
from lora_bounds.bounds.judge import Status, judge, judgement_table

BOUND = hoeffding(n=1000, delta=0.05, empirical_risk=0.1, loss_range=1.0)  # 0.1387
ALL = dict.fromkeys(BOUND.unchecked, True)


def _status(low: float, high: float, **facts: bool | None) -> Status:
    known = {**ALL, **{name.replace("_", " "): value for name, value in facts.items()}}
    return judge(BOUND, empirical_risk=0.1, risk=(low, high), confidence=0.9, facts=known).status


def test_each_status_by_hand() -> None:
    assert _status(0.13, 0.5) is Status.HOLDS  # the lower end is below the bound
    assert _status(0.14, 0.5) is Status.CONTRADICTED
    assert _status(0.14, 0.5, unseen_data=None) is Status.OPEN
    assert _status(0.14, 0.5, unseen_data=False, bounded_loss=None) is Status.EXCUSED
    weak = hoeffding(n=1, delta=0.05, empirical_risk=0.1, loss_range=1.0)
    assert judge(weak, empirical_risk=0.1, risk=(0, 1), confidence=1).status is Status.VACUOUS


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([True, False, None]))
def test_a_bound_is_exceeded_exactly_when_the_lower_end_is_above_it(
    a: float, b: float, fact: bool | None
) -> None:
    low, high = sorted((a, b))
    seen = judge(
        BOUND,
        empirical_risk=0.1,
        risk=(low, high),
        confidence=0.9,
        facts={**ALL, "unseen data": fact},
    )
    exceeded = {True: Status.CONTRADICTED, False: Status.EXCUSED, None: Status.OPEN}[fact]
    assert seen.status is (exceeded if low > BOUND.value else Status.HOLDS)
    assert (seen.chance is None) == (low <= BOUND.value)
    assert seen.violated == (("unseen data",) if fact is False else ())
    assert seen.unchecked == (("unseen data",) if fact is None else ())


def test_numbers_by_hand() -> None:
    seen = judge(BOUND, empirical_risk=0.1, risk=(0.15, 0.25), confidence=0.9, name="mine")
    assert seen.name == "mine"
    assert seen.gap == pytest.approx(0.1)
    assert seen.gap_bound == pytest.approx(BOUND.value - 0.1)
    assert seen.ratio == pytest.approx((BOUND.value - 0.1) / 0.1)
    assert seen.chance == pytest.approx(0.05 + 0.1)
    assert math.isinf(judge(BOUND, empirical_risk=0.1, risk=(0, 0.1), confidence=1).ratio)


def test_facts_do_not_leak_into_other_assumptions() -> None:
    printed = theorem_4_4(
        n=10**6,
        delta=0.5,
        lipschitz=1.0,
        curvature=0.0,
        regularization=1.0,
        dropout=0.5,
        loss_range=1.0,
        empirical_risk=0.1,
    )
    seen = judge(printed, empirical_risk=0.1, risk=(0.9, 1), confidence=1, facts={"convex": True})
    assert seen.unchecked == printed.unchecked


def test_a_contradiction_is_loud_and_first() -> None:
    bad = judge(BOUND, empirical_risk=0.1, risk=(0.5, 0.6), confidence=1, facts=ALL)
    good = judge(BOUND, empirical_risk=0.1, risk=(0.1, 0.2), confidence=1)
    lines = judgement_table([good, bad]).splitlines()
    assert lines[0].startswith("!!! Hoeffding IS CONTRADICTED")
    assert "unchecked: i.i.d. sample, unseen data, bounded loss" in lines[3]
    assert "!!!" not in judgement_table([good])


def test_the_table_word_for_word() -> None:
    judged = {"confidence": 1.0, "empirical_risk": 0.1}
    bad = judge(BOUND, risk=(0.5, 0.6), facts=ALL, name="a", **judged)
    good = judge(BOUND, risk=(0.1, 0.2), facts=ALL | {"unseen data": False}, **judged)
    open_ = judge(BOUND, risk=(0.0, 0.1), facts=ALL | {"unseen data": None}, name="b", **judged)
    assert judgement_table([good, bad, open_]).split("\n") == [
        "!!! a IS CONTRADICTED: the risk exceeds 0.1387 although every assumption was found to "
        "hold (by chance with probability at most 0.05). This is a bug or a discovery.",
        "bound         value    gap <=    ratio  status",
        "Hoeffding     0.139    0.0387    0.774  holds",
        "           violated: unseen data",
        "a             0.139    0.0387    0.086  CONTRADICTED",
        "b             0.139    0.0387      inf  holds",
        "           unchecked: unseen data",
    ]
    assert judgement_table([]) == "bound     value    gap <=    ratio  status"


def test_a_bound_that_is_just_met_holds() -> None:
    assert _status(BOUND.value, 0.5) is Status.HOLDS


def test_what_a_bound_knew_of_its_assumptions_is_kept() -> None:
    known = judge(BOUND, empirical_risk=0.1, risk=(0, 0.1), confidence=1, facts=ALL)
    result = replace(BOUND, assumptions=known.assumptions)
    seen = judge(result, empirical_risk=0.1, risk=(0, 0.1), confidence=1)
    assert seen.unchecked == ()
    assert seen.confidence == BOUND.confidence == 0.95


def test_chance_is_a_probability_and_a_gap_of_zero_has_no_ratio() -> None:
    weak = hoeffding(n=10**6, delta=0.9, empirical_risk=0.1, loss_range=1.0)
    assert judge(weak, empirical_risk=0.1, risk=(0.5, 0.6), confidence=0.1).chance == 1.0
    assert math.isinf(judge(BOUND, empirical_risk=0.125, risk=(0, 0.25), confidence=1).ratio)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"risk must have 2 entries, got risk of shape"):
        judge(BOUND, empirical_risk=0.1, risk=(0, 0.5, 1), confidence=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"empirical_risk must be in \[0, inf\), got .*=-1"):
        judge(BOUND, empirical_risk=-1, risk=(0, 1), confidence=1)
    with pytest.raises(ValueError, match=r"risk must be an interval .* got risk=\(0.5, 0.1\)"):
        judge(BOUND, empirical_risk=0.1, risk=(0.5, 0.1), confidence=1)
    with pytest.raises(ValueError, match=r"confidence must be in \[0, 1\], got confidence=2"):
        judge(BOUND, empirical_risk=0.1, risk=(0, 1), confidence=2)
    lower = hoeffding(n=9, delta=0.1, empirical_risk=0.1, loss_range=1, direction="lower")
    with pytest.raises(ValueError, match="result must be one upper bound, got a lower bound"):
        judge(lower, empirical_risk=0.1, risk=(0, 1), confidence=1)
    many = hoeffding(n=[9, 10], delta=0.1, empirical_risk=0.1, loss_range=1)
    with pytest.raises(ValueError, match=r"result must be one upper bound, .*shape \(2,\)"):
        judge(many, empirical_risk=0.1, risk=(0, 1), confidence=1)
