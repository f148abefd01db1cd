"""What people say: ledger rows that count from the first unclosed day on."""

import hashlib
from collections.abc import Sequence
from datetime import date

from mlops_assets.closing.world import World
from mlops_assets.errors import UnknownNameError


def close_incident(worlds: Sequence[World], incident_id: str, *, by: str, reason: str) -> str:
    """Close an incident of any of these services; returns what happens next.

    Raises:
        UnknownNameError: no such incident.
    """
    opened = {row["incident_id"]: world for world in worlds for row in world.ledger.effective("incidents", world.name)}
    if incident_id not in opened:
        raise UnknownNameError(where="mlops close", kind="incident", name=incident_id, known=opened)
    world = opened[incident_id]
    day = _tell(world, "close", incident_id, by=by, reason=reason)
    return f"incident {incident_id} counts as closed from {day} on; next: mlops status {world.name}"


def set_frozen(world: World, is_frozen: bool, *, by: str, reason: str, is_dry_run: bool) -> str:
    """Freeze or unfreeze retraining; returns what happens next."""
    kind = "freeze" if is_frozen else "unfreeze"
    what = "no candidate is trained" if is_frozen else "candidates are trained"
    if is_dry_run:
        return f"would {kind} {world.name}: from {world.first_unclosed()} on {what}; nothing was written"
    day = _tell(world, kind, world.name, by=by, reason=reason)
    undo = "unfreeze" if is_frozen else "freeze"
    return f"{world.name}: from {day} on {what}; undo with: mlops {undo} {world.name} --by {by} --reason ..."


def _tell(world: World, kind: str, subject: str, *, by: str, reason: str) -> date:
    """Write one person's word down; saying it twice on one day says it once."""
    day = world.first_unclosed()
    words = "\n".join([world.name, kind, subject, by, reason, day.isoformat()])
    row = {
        "service": world.name,
        "input_id": hashlib.sha256(words.encode()).hexdigest()[:16],
        "kind": kind,
        "subject": subject,
        "by": by,
        "reason": reason,
        "effective_day": day,
        "recorded_at": world.clock(),
    }
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "inputs", [row])
    return day
