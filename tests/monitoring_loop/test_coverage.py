"""What nobody watches, promised or explains is listed, thing by thing, with the way to put it right."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from toy_world import a_service, a_world, orders, scans

from mlops_assets import (
    DegradationRule,
    DriftPolicy,
    DriftRule,
    ErrorObjective,
    FreshnessObjective,
    IncidentPolicy,
    LabelDelayObjective,
    LatencyObjective,
    MLService,
    OperationsPolicy,
    QualityPolicy,
    RollbackPolicy,
    SwitchedOff,
)
from mlops_assets.monitoring_loop.coverage import Around, gaps
from mlops_assets.promises import promises
from mlops_assets.service.drifting import KnownEvent

TODAY = date(2024, 4, 1)
COVERED = Around(
    expected_columns={"orders": ["parcel"], "scans": ["parcel", "delay_min"]},
    importance={"weight": 0.05, "last_delay": 0.03, "late_rate_24h": -0.01},
    playbooks=("quality", "operations"),
    needed_playbooks=("quality",),
    today=TODAY,
)


def watched(**operations: object) -> MLService:
    """The parcel service with everything promised and watched."""
    promised = {
        "objectives": (
            LatencyObjective(limit_ms=50),
            ErrorObjective(good_share=0.99),
            FreshnessObjective(good_share=0.9),
            LabelDelayObjective(good_share=0.9, limit_hours=24),
        ),
        "max_cost_per_1000": 1.0,
        "max_model_age_days": 10,
    }
    model = a_service().model
    priced = {
        name: getattr(model, name).model_copy(update={"cost_per_prediction": 0.001})
        for name in ("champion", "fallback")
    }
    return a_service(
        operations=OperationsPolicy(**{**promised, **operations}),
        model=model.model_copy(update=priced),
        quality=QualityPolicy(
            slices={"depot": "depot"},
            degradation=(DegradationRule(metric="brier", above=0.3),),
        ),
        drift=DriftPolicy(critical_features=("weight", "last_delay"), critical_confirmed_by="Mia"),
        sources=(orders(owner="the shop"), scans(owner="the depot")),
        incidents=IncidentPolicy(),
    )


def told(service: MLService, **around: object) -> list[str]:
    return [gap.in_words() for gap in gaps(service, replace(COVERED, **around))]


def test_a_service_that_watches_and_promises_everything_has_no_gap():
    assert told(watched()) == []


def test_a_bare_declaration_is_told_what_it_lacks():
    things = [gap.thing for gap in gaps(a_service(), COVERED)]
    for thing in ("answering time", "failed answers", "cost", "age of the champion", "falling quality"):
        assert thing in things


def test_a_source_and_a_column_without_an_expectation_are_named():
    named = {"orders": [], "scans": ["parcel"]}
    assert told(watched(), expected_columns=named) == [
        "source orders has no contract: write expectations into suite 'orders'",
        "source scans, column delay_min has no contract: features are computed from it",
    ]


def test_an_important_feature_must_be_critical_or_excused_by_name():
    important = {"weight": 0.05, "last_delay": 0.03, "late_rate_72h": 0.02}
    (line,) = told(watched(), importance=important)
    assert line.startswith("feature late_rate_72h, among the top 5 (shuffled, it adds 0.0200 loss), has no declared")
    excuse = SwitchedOff(name="critical:late_rate_72h", by="Mia", reason="storms", until=date(2024, 5, 1))
    assert told(watched(switched_off=(excuse,)), importance=important) == []


def test_a_sixth_feature_need_not_be_critical():
    important = {name: 0.1 for name in ("weight", "last_delay", "a", "b", "c")} | {"late_rate_72h": 0.02}
    assert not any("late_rate_72h" in line for line in told(watched(), importance=important))


def test_without_a_candidate_the_choice_has_no_evidence():
    assert told(watched(), importance={}) == [
        "the choice of critical features has no evidence yet: no candidate was evaluated with importances"
    ]


def test_a_sensor_that_is_off_needs_owner_reason_and_an_expiry_that_has_not_passed():
    excuse = SwitchedOff(name="parcels_alert_sensor", by="Mia", reason="moving", until=TODAY)
    off = ("parcels_alert_sensor",)
    assert told(watched(), switched_off=off) == [
        "parcels_alert_sensor, which is off, has no owner, reason and expiry: declare it in operations.switched_off"
    ]
    assert told(watched(switched_off=(excuse,)), switched_off=off) == []
    late = told(watched(switched_off=(excuse,)), switched_off=off, today=date(2024, 4, 2))
    assert late == ["parcels_alert_sensor, off by Mia until 2024-04-01, has no valid excuse: switch it on, or renew it"]


def test_a_source_says_whom_to_ask():
    service = watched()
    nobody = service.model_copy(update={"sources": (orders(), service.sources[1])})
    assert told(nobody) == ["source orders has no owner: name whom to ask when it breaks in Source.owner"]


def test_critical_features_are_confirmed_by_the_owner_and_by_nobody_else():
    service = watched()
    chosen = service.drift.model_copy(update={"critical_confirmed_by": "Bob"})
    assert told(service.model_copy(update={"drift": chosen})) == [
        "the choice of critical features has no confirmation by the owner: Mia confirms it by name in "
        "drift.critical_confirmed_by"
    ]


def test_a_page_and_a_rollback_that_are_off_need_a_reason_too():
    service = watched()
    silent = {"incidents": IncidentPolicy(digest="never"), "rollback": RollbackPolicy(on=())}
    things = [gap.thing for gap in gaps(service.model_copy(update=silent), COVERED)]
    assert things == ["digest, which is off,", "rollback, which is off,"]


def test_the_calibration_monitor_counts_as_switched_off():
    service = watched()
    silent = service.model_copy(update={"quality": service.quality.model_copy(update={"calibration": None})})
    assert [gap.thing for gap in gaps(silent, COVERED)] == ["calibration, which is off,"]


def test_an_incident_without_a_page_is_told():
    assert told(watched(), needed_playbooks=("quality", "score")) == [
        "incident 'score' has no playbook: write the page score.md"
    ]


def test_an_event_that_goes_on_after_its_expiry_is_listed_and_one_that_is_over_is_not():
    sale = KnownEvent(
        id="sale", kind="sale", start=date(2024, 3, 20), end=TODAY, declared_on=date(2024, 3, 1), owner="Mia",
        reason="spring sale", expiry=date(2024, 3, 25), features=("all",),
    )  # fmt: skip
    over = sale.model_copy(update={"id": "over", "end": date(2024, 3, 31)})
    assert told(watched(), events=(sale, over)) == [
        "known event sale, declared by Mia until 2024-03-25, has no valid expiry: it goes on until 2024-04-01; "
        "renew it, or let it end"
    ]
    assert told(watched(), events=(sale,), today=date(2024, 3, 25)) == []


MUTES = {
    "harm": {"quality": {"harm": None}},
    "training_growth": {"operations": {"max_training_growth": None}},
    "scoring_growth": {"operations": {"max_scoring_growth": None}},
    "retraining": {"model": {"cadence": "never"}},
    "rule:psi": {"drift": {"rules": (DriftRule(measure="psi", threshold=0.2),)}},
    "rule:brier above 0.3": {"quality": {"degradation": (
        DegradationRule(metric="brier", above=0.3, of_days=1, broken_days=1, tier="expected"),
    )}},
}  # fmt: skip


@pytest.mark.parametrize("name", MUTES)
def test_what_records_and_tells_nobody_is_a_mute_and_needs_owner_reason_and_expiry(name: str):
    ((part, changes),) = MUTES[name].items()
    excuse = SwitchedOff(name=name, by="Mia", reason="too noisy", until=TODAY)
    service = watched()
    parts = ("operations", "model", "quality", "drift", "sources", "incidents")
    silent = a_service(**{
        **{name: getattr(service, name) for name in parts},
        part: getattr(service, part).model_copy(update=changes),
    })  # fmt: skip
    assert told(silent) == [
        f"{name}, which is off, has no owner, reason and expiry: declare it in operations.switched_off"
    ]
    excused = silent.operations.model_copy(update={"switched_off": (excuse,)})
    assert told(silent.model_copy(update={"operations": excused})) == []


def test_the_check_prints_what_is_proposed_as_critical_and_who_confirmed_it(tmp_path: Path):
    assert dict(promises(a_world(tmp_path, watched())))["critical features"] == (
        "weight, last_delay; confirmed by Mia; none proposed: no candidate was evaluated yet"
    )
    bare = dict(promises(a_world(tmp_path, a_service())))["critical features"]
    assert bare.startswith("none; confirmed by nobody; ")
