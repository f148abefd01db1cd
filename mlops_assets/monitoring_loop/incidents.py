"""Incidents: opened once per upstream-most cause, raised, quiet, and closed by a named person only.

An incident is never stored: it is what its events add up to. ``next_events`` says which events a judged day adds.
A quiet incident stays open, and so does what hangs on it: a fault that has become the new level would otherwise be
absorbed by the trailing baseline and close itself. When it comes back after it was quiet, people are told again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from mlops_assets.decisions import Decision, Kind
from mlops_assets.monitoring_loop.findings import RANK, Finding
from mlops_assets.monitoring_loop.profiles import SCORE

if TYPE_CHECKING:
    import pandas as pd

LEVEL = {"unknown": 2, "moderate": 2, "severe": 3}
"""What an incident of a tier asks for: 2, a person within a day; 3, a frozen retraining. Other tiers ask nothing."""

ORDER = ("acknowledged", "closed", "opened", "seen", "raised", "quieted", "escalated")
"""Events of one day in the order in which they count: people's words first, then what the day showed."""

Answer = Literal["bad_data", "new_normal", "false_alarm"]


@dataclass(frozen=True)
class Incident:
    """One open question for a person, as of the end of a day.

    Attributes:
        tier: the gravest so far.
        text: what people were told last.
        told_tier: the gravest that people were told of since it was last quiet; "stable" while it is quiet.
        told_on: day of the last notice.
        quiet_days: computed days since it was last seen; blocked days prove nothing and do not count.
        children: columns that moved, and what they said last.
    """

    incident_id: str
    cause: str
    opened_on: date
    tier: str
    text: str
    told_tier: str
    told_on: date
    last_seen: date
    quiet_days: int = 0
    state: Literal["open", "quiet, unresolved", "closed"] = "open"
    children: Mapping[str, str] = field(default_factory=dict)
    level_check: str = ""
    acknowledged_by: str | None = None
    is_escalated: bool = False
    answer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One thing that happened to an incident on a day."""

    day: date
    incident_id: str
    event: str
    tier: str
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def opened(incident_id: str, cause: str, day: date, tier: str, text: str) -> Incident:
    """The incident that a decision opens."""
    return Incident(incident_id, cause, day, tier, text, tier, day, day)


def after(incident: Incident, event: Event) -> Incident:
    """The incident after one of its events."""
    match event.event:
        case "seen":
            graver = event.tier if RANK[event.tier] > RANK[incident.tier] else incident.tier
            children = {**incident.children, **event.evidence.get("children", {})}
            return replace(incident, tier=graver, last_seen=event.day, quiet_days=0, state="open", children=children)
        case "raised":
            told = replace(incident, text=event.text, told_tier=event.tier, told_on=event.day)
            return replace(told, is_escalated=False, acknowledged_by=None)
        case "quieted":
            return replace(incident, state="quiet, unresolved", told_tier="stable", level_check=event.text)
        case "acknowledged":
            return replace(incident, acknowledged_by=event.evidence["by"])
        case "escalated":
            return replace(incident, is_escalated=True)
        case "closed":
            return replace(incident, state="closed", answer=event.evidence)
        case unknown:
            raise ValueError(f"an incident has no event '{unknown}'; it has {', '.join(ORDER)}")


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events in the order in which they count."""
    return sorted(events, key=lambda one: (one.day, ORDER.index(one.event), one.incident_id))


@dataclass(frozen=True)
class Episode:
    """A span in which an incident was open: its first day, the days on which it showed, and, once it was quiet or
    closed, the last one."""

    first: date
    seen: tuple[date, ...]
    last: date | None = None

    def covers(self, day: date) -> bool:
        """Whether the incident was open on a day."""
        return self.first <= day and (self.last is None or day <= self.last)


def episodes(opened_on: date, events: Iterable[tuple[date, str]]) -> list[Episode]:
    """The spans of an incident: one from its opening until it was quiet, and one from each time it was back.

    >>> [one.last for one in episodes(date(2013, 1, 1), [(date(2013, 1, 4), "quieted"), (date(2013, 1, 9), "seen")])]
    [datetime.date(2013, 1, 4), None]
    """
    found = [Episode(opened_on, (opened_on,))]
    for day, event in sorted(events, key=lambda one: (one[0], ORDER.index(one[1]))):
        if event == "seen" and found[-1].last is not None:
            found.append(Episode(day, (day,)))
        elif event == "seen" and day not in found[-1].seen:
            found[-1] = replace(found[-1], seen=(*found[-1].seen, day))
        elif event in ("quieted", "closed") and found[-1].last is None:
            found[-1] = replace(found[-1], last=day)
    return found


def with_upstream_causes(
    findings: Sequence[Finding],
    sources: Collection[str],
    follows: Mapping[str, Sequence[str]] = MappingProxyType({}),
    going_on: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[Finding]:
    """The same findings, each with its upstream-most cause of the day.

    A column that moved belongs to the source that its own one follows, if that moved on the same day too, or if its
    incident goes on and had columns of this source already. The score is computed from everything, so it moves because
    its input did: it belongs to the gravest fault of a source, if any. A consequence is no second incident.

    Args:
        findings: of the day, gravest first.
        sources: names of all sources.
        follows: source -> the sources whose events come before its own.
        going_on: cause of an incident that is open and not quiet -> the sources of the columns that moved with it.
    """
    moved = {one.cause for one in findings if one.tier in LEVEL and one.cause in sources}

    def upstream(cause: str, own: str) -> str:
        for before in follows.get(cause, ()):
            top = upstream(before, own)
            if top in moved or own in going_on.get(top, ()):
                return top
        return cause

    found = [
        replace(one, cause=upstream(one.cause, one.cause)) if one.subject and one.tier in LEVEL else one
        for one in findings
    ]
    source = next((one.cause for one in found if one.cause in sources and one.tier in LEVEL), None)
    own = f"drift:{SCORE}"
    if source is None:
        return found
    return [replace(one, cause=source) if one.cause == own else one for one in found]


def going_on(incidents: Iterable[Incident], source_of: Mapping[str, str]) -> dict[str, set[str]]:
    """Cause of each incident that is open and not quiet -> the sources of the columns that have moved with it."""
    return {
        one.cause: {source_of[column] for column in one.children if column in source_of}
        for one in incidents
        if one.state == "open"
    }


def next_events(
    day: date, findings: Sequence[Finding], incidents: Collection[Incident], *, is_blocked: bool, quiet_after: int
) -> Iterator[Event]:
    """What a judged day adds to the incidents that are open at its end, those opened on it included.

    Args:
        findings: of the day, gravest first, with upstream-most causes.
        incidents: open ones; ``quiet_days`` counts the days before this one.
        quiet_after: computed days without a finding after which an incident is quiet.
    """
    by_cause: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.tier in LEVEL:
            by_cause.setdefault(finding.cause, []).append(finding)
    for incident in sorted(incidents, key=lambda one: one.incident_id):
        grounds = by_cause.get(incident.cause)
        if grounds:
            tier, text = grounds[0].tier, grounds[0].reason
            children = {one.subject: one.reason for one in reversed(grounds) if one.subject}
            yield Event(day, incident.incident_id, "seen", tier, text, {"children": children})
            if LEVEL[tier] > LEVEL.get(incident.told_tier, 0):
                yield Event(day, incident.incident_id, "raised", tier, text, {"before": incident.told_tier})
        elif incident.state == "open" and not is_blocked and incident.quiet_days + 1 >= quiet_after:
            yield Event(day, incident.incident_id, "quieted", incident.tier, "", {"last_seen": str(incident.last_seen)})


def raisings(events: Iterable[Event], incidents: Mapping[str, Incident]) -> Iterator[Decision]:
    """Decisions to tell people again: an incident has become graver, or is back after it was quiet."""
    for event in events:
        if event.event == "raised":
            incident = incidents[event.incident_id]
            before = event.evidence["before"]
            what = f"back after quiet days, {event.tier}" if before == "stable" else f"now {event.tier}, was {before}"
            evidence = {"incident_id": incident.incident_id, "tier": event.tier, "before": before}
            yield Decision(Kind.RAISE_INCIDENT, incident.cause, f"{what}: {event.text}", evidence)


def escalations(day: date, incidents: Collection[Incident]) -> Iterator[tuple[Decision, Event]]:
    """Decisions to call the next person: told of a day ago or longer, and nobody has acknowledged it. Once per notice.

    A day of the service is 24 hours of its own time (23 or 25 when the clocks change), so the clock is the calendar.
    """
    for incident in sorted(incidents, key=lambda one: one.incident_id):
        is_due = incident.told_on + timedelta(days=1) <= day and incident.told_tier in LEVEL
        if is_due and incident.acknowledged_by is None and not incident.is_escalated:
            because = f"nobody has acknowledged {incident.incident_id} since {incident.told_on}: {incident.text}"
            evidence = {"incident_id": incident.incident_id, "tier": incident.told_tier}
            event = Event(day, incident.incident_id, "escalated", incident.told_tier, because)
            yield Decision(Kind.ESCALATE, incident.cause, because, evidence), event


BEFORE_DAYS, NOW_DAYS, LONGEST_DAYS = 28, 3, 120
"""The level of the 28 days before an incident beside that of its three quiet days, if it is not too long ago."""

BACK_SCALES = 3.0
"""A level is back if it is within so many robust standard deviations (1.4826 MAD) of the daily means before."""


def level_check(series: "pd.DataFrame", incident: Incident, day: date) -> str:
    """Whether what moved has come back to where it was before the incident, in words.

    Quiet is not the same: a trailing baseline takes a permanent fault for the new normal within weeks.

    Args:
        series: as ``find_drift`` reads them: ``day``, ``column_name``, ``n``, ``nulls``, ``total``.
        day: the last of the quiet days.
    """
    first = incident.opened_on - timedelta(days=BEFORE_DAYS)
    if first < day - timedelta(days=LONGEST_DAYS):
        return f"not compared: the days before {incident.opened_on} are too long ago"
    days = series["day"].astype("datetime64[s]").dt.date
    away: list[str] = []
    back: list[str] = []
    for column in sorted(incident.children):
        rows = series[series["column_name"] == column]
        shares = {"mean": rows["total"] / (rows["n"] - rows["nulls"]), "null share": rows["nulls"] / rows["n"]}
        for name, values in shares.items():
            before = values[(days >= first) & (days < incident.opened_on)].dropna()
            now = values[(days > day - timedelta(days=NOW_DAYS)) & (days <= day)].dropna()
            if len(before) >= BEFORE_DAYS // 2 and len(now):
                told = f"{column} {name} {now.median():.4g}, {before.median():.4g} before"
                (away if _is_away(before, now, 0.01 if name == "null share" else 0.0) else back).append(told)
    if away:
        return "quiet, but not back at the level from before: " + "; ".join(away)
    return f"back at the level from before ({len(back)} series compared)" if back else "not compared: no daily series"


def _is_away(before: "pd.Series[float]", now: "pd.Series[float]", least: float) -> bool:
    """Whether two medians differ by more than the days before differed among themselves, and by enough."""
    center = float(before.median())
    scale = 1.4826 * float((before - center).abs().median())
    return abs(float(now.median()) - center) > max(BACK_SCALES * scale, 0.01 * abs(center), least)


def digest(day: date, incidents: Collection[Incident], frozen_since: date | None) -> Decision:
    """The decision to send the week's page: one sentence that says whether there is anything to do."""
    waiting = [one.incident_id for one in incidents if one.acknowledged_by is None]
    parts = [f"{len(incidents)} open incident{'s' * (len(incidents) != 1)}"]
    if waiting:
        parts.append(f"{len(waiting)} not acknowledged")
    if frozen_since:
        parts.append(f"retraining is frozen since {frozen_since}")
    if not incidents and not frozen_since:
        parts.append("nothing to do")
    evidence = {"open": sorted(one.incident_id for one in incidents), "waiting": sorted(waiting)}
    return Decision(Kind.DIGEST, "owner", f"week to {day}: {', '.join(parts)}", evidence)
