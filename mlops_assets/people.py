"""What people say: ledger rows that count from the first unclosed day on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from mlops_assets.closing.standing import standing_before
from mlops_assets.closing.world import World
from mlops_assets.errors import RangeError, UnknownNameError
from mlops_assets.monitoring_loop.incidents import Answer, Incident


@dataclass(frozen=True)
class Closing:
    """What a person says an incident was.

    ``bad_data``: the days from ``first`` to ``last`` leave baselines and trainings. ``new_normal``: baselines start
    anew on ``first``. ``false_alarm``: nothing was wrong; it counts against the monitor's precision.
    """

    answer: Answer
    first: date | None = None
    last: date | None = None


def close_incident(worlds: Sequence[World], incident_id: str, closing: Closing, *, by: str, reason: str) -> str:
    """Close an incident of any of these services; returns what happens next.

    Raises:
        UnknownNameError: no such incident.
        RangeError: days that the answer cannot mean.
    """
    world, incident = _open_incident(worlds, incident_id, "mlops close")
    details: dict[str, str] = {"as": closing.answer}
    first, last = closing.first or incident.opened_on, closing.last or incident.last_seen
    if last < first:
        raise RangeError(f"incident {incident_id}: --until {last} lies before --from {first}.")
    if closing.answer == "bad_data":
        details |= {"from": first.isoformat(), "until": last.isoformat()}
    elif closing.answer == "new_normal":
        details |= {"from": first.isoformat()}
    day = _tell(world, "close", incident_id, by=by, reason=reason, details=details)
    return f"incident {incident_id} counts as closed from {day} on{_meaning(details)}; next: mlops status {world.name}"


def _meaning(details: Mapping[str, str]) -> str:
    """What follows from an answer."""
    match details["as"]:
        case "bad_data":
            return f", {details['from']} to {details['until']} leave baselines and trainings"
        case "new_normal":
            return f", baselines start anew on {details['from']}"
        case _:
            return " and against the monitor's precision"


def acknowledge_incident(worlds: Sequence[World], incident_id: str, *, by: str, reason: str) -> str:
    """Say that somebody has an incident: it is not escalated. Returns what happens next.

    Raises:
        UnknownNameError: no such open incident.
    """
    world, _incident = _open_incident(worlds, incident_id, "mlops approve")
    day = _tell(world, "acknowledge", incident_id, by=by, reason=reason)
    close = f"mlops close {incident_id} --by {by} --as ... --reason ..."
    return f"{by} has incident {incident_id} from {day} on; it is not escalated; next: {close}"


def open_incidents(worlds: Sequence[World]) -> dict[str, tuple[World, Incident]]:
    """Every incident that is open at the end of the last closed day, by id."""
    return {
        incident_id: (world, incident)
        for world in worlds
        for incident_id, incident in standing_before(world, world.first_unclosed()).by_id.items()
    }


def _open_incident(worlds: Sequence[World], incident_id: str, where: str) -> tuple[World, Incident]:
    known = open_incidents(worlds)
    if incident_id not in known:
        raise UnknownNameError(where=where, kind="open incident", name=incident_id, known=known)
    return known[incident_id]


def set_frozen(world: World, is_frozen: bool, *, by: str, reason: str, is_dry_run: bool) -> str:
    """Freeze or unfreeze retraining; returns what happens next."""
    kind = "freeze" if is_frozen else "unfreeze"
    what = "no candidate is trained" if is_frozen else "candidates are trained"
    if is_dry_run:
        return f"would {kind} {world.name}: from {world.first_unclosed()} on {what}; nothing was written"
    day = _tell(world, kind, world.name, by=by, reason=reason)
    undo = "unfreeze" if is_frozen else "freeze"
    return f"{world.name}: from {day} on {what}; undo with: mlops {undo} {world.name} --by {by} --reason ..."


def _tell(
    world: World, kind: str, subject: str, *, by: str, reason: str, details: Mapping[str, str] | None = None
) -> date:
    """Write one person's word down; saying it twice on one day says it once."""
    day = world.first_unclosed()
    words = "\n".join([world.name, kind, subject, by, reason, day.isoformat(), *sorted((details or {}).values())])
    row = {
        "service": world.name,
        "input_id": hashlib.sha256(words.encode()).hexdigest()[:16],
        "kind": kind,
        "subject": subject,
        "by": by,
        "reason": reason,
        "effective_day": day,
        "recorded_at": world.clock(),
        "details": dict(details or {}),
    }
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "inputs", [row])
    return day
