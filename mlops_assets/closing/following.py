"""Third step, following incidents: what people said about them for a day, and what the judged day does to them."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date

import pandas as pd

from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.standing import Standing, apply_input, events_of_inputs
from mlops_assets.closing.world import World
from mlops_assets.decisions import Decision, Kind
from mlops_assets.monitoring_loop.actions import RETRAINING
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.incidents import Event, digest, escalations, level_check, next_events, raisings


def listen(standing: Standing, said: Sequence[Row]) -> list[Event]:
    """Take in what people said for a day; returns what it means for incidents."""
    for row in said:
        apply_input(standing, row)
    events = events_of_inputs(standing, said)
    for event in events:
        standing.take(event)
    return events


def unfreezing(day: date, frozen_since: date | None, standing: Standing, said: Sequence[Row]) -> list[Decision]:
    """The lifting of a freeze, if what people said for a day ended the one that held when it began."""
    if frozen_since is None or standing.frozen_since is not None:
        return []
    words = [f"{row['by']}: {row['reason'] or row['kind']}" for row in said if row["kind"] in ("unfreeze", "close")]
    evidence = {"day": day.isoformat(), "frozen_since": frozen_since.isoformat()}
    return [Decision(Kind.UNFREEZE, RETRAINING, "; ".join(words), evidence)]


def follow(
    world: World,
    day: date,
    findings: Sequence[Finding],
    standing: Standing,
    events: list[Event],
    *,
    series: pd.DataFrame,
    is_blocked: bool,
) -> list[Decision]:
    """What a judged day does to the open incidents: seen, raised, quiet, escalated; ``events`` grows.

    Returns the decisions that this takes; on Sundays the week's digest is one of them.
    """
    new = [
        replace(event, text=level_check(series, standing.by_id[event.incident_id], day))
        if event.event == "quieted" else event
        for event in next_events(
            day, findings, standing.incidents.values(), is_blocked=is_blocked,
            quiet_after=world.service.incidents.quiet_days,
        )
    ]  # fmt: skip
    for event in new:
        standing.take(event)
    decisions = list(raisings(new, standing.by_id))
    for decision, event in list(escalations(day, standing.incidents.values())):
        decisions.append(decision)
        standing.take(event)
        new.append(event)
    events += new
    if world.service.incidents.digest == "weekly" and day.isoweekday() == 7:
        decisions.append(digest(day, standing.incidents.values(), standing.frozen_since))
    return decisions


def incident_row(decision: Row) -> Row:
    """Row of ledger table ``incidents``."""
    return {
        "service": decision["service"], "epoch": decision["epoch"], "day": decision["day"],
        "incident_id": decision["decision_id"], "event": "opened", "cause": decision["subject"],
        "tier": decision["evidence"]["tier"], "text": decision["because"],
    }  # fmt: skip


def event_row(world: World, epoch: int, event: Event) -> Row:
    """Row of ledger table ``incident_events``."""
    return {"service": world.name, "epoch": epoch, **asdict(event)}
