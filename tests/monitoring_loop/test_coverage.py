"""What nobody watches, promised or explains is listed, thing by thing, with the way to put it right."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from toy_world import a_service, orders, scans

from mlops_assets import (
    DegradationRule,
    DriftPolicy,
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
