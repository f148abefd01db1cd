"""What the wall clock asks for, whether or not a day closes: nobody came, a day does not close, a run failed.

Sensors write these decisions; a closing never does, so their evidence says ``by``. An escalation has the id that the
closing of the first unclosed day would give it, and is therefore carried out once, whoever decides it first.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta

from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.standing import Standing, events_of_inputs, first_closable, inputs, standing_before
from mlops_assets.closing.world import World
from mlops_assets.decisions import Decision, Kind, decision_row
from mlops_assets.monitoring_loop.incidents import escalations

WITHIN = timedelta(hours=24)
"""A person looks at an incident within this time."""
LATE = timedelta(days=2)
"""What was due earlier than this is history."""
CLOCK = "clock"


def overdue(world: World) -> list[Row]:
    """Decisions that are due by the wall clock and not taken yet; written down before they are returned.

    The demo's time stands still while no day closes, so nothing of it is ever overdue.
    """
    if world.service.clock == "demo":
        return []
    known = {row["decision_id"] for row in world.ledger.effective("decisions", world.name)}
    day, epoch = world.first_unclosed(), world.ledger.epoch(world.name)
    rows = [decision_row(world.name, day, epoch, one) for one in [*_unattended(world), *_stalled(world)]]
    new = [row for row in rows if row["decision_id"] not in known]
    _write(world, new)
    return new


def _write(world: World, rows: list[Row]) -> None:
    if rows:
        with world.ledger.transaction() as transaction:
            world.ledger.append(transaction, "decisions", rows)


def _is_due(world: World, at: datetime) -> bool:
    return at <= world.now() < at + LATE


def _unattended(world: World) -> Iterator[Decision]:
    """Escalations of incidents that people were told of 24 hours ago, while the next day has not closed."""
    day = world.first_unclosed()
    standing = _heard(world)
    told_at = _told_at(world)
    for decision, event in escalations(day, standing.incidents.values()):
        incident = standing.by_id[event.incident_id]
        told = told_at.get((incident.incident_id, incident.told_on), world.calendar.end_of(incident.told_on))
        if _is_due(world, max(told + WITHIN, world.calendar.end_of(day))):
            yield replace(decision, evidence={**decision.evidence, "by": CLOCK})


def _heard(world: World) -> Standing:
    """How the service stands, with what people have said since the last closing."""
    day = world.first_unclosed()
    standing = standing_before(world, day)
    for event in events_of_inputs(standing, [row for row in inputs(world) if row["effective_day"] >= day]):
        standing.take(event)
    return standing


def _told_at(world: World) -> dict[tuple[str, date], datetime]:
    """(incident, day of the notice) -> when the notice was delivered."""
    done = {row["decision_id"]: row["acted_at"] for row in world.ledger.effective("actions", world.name)
            if row["state"] == "done"}  # fmt: skip
    return {
        (row["evidence"].get("incident_id", row["decision_id"]), row["day"]): done[row["decision_id"]]
        for row in world.ledger.effective("decisions", world.name)
        if row["kind"] in (Kind.OPEN_INCIDENT, Kind.RAISE_INCIDENT) and row["decision_id"] in done
    }


def _stalled(world: World) -> Iterator[Decision]:
    """The first unclosed day could have closed long ago, and nothing has closed it."""
    service, day = world.service, world.first_unclosed()
    if service.last_day is not None and day > service.last_day:
        return
    could = world.calendar.end_of(day) + timedelta(hours=service.close_after_hours)
    if _is_due(world, could + timedelta(hours=service.incidents.late_closing_hours)):
        because = f"{day} could have closed at {could} UTC and has not: {first_closable(world).reason}"
        yield Decision(Kind.STALLED, "closing", because, {"by": CLOCK, "could": could.isoformat()})


def failed_run(world: World, run_id: str, text: str) -> Row:
    """The decision to tell people that a run failed, written down once per run; of the day that was over by then."""
    for row in world.ledger.effective("decisions", world.name):
        if row["evidence"].get("run_id") == run_id:
            return row
    day = world.calendar.day_of(world.now()) - timedelta(days=1)
    decision = Decision(Kind.FAILED_RUN, run_id[:8], text, {"by": "failed-run sensor", "run_id": run_id})
    row = decision_row(world.name, day, world.ledger.epoch(world.name), decision)
    _write(world, [row])
    return row
