"""A declared sentence about quality comes true, or does not, or cannot be told; and says with which numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import pytest
from pydantic import ValidationError
from toy_world import a_service, a_world

from mlops_assets import CalibrationMonitor, DeclarationError, DegradationRule, MLService
from mlops_assets.monitoring_loop.calibration import RATIO, SHARE, watch_calibration
from mlops_assets.monitoring_loop.degradation import INCIDENT, RETRAINING, Evaluation, evaluate
from mlops_assets.monitoring_loop.evidence import Asked, Evidence, Known, Series, Usual
from mlops_assets.monitoring_loop.rules import QualityJudgement
from mlops_assets.monitoring_loop.slices import SlicePart, explaining
from mlops_assets.promises import warnings

MATURE = date(2013, 6, 28)
DAY = MATURE + timedelta(days=2)
UP_5 = DegradationRule(metric="brier", rises_by_share=0.05, compared_with="fallback", broken_days=3, of_days=4)
TOO_LATE = DegradationRule(metric="calibration_ratio", above=1.25, window_days=14, broken_days=1, of_days=1)


def a_series(*values: float | Known | None, last: date = MATURE) -> dict[date, Known]:
    """Newest first; None: that day has no row. Final, with labels enough, unless said otherwise."""
    known = [Known(v, v, v, 900, 1.0) if isinstance(v, float) else v for v in values]
    return {last - timedelta(days=back): one for back, one in enumerate(known) if one is not None}


def seen(rule: DegradationRule, served: Series, control: Series | None = None, blocked: tuple[date, ...] = ()):
    def asked(role: str) -> Asked:
        return Asked(role, rule.slice, rule.metric, rule.window_days)

    series: Mapping[Asked, Series] = {asked("served"): served, asked("fallback"): control or {}}
    return Evidence(DAY, MATURE, series, frozenset(blocked))


def judged(rule: DegradationRule, evidence: Evidence, *, leads_to: str = INCIDENT) -> Evaluation:
    return evaluate(rule, evidence, leads_to=leads_to)


STEADY = a_series(0.20, 0.20, 0.20, 0.20)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (UP_5, "brier up 5 % against the fallback on 3 of 4 days"),
        (TOO_LATE, "calibration_ratio over 14 days above 1.25"),
        (
            DegradationRule(
                metric="revenue", drops_by_share=0.03, compared_with="same_weekday", broken_days=3, of_days=3
            ),
            "revenue down 3 % against the same weekday for 3 consecutive days",
        ),
        (
            DegradationRule(metric="auc", drops_by=0.02, compared_with="fallback", slice="origin=EWR"),
            "auc of origin=EWR down 0.02 against the fallback on 3 of 4 days",
        ),
        (
            DegradationRule(metric="auc", drops_by=0.02, compared_with="version:v8", broken_days=2, of_days=2),
            "auc down 0.02 against version v8 for 2 consecutive days",
        ),
        (
            DegradationRule(
                metric="brier", rises_by=0.1, compared_with="served", slice="arm=b", control_slice="arm=a", of_days=3
            ),
            "brier of arm=b up 0.1 against what was served of arm=a for 3 consecutive days",
        ),
    ],
)
def test_a_rule_reads_as_a_sentence(rule, sentence):
    assert rule.sentence == sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rises_by_share": 0.1, "above": 1.0, "compared_with": "fallback"}, "exactly one of"),
        ({}, "it has none"),
        ({"rises_by_share": 0.1}, "needs compared_with"),
        ({"above": 1.0, "compared_with": "fallback"}, "leave compared_with out"),
        ({"above": 1.0, "broken_days": 5}, "more than of_days=4"),
        (
            {"rises_by": 0.1, "compared_with": "shadows"},
            "compared_with 'shadows' of 'brier' is nothing to compare with",
        ),
        ({"rises_by": 0.1, "compared_with": "version:"}, "is nothing to compare with"),
        ({"rises_by": 0.1, "compared_with": "served"}, "is compared with itself"),
        ({"above": 1.0, "control_slice": "arm=a"}, "needs compared_with"),
    ],
)
def test_an_impossible_rule_fails_when_it_is_declared(fields, words):
    with pytest.raises(ValidationError, match=words):
        DegradationRule(metric="brier", **fields)


def declared(rule: DegradationRule) -> MLService:
    asked = {"degradation": (rule,), "slices": {"depot": "depot"}, "slice_windows_days": (14,)}
    return a_service(quality=a_service().quality.model_copy(update=asked))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"window_days": 9}, "not measured over 9 days. Use one of 1, 7, 14, 28"),
        ({"slice": "depto=north"}, "Did you mean 'depot'"),
        (
            {"slice": "depot=north", "window_days": 7},
            "slices are not measured over 7 days. Add 7 to quality.slice_windows",
        ),
    ],
)
def test_a_rule_about_what_is_not_measured_fails_with_the_service(fields, words):
    with pytest.raises(DeclarationError) as refused:
        declared(DegradationRule(metric="brier", above=0.3, **fields))
    assert words in str(refused.value)
    for length in (1, 14):
        declared(DegradationRule(metric="brier", above=0.3, slice="depot=north", window_days=length))


def test_a_rule_about_an_unknown_metric_is_warned_about(tmp_path):
    world = a_world(tmp_path, declared(DegradationRule(metric="brir", above=0.3)))
    assert [line for line in warnings(world) if "'brir' is not measured" in line]


def test_three_of_four_worse_days_break_a_rule_and_the_reason_has_the_numbers():
    served = a_series(0.22, 0.19, 0.22, 0.22)
    found = judged(UP_5, seen(UP_5, served, STEADY))
    assert (found.state, found.tier, found.days_broken, found.days_judged) == ("broken", "moderate", 3, 4)
    assert (found.value, found.compared, found.change) == (0.22, 0.20, 0.1)
    assert found.reason == (
        "brier up 5 % against the fallback on 3 of 4 days: 0.22 on 2013-06-28 (final), the fallback's 0.2; 3 of 4 days"
    )


def test_a_share_of_something_negative_still_points_down_when_it_falls():
    """A KPI that loses money: from -10 to -12 it is down 20 %, not up."""
    rule = DegradationRule(metric="revenue", drops_by_share=0.1, compared_with="fallback", broken_days=1, of_days=1)
    worse = judged(rule, seen(rule, a_series(-12.0), a_series(-10.0)))
    assert (worse.state, worse.change) == ("broken", -0.2)
    assert judged(rule, seen(rule, a_series(-8.0), a_series(-10.0))).state == "ok"


def test_a_rule_at_its_limit_is_not_broken():
    two_of_four = a_series(0.22, 0.19, 0.22, 0.19)
    assert judged(UP_5, seen(UP_5, two_of_four, STEADY)).state == "ok"
    just_there = a_series(0.21, 0.21, 0.21, 0.21)
    assert judged(UP_5, seen(UP_5, just_there, STEADY)).state == "ok"


def test_a_missing_day_is_never_a_good_one():
    """Two broken days and a gap: the gap could have been the third, so nobody may call it fine."""
    served = a_series(0.22, Known(None, n_labelled=3, state="not_measured", reason="3 labels"), 0.22, 0.19)
    found = judged(UP_5, seen(UP_5, served, STEADY))
    assert (found.state, found.tier, found.gap) == ("unknown", "unknown", "labels")
    assert "1 of 4 days not measured (too few labels), 2 beyond the limit" in found.reason
    calm = a_series(0.19, None, 0.19, 0.19)
    assert judged(UP_5, seen(UP_5, calm, STEADY)).state == "ok", "one gap cannot make three broken days"


def test_too_few_labels_are_a_missing_day():
    rule = UP_5.model_copy(update={"min_labels": 1000})
    served = a_series(0.19, 0.19, 0.19, 0.19)
    assert judged(rule, seen(rule, served, STEADY)).state == "unknown"


def test_days_that_were_blocked_ask_for_nobody_again():
    """Their file has its own incident since the day it was missing."""
    served = a_series(None, None, None, 0.19)
    gone = tuple(MATURE - timedelta(days=back) for back in range(3))
    found = judged(UP_5, seen(UP_5, served, STEADY, blocked=gone))
    assert (found.state, found.tier, found.gap) == ("unknown", "stable", "blocked")


def test_before_there_is_anything_to_compare_with_a_rule_is_learning():
    assert judged(UP_5, seen(UP_5, {}, {})).state == "learning"
    assert judged(UP_5, seen(UP_5, a_series(0.9, 0.9, 0.9, 0.9), {})).state == "learning"


def test_windows_in_which_the_prior_answered_say_nothing_about_a_model():
    evidence = seen(TOO_LATE, a_series(1.9))
    prior = {Asked("prior", "all", "positive_share", 1): a_series(0.2, last=MATURE - timedelta(days=13))}
    with_prior = Evidence(DAY, MATURE, {**evidence.series, **prior})
    assert judged(TOO_LATE, evidence).state == "broken"
    assert judged(TOO_LATE, with_prior).state == "learning"


def test_the_same_weekday_is_the_median_of_eight_weeks():
    rule = DegradationRule(metric="auc", drops_by_share=0.1, compared_with="same_weekday", broken_days=1, of_days=1)
    weeks = {MATURE - timedelta(weeks=week): 0.70 + 0.01 * week for week in range(1, 9)}
    past = {day: Known(value, n_labelled=900, completeness=1.0) for day, value in weeks.items()}
    found = judged(rule, seen(rule, {**past, **a_series(0.66)}))
    assert found.compared == pytest.approx(0.745)
    assert found.state == "broken"
    young = dict(list(past.items())[:3])
    assert judged(rule, seen(rule, {**young, **a_series(0.66)})).state == "learning"


def test_a_day_still_coming_in_counts_only_if_half_is_there_and_its_whole_interval_is_beyond():
    rule = UP_5.model_copy(update={"broken_days": 1, "of_days": 1, "min_state": "provisional"})
    day = MATURE + timedelta(days=1)
    control = a_series(0.20, last=day)

    def state(low: float, completeness: float) -> str:
        known = Known(0.25, low, 0.3, 900, completeness, "provisional")
        return judged(rule, seen(rule, {day: known, **STEADY}, {**control, **STEADY})).state

    assert state(low=0.215, completeness=0.6) == "broken"
    assert state(low=0.205, completeness=0.6) == "ok", "its interval reaches into what is allowed"
    assert state(low=0.215, completeness=0.4) == "ok", "then the mature day is judged instead"
    control = {day: Known(0.20, 0.17, 0.23, 900, 0.6, "provisional")}
    assert state(low=0.215, completeness=0.6) == "ok", "nor is the control's value sure"
    assert state(low=0.24, completeness=0.6) == "broken"


def test_a_final_day_is_not_held_against_a_control_whose_labels_are_still_coming():
    rule = UP_5.model_copy(update={"broken_days": 1, "of_days": 1})
    control = {MATURE: Known(0.20, 0.2, 0.2, 900, 0.9, "provisional")}
    assert judged(rule, seen(rule, a_series(0.25), control)).state == "learning"
    assert judged(rule, seen(rule, a_series(0.25), a_series(0.20))).state == "broken"


def test_a_rule_that_leads_to_retraining_asks_for_no_person():
    found = judged(TOO_LATE, seen(TOO_LATE, a_series(1.4)), leads_to=RETRAINING)
    judgement = QualityJudgement(DAY, (found,))
    assert judgement.findings("arrivals") == []
    assert judgement.reasons_to_retrain == [
        "calibration_ratio over 14 days above 1.25: 1.4 on 2013-06-28 (final), the limit 1.25"
    ]


# --- calibration, watched without being asked ------------------------------------------------------

MONITOR = CalibrationMonitor()


def calibrated(gaps: dict[int, float], *, ages: dict[int, Known] | None = None, days: int = 80) -> Evidence:
    """A champion that predicts 20 % on every day; the gaps are counted in days before the mature one.

    Its ordinary days are off by 4 points, upwards and downwards in turn.
    """
    shares, ratios = {}, {}
    for back in range(-1, days):
        observed = 0.2 + gaps.get(back, 0.04 if back % 2 else -0.04)
        day = MATURE - timedelta(days=back)
        if back >= 0 or back in gaps:
            shares[day] = Known(observed, n_labelled=900, completeness=1.0)
            ratios[day] = (ages or {}).get(back, Known(observed / 0.2, n_labelled=900, completeness=1.0))
    return Evidence(DAY, MATURE, {SHARE: shares, RATIO: ratios})


def found(evidence: Evidence, monitor: CalibrationMonitor = MONITOR) -> dict[str, Evaluation]:
    return {e.rule: e for e in watch_calibration(monitor, evidence)}


def test_ordinary_days_say_nothing():
    assert {e.state for e in found(calibrated({})).values()} == {"ok"}


def test_a_day_that_answers_otherwise_is_found_with_its_own_past_as_scale():
    one = found(calibrated({0: 0.2}))["calibration over 1 day"]
    assert (one.state, one.tier) == ("broken", "moderate")
    assert one.scale == pytest.approx(0.04) and one.change == pytest.approx(5.0)
    assert "observed/predicted 2.00 on 2013-06-28: 40.0% positive, 20.0% predicted (z 5.0" in one.reason


def test_a_week_that_is_a_little_off_every_day_is_found_though_no_day_is():
    """Every day is 2.5 times its ordinary error: not one of them is news, seven are."""
    week = found(calibrated(dict.fromkeys(range(7), 0.1)))
    assert week["calibration over 1 day"].state == "ok"
    assert week["calibration over 7 days"].state == "broken"


def test_a_surprising_gap_that_is_small_asks_for_nobody():
    tight = {back: 0.001 * (-1) ** back for back in range(1, 80)}
    assert found(calibrated({**tight, 0: 0.045}))["calibration over 1 day"].state == "ok"


def test_a_day_not_mature_yet_is_told_only_if_its_whole_interval_is_outside():
    def early(low: float, completeness: float) -> Evaluation | None:
        known = Known(2.0, low, 2.5, 900, completeness, "provisional")
        return found(calibrated({-1: 0.2}, ages={-1: known})).get("calibration of a day not mature yet")

    sure, unsure = early(1.6, 0.8), early(1.1, 0.8)
    assert sure and sure.state == "broken" and "(80% of the labels known)" in sure.reason
    assert unsure and unsure.state == "ok"
    assert early(1.6, 0.4) is None


def test_days_that_a_person_called_bad_do_not_widen_what_is_usual():
    """A broken fortnight hides the next fault, until somebody says what it was."""
    fault, broken = {0: 0.2}, dict.fromkeys(range(10, 24), 0.25)
    evidence = calibrated({**broken, **fault})
    assert found(evidence)["calibration over 1 day"].state == "ok"
    bad = Usual(bad=frozenset(MATURE - timedelta(days=back) for back in broken))
    assert found(replace(evidence, usual=bad))["calibration over 1 day"].state == "broken"


def test_a_new_normal_is_learned_from_its_first_day_on():
    evidence = calibrated(dict.fromkeys(range(10), 0.2))
    said = replace(evidence, usual=Usual(since=MATURE - timedelta(days=9)))
    assert found(evidence)["calibration over 7 days"].state == "broken"
    assert found(said)["calibration over 7 days"].state == "learning"


def test_a_weekday_is_not_compared_with_days_that_were_bad():
    rule = DegradationRule(metric="brier", rises_by_share=0.05, compared_with="same_weekday", broken_days=1, of_days=1)
    served = a_series(*(0.2 if back >= 35 else 0.1 for back in range(57)))
    assert judged(rule, seen(rule, served)).compared == pytest.approx(0.15)
    usual = Usual(bad=frozenset(MATURE - timedelta(days=back) for back in range(35, 57)))
    assert judged(rule, replace(seen(rule, served), usual=usual)).compared == pytest.approx(0.1)


def test_labels_that_stop_are_unknown_and_the_matter_of_their_source():
    evidence = calibrated({})
    for series in (SHARE, RATIO):
        del evidence.series[series][MATURE]  # type: ignore[attr-defined]
    judgement = QualityJudgement(DAY, tuple(watch_calibration(MONITOR, evidence)))
    assert {(f.tier, f.cause) for f in judgement.findings("arrivals")} == {("unknown", "arrivals")}


def test_a_young_champion_is_learning():
    assert {e.state for e in found(calibrated({0: 0.3}, days=15)).values()} == {"learning"}


# --- where it sits ----------------------------------------------------------------------------------


def test_the_slices_that_explain_more_than_their_share_are_named():
    parts = [
        SlicePart("origin=LGA", 300, 60.0), SlicePart("origin=EWR", 400, 25.0), SlicePart("origin=JFK", 300, 15.0),
    ]  # fmt: skip
    named = explaining(parts, SlicePart("all", 1000, 100.0))
    assert [(e.slice, e.of_excess, e.of_labels) for e in named] == [("origin=LGA", 0.6, 0.3)]


def test_a_gap_that_is_everywhere_names_no_slice():
    parts = [SlicePart("origin=LGA", 500, 50.0), SlicePart("origin=EWR", 500, 50.0)]
    assert explaining(parts, SlicePart("all", 1000, 100.0)) == []
