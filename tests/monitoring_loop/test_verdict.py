"""One day, one verdict; and what follows from it."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from mlops_assets import ModelPolicy, ModelTier
from mlops_assets.decisions import Kind
from mlops_assets.monitoring_loop.actions import decide, is_cadence_day, reasons_to_retrain
from mlops_assets.monitoring_loop.drift import drift_frame
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.verdict import Verdict, judge_day

DAY = date(2013, 6, 30)


def findings(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """Drift rows of DAY: (column, tier, z)."""
    return drift_frame(
        [
            (
                DAY,
                "features",
                "all",
                column,
                "mean",
                "trailing",
                float("nan") if tier == "unknown" or column == "rows" else 1.0,
                0.0,
                1.0,
                z,
                1.0,
                None,
                tier,
                f"{column} moved",
            )
            for column, tier, z in rows
        ]
    )


def a_verdict(*rows: tuple[str, str, float], **states: tuple[str, str]) -> Verdict:
    return judge_day(DAY, findings(*rows), states, False)


def decided(verdict: Verdict, *, is_frozen: bool = False, open_causes: tuple[str, ...] = (), due: bool = False):
    return [
        (decision.kind, decision.subject)
        for decision in decide(
            DAY,
            verdict,
            verdict.findings,
            is_frozen=is_frozen,
            open_causes=open_causes,
            reasons_to_retrain=["cadence: monthly"] if due else [],
        )
    ]


@pytest.mark.parametrize(
    ("tier", "word"),
    [
        ("stable", "quiet"),
        ("expected", "note"),
        ("moderate", "investigate"),
        ("unknown", "investigate"),
        ("severe", "break glass"),
    ],
)
def test_the_verdict_is_the_highest_tier_of_the_day(tier, word):
    verdict = a_verdict(("a", "stable", 1.0), ("b", tier, 4.0), ("c", "stable", 0.0))
    assert (verdict.verdict, verdict.tier, verdict.state) == (word, tier, "computed")


def test_a_reason_names_the_gravest_findings_and_counts_the_rest():
    verdict = a_verdict(
        ("a", "moderate", 4.0),
        ("b", "severe", 9.0),
        ("c", "moderate", 5.0),
        ("d", "moderate", 3.6),
        ("e", "moderate", 3.5),
    )
    assert verdict.reason == "b moved; c moved; a moved; and 2 more"


def test_a_missing_file_asks_for_a_look_and_names_source_and_day():
    verdict = a_verdict(weather=("missing", "features go stale"))
    assert verdict.verdict == "investigate"
    assert verdict.reason == "weather missing on 2013-06-30: features go stale"
    assert decided(verdict) == [(Kind.OPEN_INCIDENT, "weather")]


def test_quarantined_rows_are_a_note():
    verdict = a_verdict(weather=("quarantined", "12 rows"), planes=("accepted", ""))
    assert verdict.verdict == "note"
    assert verdict.reason == "weather quarantined on 2013-06-30: 12 rows"
    assert decided(verdict) == []


def test_a_blocked_day_is_unknown_and_one_incident_whatever_drift_says():
    drift = findings(("a", "unknown", 0.0), ("b", "unknown", 0.0))
    verdict = judge_day(DAY, drift, {"schedule": ("missing", "")}, True)
    assert (verdict.verdict, verdict.tier, verdict.state) == ("investigate", "unknown", "blocked")
    assert decided(verdict) == [(Kind.OPEN_INCIDENT, "schedule")]


def test_a_day_without_rows_is_one_incident_and_not_one_per_column():
    verdict = a_verdict(("a", "unknown", 0.0), ("b", "unknown", 0.0), ("rows", "unknown", 0.0))
    assert decided(verdict) == [(Kind.OPEN_INCIDENT, "drift:rows")]
    assert a_verdict(("a", "unknown", 0.0), ("rows", "expected", 0.0)).verdict == "note", "a declared holiday"


def test_columns_of_one_source_share_its_incident():
    drift = findings(("wind", "moderate", 4.0), ("rain", "moderate", 5.0), ("score", "moderate", 4.0))
    verdict = judge_day(DAY, drift, {}, False, source_of={"wind": "weather", "rain": "weather"})
    assert decided(verdict) == [(Kind.OPEN_INCIDENT, "weather"), (Kind.OPEN_INCIDENT, "drift:score")]


def test_a_severe_finding_freezes_once_and_holds_the_retraining_back():
    verdict = a_verdict(("delay", "severe", 9.0))
    assert decided(verdict, due=True) == [
        (Kind.FREEZE, "retraining"),
        (Kind.OPEN_INCIDENT, "drift:delay"),
        (Kind.HOLD_RETRAINING, "retraining"),
    ]
    assert decided(verdict, is_frozen=True, open_causes=("drift:delay",)) == []


def test_an_incident_is_not_opened_again_while_it_is_open():
    verdict = a_verdict(("delay", "moderate", 4.0), ("wind", "moderate", 4.0))
    assert decided(verdict, open_causes=("drift:delay",)) == [(Kind.OPEN_INCIDENT, "drift:wind")]


def test_a_quiet_day_retrains_when_it_is_due_unless_frozen():
    quiet = a_verdict(("delay", "stable", 1.0))
    assert decided(quiet) == []
    assert decided(quiet, due=True) == [(Kind.RETRAIN, "retraining")]
    assert decided(quiet, due=True, is_frozen=True) == [(Kind.HOLD_RETRAINING, "retraining")]


def due(day: date, *broken: str, trained: date | None = None, held: date | None = None, frozen: bool = False):
    model = ModelPolicy(
        champion=ModelTier(factory="a:b"), fallback=ModelTier(factory="a:b"), prior=0.2,
        cadence="monthly", first_training=date(2013, 1, 31), cool_down_days=14,
    )  # fmt: skip
    return reasons_to_retrain(model, day, broken, last_training=trained, last_hold=held, is_frozen=frozen)


def test_performance_retrains_beside_the_cadence_and_says_so():
    assert due(date(2013, 4, 24), "ratio 1.3") == ["performance: ratio 1.3"]
    assert due(date(2013, 4, 30), "ratio 1.3") == ["cadence: monthly, due on 2013-04-30", "performance: ratio 1.3"]
    assert due(date(2013, 4, 24)) == []


def test_performance_stays_silent_while_it_is_still_the_old_versions():
    trained = date(2013, 4, 24)
    assert due(date(2013, 5, 8), "ratio 1.3", trained=trained) == []
    assert due(date(2013, 5, 9), "ratio 1.3", trained=trained) == ["performance: ratio 1.3"]
    assert due(date(2013, 4, 30), trained=trained) == ["cadence: monthly, due on 2013-04-30"], "the cadence goes on"


def test_while_frozen_a_held_back_retraining_is_said_once_in_a_cool_down():
    held = date(2013, 4, 24)
    assert due(date(2013, 4, 25), "ratio 1.3", held=held, frozen=True) == []
    assert due(date(2013, 5, 9), "ratio 1.3", held=held, frozen=True) == ["performance: ratio 1.3"]
    assert due(date(2013, 4, 25), "ratio 1.3", held=held) == ["performance: ratio 1.3"], "nothing holds it back now"


def test_nothing_trains_before_the_first_training():
    assert due(date(2012, 12, 31), "ratio 1.3") == []


def test_what_quality_found_is_an_incident_named_before_shifts_of_the_same_tier():
    drift = findings(("wind", "moderate", 40.0))
    quality = [Finding("moderate", "quality:calibration", "observed/predicted 1.9", 203.0)]
    verdict = judge_day(DAY, drift, {}, False, quality=quality)
    assert verdict.reason == "observed/predicted 1.9; wind moved"
    assert decided(verdict)[0] == (Kind.OPEN_INCIDENT, "quality:calibration")


def test_cadence_days():
    assert is_cadence_day(date(2013, 2, 28), "monthly")
    assert not is_cadence_day(date(2012, 2, 28), "monthly")
    assert is_cadence_day(date(2013, 6, 30), "weekly")
    assert not is_cadence_day(date(2013, 6, 30), "never")
