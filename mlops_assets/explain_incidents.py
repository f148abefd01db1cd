"""Which incidents a request was part of: the ones that were open while something of it happened, if they are about it.

An incident is about a request if what moved is something that the request has: a feature of its version, a source
that these features or its label read, a score, its label events, a slice; and if a model version is named, it is one
that answered. When it matters depends on what moved: the
day on which the request was logged, the days on which its labels became known, the day on which they were missing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.adapters.people_sql import ask
from mlops_assets.closing.feedback import LOG_EVENTS
from mlops_assets.closing.world import World
from mlops_assets.feedback_loop.maturity import ARRIVAL
from mlops_assets.monitoring_loop.drift import ROWS
from mlops_assets.monitoring_loop.incidents import Episode, episodes
from mlops_assets.monitoring_loop.operations import OPERATIONS
from mlops_assets.monitoring_loop.profiles import LABEL, SCORE
from mlops_assets.monitoring_loop.rules import quality_cause
from mlops_assets.service.features import FeatureSet, RequestView

Story = dict[str, Any]
OF_LABELS = frozenset({LABEL, "delay_hours", "per_kpi", "unattributed", "several_candidates"})
"""Columns of drift that are about the label events of a day."""


@dataclass(frozen=True)
class Concerned:
    """What of a request an incident can be about."""

    logged_on: date
    predicted_at: datetime
    prediction_day: date
    labelled_on: tuple[date, ...]
    has_score: bool
    versions: frozenset[str]
    slices: tuple[str, ...]
    features: FeatureSet


def incidents_of(world: World, request: Concerned) -> list[Story]:
    """The incidents that a request was part of, by the day on which they concern it."""
    found = [*_of_days(world, request), *_of_rules(world, request)]
    return sorted(found, key=lambda one: (one["day"], one["incident_id"]))


def _of_days(world: World, request: Concerned) -> Iterator[Story]:
    """Incidents that were open on a day that matters for them, with the days of that span on which they showed."""
    told: dict[str, list[Mapping[str, Any]]] = {}
    versions = {row["model_version"] for row in world.releases()}
    for row in world.ledger.effective("incident_events", world.name):
        told.setdefault(row["incident_id"], []).append(row)
    for incident in sorted(world.ledger.effective("incidents", world.name), key=lambda row: row["incident_id"]):
        events = told.get(incident["incident_id"], [])
        days = days_that_matter(world, request, incident["cause"])
        for episode in episodes(incident["day"], [(row["day"], row["event"]) for row in events]):
            on = next((day for day in days if episode.covers(day)), None)
            if on is None:
                continue
            story = _told(incident, events, episode, on, request.slices)
            named = {version for version in versions if version in story["text"]}
            if not named or named & request.versions:
                yield story


def _told(
    incident: Mapping[str, Any], events: Sequence[Mapping[str, Any]], episode: Episode, on: date, slices: Sequence[str]
) -> Story:
    """One incident as the request met it; the words are the newest of its span that were said by then."""
    said = [row["text"] for row in events if row["event"] == "seen" and episode.first <= row["day"] <= on]
    text = str(said[-1] if said else incident["text"])
    if on == episode.first:
        why = "opened that day" if on == incident["day"] else "back that day, after it was quiet"
    else:
        why = "seen again that day" if on in episode.seen else "open that day"
    named = [part for part in slices if re.search(rf"\b{re.escape(part)} \(", text)]
    return {
        "incident_id": incident["incident_id"], "cause": incident["cause"], "tier": incident["tier"], "text": text,
        "day": on.isoformat(), "why": why, "shown_on": [day.isoformat() for day in episode.seen],
        "open_until": episode.last.isoformat() if episode.last else None, "in_slices": named,
    }  # fmt: skip


def days_that_matter(world: World, request: Concerned, cause: str) -> tuple[date, ...]:
    """The days on which an incident of this cause is about the request; none if it is about something else.

    Incidents of rules over quality have windows and are looked up by these.
    """
    kind, _, column = cause.partition(":")
    if kind == "quality":
        return ()
    if kind == OPERATIONS and column == "labels":
        return (world.calendar.day_of(request.predicted_at + world.service.label.window),)
    if kind == "drift" and column in OF_LABELS:
        return request.labelled_on
    if kind == "drift" and column.startswith(ARRIVAL):
        return (request.prediction_day + timedelta(days=int(column.removeprefix(ARRIVAL))),)
    if kind == "drift" and column not in (ROWS, *LOG_EVENTS):
        is_ours = request.has_score if column == SCORE else column in request.features.names
        return (request.logged_on,) if is_ours else ()
    if column == "" and kind in {source.name for source in world.service.sources}:
        days = (request.logged_on,) if kind in _read_by(world, request.features) else ()
        return days or (request.labelled_on if kind in {one.source for one in world.service.labels} else ())
    return (request.logged_on,)


def _read_by(world: World, features: FeatureSet) -> set[str]:
    """The sources behind an answer: of its request, its features, or its log."""
    read = {view.source for view in features.views if not isinstance(view, RequestView)}
    log = world.service.prediction_log
    return read | ({log.source} if log else set()) | ({features.request.source} if features.request else set())


def _of_rules(world: World, request: Concerned) -> list[Story]:
    """Incidents of rules that broke over a window which the request's prediction day lies in; each one once."""
    found: dict[str, Story] = {}
    opened = sorted(world.ledger.effective("incidents", world.name), key=lambda row: row["day"])
    query = broken_rules_sql(world.name, request.prediction_day, request.slices)
    for broken in ask([world.service], world.home, query).objects():
        cause = quality_cause(broken["metric"], broken["slice"])
        of_rule = [row for row in opened if row["cause"] == cause and row["day"] <= date.fromisoformat(broken["day"])]
        if of_rule:
            story = found.setdefault(of_rule[-1]["incident_id"], {
                "incident_id": of_rule[-1]["incident_id"], "cause": cause, "tier": broken["tier"],
                "text": broken["reason"], "day": broken["day"], "why": "it lies in the window of a rule that broke",
                "shown_on": [], "open_until": None, "in_slices": [],
            })  # fmt: skip
            story["shown_on"] = sorted({*story["shown_on"], broken["day"]})
    return list(found.values())


def broken_rules_sql(service: str, day: date, slices: Sequence[str]) -> str:
    """SQL of the rules that broke, and asked for a person, over windows that hold a prediction day."""
    return f"""
        select day, rule, metric, slice, tier, reason from {quote(service)}.rules
        where state = 'broken' and leads_to = 'incident' and slice in ({", ".join(map(literal, slices))})
          and {literal(day)} between prediction_day - (window_days + of_days - 2)::integer and prediction_day
        order by day, rule
    """


def incident_lines(incidents: Sequence[Story]) -> Iterator[str]:
    """The incidents for people, line by line."""
    for row in incidents:
        yield f"  {row['incident_id']} ({row['tier']}, {row['why']}, {row['day']}): {row['text']}"
        shown = spans([date.fromisoformat(day) for day in row["shown_on"]])
        where = f"; this request lies in {', '.join(row['in_slices'])}" if row["in_slices"] else ""
        if len(row["shown_on"]) > 1 or row["shown_on"] != [row["day"]] or where:
            yield f"    showed on {shown}{where}"
    if not incidents:
        yield "  none"


def spans(days: Sequence[date]) -> str:
    """Days as few words.

    >>> spans([date(2013, 1, 13), date(2013, 1, 15), date(2013, 1, 16), date(2013, 1, 17)])
    '2013-01-13, 2013-01-15 to 2013-01-17'
    """
    runs: list[list[date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
