"""Known events: a holiday explains its own empty planes, and no broken sensor."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mlops_assets.errors import DeclarationError
from mlops_assets.monitoring_loop.drift import drift_frame, size_gates
from mlops_assets.monitoring_loop.events import Asked, closed_days, days_of_earlier, explain, known_events
from mlops_assets.service.drifting import KnownEvent
from mlops_assets.service.monitoring import DriftPolicy

ALL_EVENTS = Path(__file__).parents[2] / "benchmarks" / "data" / "flights_events.yaml"
THURSDAY = date(2013, 11, 28)
GATES = size_gates(DriftPolicy())


def a_holiday(**changes: object) -> KnownEvent:
    declared: dict[str, object] = {
        "id": "thanksgiving", "kind": "holiday", "start": THURSDAY, "end": THURSDAY + timedelta(days=1),
        "declared_on": date(2013, 1, 1), "owner": "ana@example.com", "reason": "Thanksgiving",
        "expiry": THURSDAY + timedelta(days=1), "features": ("rows", "flights"), "direction": "down",
        "max_size": {"volume": 0.6},
    }  # fmt: skip
    return KnownEvent.model_validate(declared | changes)


def found(
    column: str, statistic: str, tier: str, *, size: float = 0.5, value: float = 0.5, day: date = THURSDAY
) -> tuple[object, ...]:
    return (
        day, "features", "all", column, statistic, "trailing", value, 1.0, 0.1, 5.0, size, None, tier, f"{column} moved"
    )  # fmt: skip


def explained(*rows: tuple[object, ...], events: list[KnownEvent], earlier: pd.DataFrame | None = None) -> pd.DataFrame:
    nothing = drift_frame([])
    return explain(drift_frame(list(rows)), events, GATES, earlier=nothing if earlier is None else earlier)  # type: ignore[arg-type]


def test_a_holiday_explains_its_empty_planes_but_not_a_broken_sensor():
    rows = explained(
        found("rows", "volume", "moderate"),
        found("flights", "null_share", "severe"),
        found("flights", "constant", "severe"),
        found("rain", "mean", "moderate"),
        events=[a_holiday()],
    )
    assert list(rows["tier"]) == ["expected", "severe", "severe", "moderate"]
    assert rows["event"][0] == "thanksgiving"
    assert rows["event"][1:].isna().all()
    assert rows["reason"][0] == "rows moved; expected: Thanksgiving"


def test_more_than_it_may_explain_or_the_other_way_keeps_its_tier():
    larger = found("rows", "volume", "moderate", size=0.8, value=0.2)
    upwards = found("rows", "volume", "moderate", value=1.5)
    rows = explained(larger, upwards, events=[a_holiday()])
    assert list(rows["tier"]) == ["moderate", "moderate"]
    assert rows["event"][0] == "thanksgiving" and "explains up to 0.6" in rows["reason"][0]
    assert pd.isna(rows["event"][1])


def test_only_a_text_or_a_range_that_was_announced_is_expected_and_its_rest_is_judged():
    """A fifth of the rows is new, of which an event has announced some: what is left decides."""
    opening = a_holiday(features=("airline",), new_categories={"airline": ("XP",)}, direction="down")
    new = found("airline", "new_category", "severe", value=0.2)
    tiers = {}
    for share in (0.195, 0.18, 0.1, 0.0):
        asked = {Asked(THURSDAY, "airline", "new_category", "thanksgiving"): share}
        rows = explain(
            drift_frame([new]).assign(expected=0.0), [opening], GATES, earlier=drift_frame([]), announced=asked
        )  # type: ignore[list-item]
        tiers[share] = rows["tier"][0]
    assert tiers == {0.195: "expected", 0.18: "moderate", 0.1: "severe", 0.0: "severe"}
    others = [found("airline", statistic, "severe") for statistic in ("null_share", "constant", "out_of_range")]
    asked = {Asked(THURSDAY, "airline", statistic, "thanksgiving"): 1.0 for statistic in ("null_share", "out_of_range")}
    rows = explain(drift_frame(others), [opening], GATES, earlier=drift_frame([]), announced=asked)  # type: ignore[arg-type]
    assert list(rows["tier"]) == ["severe"] * 3


def test_a_mean_that_moves_alone_may_be_as_large_as_a_mean_and_nulls_alone_are_never_explained():
    """On a holiday fewer flights leave in an hour, and what usually moves with that does not."""
    rows = explained(
        found("flights", "mean_alone", "moderate", size=0.8),
        found("flights", "null_alone", "moderate", size=0.8),
        events=[a_holiday(max_size={"mean": 1.0})],
    )
    assert list(rows["tier"]) == ["expected", "moderate"]
    smaller = explained(
        found("flights", "mean_alone", "moderate", size=0.8), events=[a_holiday(max_size={"mean": 0.5})]
    )
    assert list(smaller["tier"]) == ["moderate"]


def test_only_what_was_declared_before_it_began_is_known():
    """In hindsight an event names who explains it, and changes no tier; before it was declared it did not exist."""
    late = a_holiday(declared_on=THURSDAY + timedelta(days=1), declared_by="Ana Rivera")
    first = found("rows", "volume", "moderate")
    second = found("rows", "volume", "moderate", day=THURSDAY + timedelta(days=1))
    rows = explained(first, second, events=[late])
    assert list(rows["tier"]) == ["moderate", "moderate"]
    assert pd.isna(rows["event"][0]) and rows["event"][1] == "thanksgiving (in hindsight)"
    assert "in hindsight by Ana Rivera" in rows["reason"][1]


def test_the_envelope_grows_with_what_earlier_holidays_did():
    july = a_holiday(id="july", start=date(2013, 7, 4), end=date(2013, 7, 4), expiry=date(2013, 7, 4))
    events = [july, a_holiday(max_size={})]
    shift = found("rows", "volume", "moderate", size=0.5)
    before = drift_frame([found("rows", "volume", "expected", size=0.4, day=date(2013, 7, 4))])  # type: ignore[list-item]
    assert list(explained(shift, events=events)["tier"]) == ["moderate"], "three times the gate is 0.3"
    assert list(explained(shift, events=events, earlier=before)["tier"]) == ["expected"], "0.4 times 1.5"
    assert date(2013, 7, 4) in days_of_earlier(events, [THURSDAY])


def test_an_expired_declaration_explains_nothing():
    event = a_holiday(expiry=THURSDAY)
    second = found("rows", "volume", "moderate", day=THURSDAY + timedelta(days=1))
    assert list(explained(second, events=[event])["tier"]) == ["moderate"]


def test_a_non_business_day_may_be_empty():
    shut = a_holiday(no_rows=True, end=THURSDAY)
    assert closed_days([shut], [THURSDAY, THURSDAY + timedelta(days=1)]) == {THURSDAY}


GOOD = """
events:
  - id: may_day
    kind: holiday
    start: 2013-05-01
    end: 2013-05-01
    declared_on: 2013-01-01
    owner: mia@example.com
    reason: May Day
    expiry: 2013-05-01
    features: [rows]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("    owner", "    kind: sale\n    owner"), "events.yaml, line 8: 'kind' stands there twice"),
        (GOOD.replace("[rows]", "&all [rows]"), "anchors and aliases are not allowed"),
        (GOOD + "    muted: true\n", "events.yaml > may_day > muted: Extra inputs are not permitted"),
        (GOOD.replace("end: 2013-05-01", "end: 2013-04-01"), "end 2013-04-01 lies before start"),
        (GOOD.replace("declared_on: 2013-01-01", "declared_on: 2013-05-02"), "name who explains it in declared_by"),
        (GOOD.replace("events:", "happenings:"), "the one field 'events'"),
        (GOOD + GOOD.replace("\nevents:\n", ""), "['may_day'] stand there twice"),
        (GOOD + "    ranges: {weight: [0, 9]}\n", "announces something about 'weight'; name it in features too"),
        (GOOD + "    ranges: {rows: [9, 0]}\n", "the range of 'rows' begins at 9 and ends at 0"),
        (GOOD + "    max_size: {null_share: 0.5}\n", "events.yaml > may_day > max_size.null_share"),
    ],
)
def test_a_file_that_says_something_twice_or_something_unknown_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "events.yaml"
    path.write_text(text)
    with pytest.raises(DeclarationError) as refused:
        known_events(DriftPolicy(known_events=str(path)))
    assert message in str(refused.value)


def test_a_file_is_read_in_order_of_its_days(tmp_path: Path):
    path = tmp_path / "events.yaml"
    path.write_text(GOOD)
    [event] = known_events(DriftPolicy(known_events=str(path)))
    assert (event.id, event.is_known_before, event.slices) == ("may_day", True, ("all",))
    with pytest.raises(DeclarationError, match="there is no such file"):
        known_events(DriftPolicy(known_events=str(tmp_path / "none.yaml")))


def test_the_flights_declare_the_calendar_and_no_storm():
    from mlops_assets.examples.flight_delays.service import flight_delays

    events = known_events(flight_delays.drift)
    assert len(events) >= 10
    assert {event.kind for event in events} <= {"holiday", "holiday_travel"}
    assert all(event.is_known_before and "rain_inches_6h" not in event.features for event in events)


def test_what_the_flights_declare_is_what_was_certain_and_planned_and_nothing_else():
    """The rest of the list (storms, furlough, feed gaps) is ground truth for scripts, and no monitor reads it."""
    from mlops_assets.examples.flight_delays.service import flight_delays

    told = yaml.safe_load(ALL_EVENTS.read_text())["events"]
    planned = {
        (event["id"], event["start"], event["end"])
        for event in told
        if (event["certainty"], event["expect"]) == ("high", "suppress")
    }
    declared = known_events(flight_delays.drift)
    assert {(event.id, event.start, event.end) for event in declared} == planned and len(planned) == 12
    assert all(event.declared_on < event.start and event.owner and event.features for event in declared)
    assert all(event.direction and event.max_size for event in declared)


def test_an_event_is_about_the_day_that_was_answered_and_not_about_the_day_the_log_came():
    """The log of Thursday comes on Saturday; labels come when they come."""
    saturday, lag = THURSDAY + timedelta(days=2), 2
    of_log = found("rows", "volume", "moderate", day=saturday)
    of_labels = (saturday, "labels", *of_log[2:])
    on_thursday = found("rows", "volume", "moderate")
    event = a_holiday(end=THURSDAY)
    rows = explain(drift_frame([of_log, of_labels, on_thursday]), [event], GATES, earlier=drift_frame([]), lag_days=lag)  # type: ignore[arg-type]
    assert list(rows["tier"]) == ["expected", "moderate", "moderate"]
    shut = a_holiday(end=THURSDAY, no_rows=True)
    assert closed_days([shut], [THURSDAY, saturday], lag_days=lag) == {saturday}
