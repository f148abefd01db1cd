"""An incident is told once, is told again when it becomes graver or comes back, and is closed by a named person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pandas as pd
import pytest
from pydantic import ValidationError
from toy_world import a_service

from mlops_assets.closing.standing import Standing
from mlops_assets.decisions import Kind
from mlops_assets.errors import UnknownNameError
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.incidents import (
    Event,
    Incident,
    after,
    digest,
    escalations,
    going_on,
    level_check,
    next_events,
    opened,
    raisings,
    with_upstream_causes,
)
from mlops_assets.service.monitoring import IncidentPolicy

MONDAY = date(2013, 6, 3)
ID = "shop-e1-2013-06-03-open_incident-weather"


def day(number: int) -> date:
    """Days counted from the one on which the incident opens."""
    return MONDAY + timedelta(days=number)


def lived(tiers: Sequence[str], *, quiet_after: int = 3, said: Sequence[Event] = ()) -> list[tuple[int, str]]:
    """What happens to an incident day by day: (day, event). ``tiers`` are what its cause shows: "" is nothing, "?"
    a blocked day. The first day opens it."""
    standing = Standing(incidents={"weather": opened(ID, "weather", MONDAY, tiers[0], "wind: high")})
    happened = []
    for number, tier in enumerate(tiers):
        for word in said:
            if word.day == day(number):
                standing.take(word)
        found = [Finding(tier, "weather", "wind: high", 5.0, "wind")] if tier not in ("", "?") else []
        events = list(
            next_events(
                day(number), found, standing.incidents.values(), is_blocked=tier == "?", quiet_after=quiet_after
            )
        )
        events += [event for _, event in escalations(day(number), standing.incidents.values())]
        for event in events:
            standing.take(event)
        if tier != "?":
            standing.count_quiet_day(day(number))
        happened += [(number, event.event) for event in events]
    return happened


def test_a_fault_that_goes_on_is_seen_every_day_and_told_once() -> None:
    happened = lived(["moderate"] * 4)
    assert [event for _, event in happened if event != "seen"] == ["escalated"]
    assert [number for number, event in happened if event == "seen"] == [0, 1, 2, 3]


def test_people_are_told_again_only_when_it_becomes_graver() -> None:
    assert [n for n, event in lived(["moderate", "moderate", "severe", "severe", "moderate"]) if event == "raised"] == [
        2
    ]
    assert [n for n, event in lived(["unknown", "moderate", "unknown"]) if event == "raised"] == [], (
        "both ask for a look"
    )


def test_three_quiet_days_make_it_quiet_and_nothing_closes_it() -> None:
    happened = lived(["moderate", *[""] * 40])
    assert [(n, event) for n, event in happened if event in ("quieted", "closed")] == [(3, "quieted")]


def test_a_blocked_day_proves_nothing_and_is_no_quiet_day() -> None:
    assert [n for n, event in lived(["moderate", "", "?", "?", "", ""]) if event == "quieted"] == [5]


def test_what_comes_back_after_it_was_quiet_is_told_again() -> None:
    """An unconfirmed fault must not hide the next one of the same cause."""
    happened = lived(["moderate", "", "", "", "", "moderate", "moderate"])
    assert [(n, event) for n, event in happened if event in ("quieted", "raised")] == [(3, "quieted"), (5, "raised")]


def test_after_a_day_without_an_answer_the_next_person_is_called_once() -> None:
    assert [n for n, event in lived(["moderate"] * 5) if event == "escalated"] == [1]
    answer = Event(day(1), ID, "acknowledged", "moderate", "", {"by": "Mia"})
    assert [n for n, event in lived(["moderate"] * 5, said=[answer]) if event == "escalated"] == []


def test_graver_again_is_a_new_notice_that_wants_an_answer_of_its_own() -> None:
    answer = Event(day(1), ID, "acknowledged", "moderate", "", {"by": "Mia"})
    assert [
        n for n, event in lived(["moderate", "moderate", "severe", "severe"], said=[answer]) if n and event != "seen"
    ]
    happened = lived(["moderate", "moderate", "severe", "severe"], said=[answer])
    assert [(n, event) for n, event in happened if event != "seen"] == [(2, "raised"), (3, "escalated")]


def test_the_score_moves_because_its_input_did() -> None:
    weather, score = Finding("moderate", "weather", "wind: high"), Finding("severe", "drift:score", "score: high")
    assert [one.cause for one in with_upstream_causes([score, weather], {"weather"})] == ["weather", "weather"]
    assert [one.cause for one in with_upstream_causes([score], {"weather"})] == ["drift:score"]
    noted = Finding("expected", "weather", "3 rows quarantined")
    assert [one.cause for one in with_upstream_causes([score, noted], {"weather"})] == ["drift:score", "weather"]


def test_an_incident_says_what_people_were_told_last() -> None:
    again = after(opened(ID, "weather", MONDAY, "moderate", "wind"), Event(day(9), ID, "raised", "severe", "rain"))
    [(escalation, _)] = escalations(day(10), [again])
    assert escalation.because == f"nobody has acknowledged {ID} since {day(9)}: rain"


SOURCES = {"weather", "departures", "arrivals"}
FOLLOWS = {"departures": ("weather",), "arrivals": ("departures",)}


def causes(*found: Finding, going_on: dict[str, set[str]] | None = None) -> list[str]:
    """Upstream-most causes of findings about sources that follow each other."""
    return [one.cause for one in with_upstream_causes(found, SOURCES, FOLLOWS, going_on or {})]


def test_a_storm_delays_departures_and_then_arrivals_and_is_one_incident() -> None:
    late = Finding("moderate", "arrivals", "late_rate: high", 9.0, "late_rate")
    rain = Finding("moderate", "weather", "rain: high", 5.0, "rain")
    slow = Finding("severe", "departures", "delay: high", 7.0, "delay")
    assert causes(slow, late, rain) == ["weather"] * 3
    assert causes(late, rain) == ["weather"] * 2, "also if the source between them did not move"
    assert causes(slow, late) == ["departures"] * 2
    assert causes(late) == ["arrivals"], "nothing upstream moved: this is where to look"
    noted = Finding("expected", "weather", "rain: high, a planned event", 5.0, "rain")
    assert causes(late, noted) == ["arrivals", "weather"], "what asks nobody causes nothing"


def test_a_consequence_belongs_to_its_incident_as_long_as_that_goes_on() -> None:
    """Rates over a day or a week move on when the storm is over; what never moved with it is another incident."""
    late = Finding("moderate", "arrivals", "late_rate: high", 9.0, "late_rate")
    storm = replace(opened(ID, "weather", MONDAY, "moderate", "rain: high"), children={"rain": "", "late_rate": ""})
    source_of = {"rain": "weather", "late_rate": "arrivals"}
    assert causes(late, going_on=going_on([storm], source_of)) == ["weather"]
    assert causes(late, going_on=going_on([replace(storm, children={"rain": ""})], source_of)) == ["arrivals"]
    assert causes(late, going_on=going_on([replace(storm, state="quiet, unresolved")], source_of)) == ["arrivals"]


def test_a_missing_file_is_no_consequence_of_a_storm() -> None:
    rain = Finding("moderate", "weather", "rain: high", 5.0, "rain")
    assert causes(Finding("moderate", "arrivals", "arrivals missing", 100.0), rain) == ["arrivals", "weather"]


def test_what_follows_what_is_declared_with_names_that_exist_and_a_beginning() -> None:
    with pytest.raises(ValidationError, match="a, b follow each other in a circle"):
        IncidentPolicy(follows={"a": ("b",), "b": ("a",), "c": ("d",)})
    with pytest.raises(UnknownNameError, match="incidents > follows: no source is named 'order'"):
        a_service(incidents=IncidentPolicy(follows={"scans": ("order",)}))
    assert a_service(incidents=IncidentPolicy(follows={"scans": ("orders",)})).incidents.follows


def test_a_new_notice_is_a_decision_that_names_the_incident() -> None:
    incident = opened(ID, "weather", MONDAY, "moderate", "wind: high")
    raised = Event(day(2), ID, "raised", "severe", "wind: a storm", {"before": "moderate"})
    [decision] = raisings([raised], {ID: incident})
    assert (decision.kind, decision.subject) == (Kind.RAISE_INCIDENT, "weather")
    assert decision.because == "now severe, was moderate: wind: a storm"
    assert decision.evidence["incident_id"] == ID


def test_a_freeze_outlives_quiet_days_and_goes_with_the_last_severe_incident() -> None:
    grave = opened(ID, "weather", MONDAY, "severe", "wind: a storm")
    light = opened("other", "orders", MONDAY, "moderate", "orders missing")
    standing = Standing(frozen_since=MONDAY, incidents={"weather": grave, "orders": light})
    standing.take(Event(day(3), ID, "quieted", "severe", ""))
    standing.take(Event(day(4), "other", "closed", "moderate", "", {"by": "Mia", "as": "false_alarm"}))
    assert standing.frozen_since == MONDAY
    standing.take(Event(day(5), ID, "closed", "severe", "", {"by": "Mia", "as": "bad_data"}))
    assert standing.frozen_since is None and not standing.incidents


def test_a_freeze_that_a_person_declared_is_lifted_by_a_person_only() -> None:
    standing = Standing(incidents={"weather": opened(ID, "weather", MONDAY, "severe", "wind")})
    standing.freeze(MONDAY, by_person=True)
    standing.take(Event(day(1), ID, "closed", "severe", "", {"by": "Mia", "as": "bad_data"}))
    assert standing.frozen_since == MONDAY
    standing.unfreeze()
    assert standing.frozen_since is None


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (10.0, "back at the level from before (2 series compared)"),
        (13.0, "quiet, but not back at the level from before: wind mean 13, 10 before"),
    ],
)
def test_quiet_is_not_the_same_as_back(after: float, said: str) -> None:
    """A trailing baseline swallows a permanent fault within weeks; the level from before does not forget."""
    incident = seen(opened(ID, "weather", MONDAY, "moderate", "wind"), "wind")
    assert level_check(winds({n: 10.0 if n < 0 else after for n in range(-28, 24)}), incident, day(23)) == said


def test_a_level_from_long_ago_is_not_compared() -> None:
    incident = seen(opened(ID, "weather", MONDAY, "moderate", "wind"), "wind")
    assert "too long ago" in level_check(winds({n: 10.0 for n in range(-28, 200)}), incident, day(199))


def seen(incident: Incident, column: str) -> Incident:
    """The incident after a day on which the column moved."""
    standing = Standing(incidents={incident.cause: incident})
    event = Event(incident.opened_on, incident.incident_id, "seen", "moderate", "", {"children": {column: "moved"}})
    standing.take(event)
    return standing.incidents[incident.cause]


def winds(means: dict[int, float]) -> pd.DataFrame:
    """The daily series of one column, a little noise on it."""
    noise = {number: 0.1 * (number % 3 - 1) for number in means}
    return pd.DataFrame(
        {
            "day": pd.to_datetime(pd.Series([day(number) for number in means])),
            "subject": "features",
            "column_name": "wind",
            "n": 100.0,
            "nulls": 0.0,
            "total": [100 * (mean + noise[number]) for number, mean in means.items()],
        }
    )


def test_the_weekly_page_says_when_there_is_nothing_to_do() -> None:
    assert digest(day(6), [], None).because == "week to 2013-06-09: 0 open incidents, nothing to do"
    busy = digest(day(6), [opened(ID, "weather", MONDAY, "severe", "wind")], MONDAY)
    said = "1 open incident, 1 not acknowledged, retraining is frozen since 2013-06-03"
    assert busy.because == f"week to 2013-06-09: {said}"
