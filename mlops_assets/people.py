"""What people say: ledger rows that count from the first unclosed day on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from mlops_assets.closing.releasing import may_answer, may_sign, reconcile, release_of, rollback_target
from mlops_assets.closing.standing import proposals, standing_before
from mlops_assets.closing.world import World
from mlops_assets.decisions import Decision, Kind, decision_row
from mlops_assets.errors import LedgerError, RangeError, UnknownNameError
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


def close_incident(
    worlds: Sequence[World], incident_id: str, closing: Closing, *, by: str, reason: str, is_dry_run: bool = False
) -> str:
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
    if is_dry_run:
        return f"would close {incident_id} from {world.first_unclosed()} on{_meaning(details)}; nothing was written"
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


def acknowledge_incident(
    worlds: Sequence[World], incident_id: str, *, by: str, reason: str, is_dry_run: bool = False
) -> str:
    """Say that somebody has an incident: it is not escalated. Returns what happens next.

    Raises:
        UnknownNameError: no such open incident.
    """
    world, _incident = _open_incident(worlds, incident_id, "mlops approve")
    if is_dry_run:
        return f"would give {incident_id} to {by} from {world.first_unclosed()} on; nothing was written"
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


def approve(worlds: Sequence[World], what: str, *, by: str, reason: str, is_dry_run: bool = False) -> str:
    """Take an incident, or sign a model version that waits; returns what happens next.

    Raises:
        UnknownNameError: neither an open incident nor a decision that waits for a signature.
        LedgerError: this person may not sign, or the version's features cannot be computed any more.
    """
    if what in open_incidents(worlds):
        return acknowledge_incident(worlds, what, by=by, reason=reason, is_dry_run=is_dry_run)
    return sign(worlds, what, "approved", by=by, reason=reason, is_dry_run=is_dry_run)


def sign(
    worlds: Sequence[World], decision_id: str, verdict: str, *, by: str, reason: str, is_dry_run: bool = False
) -> str:
    """Sign or refuse the versions that a training proposes; returns what happens next.

    Raises:
        UnknownNameError: no such decision waits.
        LedgerError: this person may not sign, or a source no longer declares what the features are computed from.
        LeaseHeldError: somebody closes days now, with the versions that are in charge.
    """
    waiting = {one: world for world in worlds for one in proposals(world)}
    if decision_id not in waiting:
        known = {**waiting, **open_incidents(worlds)}
        raise UnknownNameError(where="mlops", kind="proposal or open incident", name=decision_id, known=known)
    world = waiting[decision_id]
    may_sign(world, by)
    effective_at = max(world.calendar.start_of(world.first_unclosed()), world.now())
    stored = proposals(world)[decision_id]
    if verdict == "approved":
        for row in stored:
            may_answer(world, row)
    versions = ", ".join(f"{row['model_version']} ({row['role']})" for row in stored)
    if is_dry_run:
        what = f"answer from {effective_at} UTC on" if verdict == "approved" else "be refused; the champion stays"
        return f"{versions} would {what}; nothing was written"
    event = {key: stored[0][key] for key in ("service", "epoch", "day", "decision_id")}
    signed = {**event, "verdict": verdict, "by": by, "reason": reason, "effective_at": effective_at}
    with world.ledger.lease(world.name, f"{verdict} by {by}"):
        with world.ledger.transaction() as transaction:
            world.ledger.append(transaction, "sign_offs", [{**signed, "recorded_at": world.clock()}])
            if verdict == "approved":
                world.ledger.append(transaction, "releases", [{**row, "effective_at": effective_at} for row in stored])
        if verdict != "approved":
            return f"{decision_id} is refused; the champion stays; next: mlops status {world.name}"
        reconcile(world)
    return (
        f"{versions} answer from {effective_at} UTC on; back with: mlops rollback {world.name} --by {by} --reason ..."
    )


def give_place(world: World, kind: Kind, version: str | None, *, by: str, reason: str, is_dry_run: bool) -> str:
    """Roll back to a version (None: the last that was green, else the fallback), or promote one; at once.

    Raises:
        LedgerError: nobody can take the place, or this person may not promote.
        UnknownNameError: no such version was released.
        LeaseHeldError: somebody closes days now, with the version that is in charge.
    """
    from mlops_assets.day_loop import act_on

    closed = world.closed_through()
    champion = world.holders(world.now()).get("champion")
    if closed is None or champion is None:
        raise LedgerError(f"service '{world.name}': nothing was released yet, so there is no place to give.")
    if kind is Kind.PROMOTE:
        may_sign(world, by)
    to = version or _target(world, closed)
    release_of(world, to)
    if to == champion["model_version"]:
        return f"{to} is champion already; nothing was written"
    if is_dry_run:
        return f"would give the place of {champion['model_version']} to {to}; nothing was written"
    evidence = {"from": champion["model_version"], "to": to, "by": by}
    decision = Decision(kind, f"champion {to} after {champion['decision_id']}", f"{by}: {reason}", evidence)
    row = decision_row(world.name, closed, world.ledger.epoch(world.name), decision)
    with world.ledger.lease(world.name, f"{kind.value} by {by}"):
        with world.ledger.transaction() as transaction:
            world.ledger.append(transaction, "decisions", [row])
        said = act_on(world, row["decision_id"], by=by)
    undo = f"mlops promote {world.name} --to {champion['model_version']} --by {by} --reason ..."
    return f"{said}; retraining goes on (mlops freeze {world.name} stops it); undo with: {undo}"


def _target(world: World, closed: date) -> str:
    standing = standing_before(world, world.first_unclosed())
    to = rollback_target(world, closed, standing.incidents.values())
    if to is None:
        raise LedgerError(f"service '{world.name}': no earlier version was green and there is no fallback; name one.")
    return to.model_version


def retrain_now(world: World, *, by: str, reason: str, is_dry_run: bool) -> str:
    """Train as of the last closed day, at once; the gate decides as ever. Returns what happens next.

    Raises:
        LedgerError: no day is closed, or retraining is frozen.
    """
    from mlops_assets.day_loop import act_on

    closed = world.closed_through()
    if closed is None:
        raise LedgerError(f"service '{world.name}': no day is closed yet, so there is nothing to learn from.")
    standing = standing_before(world, world.first_unclosed())
    if standing.frozen_since:
        raise LedgerError(
            f"service '{world.name}': retraining is frozen since {standing.frozen_since}. "
            f"Close its incidents, or: mlops unfreeze {world.name} --by NAME --reason ..."
        )
    decision = Decision(Kind.RETRAIN, "retraining", f"{by}: {reason}", {"day": closed.isoformat(), "by": by})
    row = decision_row(world.name, closed, world.ledger.epoch(world.name), decision)
    if is_dry_run:
        return f"would train as of {closed}: {row['decision_id']}; nothing was written"
    with world.ledger.lease(world.name, f"retraining by {by}"):
        with world.ledger.transaction() as transaction:
            world.ledger.append(transaction, "decisions", [row])
        said = act_on(world, row["decision_id"], by=by)
    return f"{said}; next: mlops status {world.name}"


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
