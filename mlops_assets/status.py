"""How a service stands: what is closed, who answers, what is open, and what the next day waits for."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.adapters.landing import deliveries
from mlops_assets.adapters.ledger import Row
from mlops_assets.adapters.people_sql import ask
from mlops_assets.closing.budgeting import budget_lines, newest_report
from mlops_assets.closing.comparing import OWN_LABELS_DAYS, compared_definitions, comparison_lines, own_labels_share
from mlops_assets.closing.incident_pages import incident_page
from mlops_assets.closing.plotting import MOST_DAYS, OF_OPERATIONS, chart_up_to, read_series, series_of
from mlops_assets.closing.standing import (
    first_closable,
    incident_events,
    inputs,
    pending_decisions,
    proposals,
    standing_before,
)
from mlops_assets.closing.voids import void_inputs
from mlops_assets.closing.world import World
from mlops_assets.errors import UnknownNameError
from mlops_assets.monitoring_loop.chart import change_in_words
from mlops_assets.monitoring_loop.incidents import Incident

Status = dict[str, Any]
VERDICT_DAYS = 7
DRAWN = ("features", "profiles", "predictions", "labels", "quality", "operations", "drift", "loop_sync", "verdict")
"""Assets whose page shows a series."""


def status_of(world: World, as_of: date | None = None) -> Status:
    """How a service stands at the end of its last closed day, or of an earlier day.

    The ledger answers for ``as_of``; who writes, what waits and which files lie there are of this moment.
    """
    closed = [day for day in world.ledger.closings(world.name) if as_of is None or day <= as_of]
    last = max(closed, default=None)
    standing = standing_before(world, last + timedelta(days=1)) if last else None
    closing = {row["subject"]: row for row in inputs(world) if row["kind"] == "close"}
    return {
        "service": world.name,
        "closed_through": last.isoformat() if last else None,
        "epoch": world.ledger.epoch(world.name),
        "watches_log": world.service.prediction_log.source if world.service.prediction_log else None,
        "answering": _answering(world, last),
        "champion": _holder(world, "champion", last),
        "fallback": _holder(world, "fallback", last),
        "frozen_since": standing.frozen_since.isoformat() if standing and standing.frozen_since else None,
        "open_incidents": [
            _incident(incident, closing.get(incident.incident_id))
            for incident in sorted(standing.incidents.values() if standing else [], key=lambda one: one.opened_on)
        ],
        "precision": precision_of(world, last),
        "alarm_budget": budget_lines(newest_report(world, last)) if last else [],
        "label_definitions": compared_definitions(world, last),
        "own_labels_share": own_labels_share(world, last),
        "pending_actions": [
            {"decision_id": row["decision_id"], "kind": row["kind"]} for row in pending_decisions(world)
        ],
        "void_inputs": [
            {
                "input_id": row["input_id"],
                "kind": row["kind"],
                "subject": row["subject"],
                "by": row["by"],
                "effective_day": row["effective_day"].isoformat(),
                "reason": row["void"],
            }
            for row in void_inputs(world)
        ],
        "proposals": [
            {"decision_id": row["decision_id"], "model_version": row["model_version"]}
            for waiting in proposals(world).values()
            for row in waiting
        ],
        "verdicts": _verdicts(world, last),
        "next": _next(world),
        "writer": _writer(world),
        "sources": {source.name: _newest(world, source.name) for source in world.service.sources},
    }


def _incident(incident: Incident, closing: Row | None) -> Status:
    """One open incident; ``closing`` is what a person said that does not count yet."""
    told: Status = {
        "incident_id": incident.incident_id,
        "day": incident.opened_on.isoformat(),
        "tier": incident.tier,
        "text": incident.text,
        "state": incident.state,
        "last_seen": incident.last_seen.isoformat(),
        "acknowledged_by": incident.acknowledged_by,
    }
    since = {"day": closing["effective_day"].isoformat(), "by": closing["by"]} if closing else None
    return {**told, "closed_from": since}


def precision_of(world: World, last: date | None) -> Status:
    """Of the incidents that people closed up to a day, how many were real."""
    closed = [one for one in incident_events(world) if one.event == "closed" and (last is None or one.day <= last)]
    false = sum(one.evidence["as"] == "false_alarm" for one in closed)
    return {
        "closed": len(closed),
        "real": len(closed) - false,
        "query": precision_sql(world.name),
    }


def precision_sql(service: str) -> str:
    """SQL of the precision record: what people said the incidents were that they closed."""
    return (
        f"select evidence ->> 'as' as answer, count(*) as incidents from {service}.incident_events "
        f"where event = 'closed' group by all order by all"
    )


def series_chart(world: World, name: str, as_of: date | None) -> str:
    """One daily series up to the last closed day, or an earlier one, with every change of these days.

    Raises:
        UnknownNameError: nothing of this name was stored in these days.
    """
    last = as_of or world.closed_through() or world.service.first_day
    first = max(last - timedelta(days=MOST_DAYS - 1), world.service.first_day)
    if not read_series(world, name, first, last):
        raise UnknownNameError(
            where=f"service '{world.name}', {first} to {last}", kind="series", name=name, known=known_series(world)
        )
    return chart_up_to(world, name, last)


def known_series(world: World) -> list[str]:
    """What can be drawn: columns (also ``<column> null share``), and numbers of every table that has a series."""
    service = world.service
    shown = {name for asset in DRAWN for name in series_of(world, asset)}
    listed = [
        *service.feature_set.names, "score", "rows", "label", *(f"quality:{name}" for name in service.quality.measured),
        *(f"operations:{what}" for what in OF_OPERATIONS), *(f"drift:{name}" for name in service.feature_set.names),
    ]  # fmt: skip
    return [*listed, *sorted(shown - set(listed))]


def open_incident_page(worlds: Sequence[World], incident_id: str, as_of: date | None) -> str:
    """The playbook of an incident that was open at the end of a day.

    Raises:
        UnknownNameError: no such incident was open then.
    """
    known = {
        one.incident_id: (world, one)
        for world in worlds
        for one in standing_before(world, as_of + timedelta(days=1) if as_of else world.first_unclosed()).by_id.values()
    }
    if incident_id not in known:
        raise UnknownNameError(where="mlops status", kind="open incident", name=incident_id, known=known)
    world, incident = known[incident_id]
    last = as_of or world.first_unclosed() - timedelta(days=1)
    return incident_page(world, incident, last)


def _holder(world: World, role: str, last: date | None) -> Status | None:
    """Who holds a role when the first request after ``last`` is asked."""
    release = world.holders(world.calendar.end_of(last)).get(role) if last else None
    if release is None:
        return None
    return {
        "model_version": release["model_version"],
        "since": release["effective_at"].isoformat(),
        "trained_on": world.trained_on(release["model_version"]).isoformat(),
    }


def answering_sql(service: str, day: date) -> str:
    """SQL of the versions of a log that answered on a day, and how often."""
    return (
        f"select model_version, count(*) as n from {quote(service)}.predictions "
        f"where served and day = {literal(day)} group by all order by n desc, model_version"
    )


def _answering(world: World, last: date | None) -> list[Status]:
    """Of a model that runs elsewhere: which versions answered on the last closed day, as its log says."""
    if last is None or not world.service.is_monitor_only:
        return []
    found: list[Status] = ask([world.service], world.home, answering_sql(world.name, last)).objects()
    return found


def verdicts_sql(service: str, first: date, last: date) -> str:
    """SQL of the verdicts of some days, newest first."""
    return (
        f"select day, verdict, reason from {quote(service)}.verdicts "
        f"where day between {literal(first)} and {literal(last)} order by day desc"
    )


def _verdicts(world: World, last: date | None) -> list[Status]:
    if last is None:
        return []
    query = verdicts_sql(world.name, last - timedelta(days=VERDICT_DAYS - 1), last)
    changed: dict[str, list[str]] = {}
    for row in world.ledger.effective("changes", world.name):
        if row["before"] or row["day"] > world.service.first_day:
            changed.setdefault(row["day"].isoformat(), []).append(change_in_words(row))
    rows = ask([world.service], world.home, query).objects()
    return [{**row, "changes": changed.get(row["day"], [])} for row in rows]


def _next(world: World) -> Status:
    closable = first_closable(world)
    return {
        "day": closable.day.isoformat() if closable.day else None,
        "is_closable": closable.is_closable,
        "reason": closable.reason,
    }


def _writer(world: World) -> str | None:
    holder = world.ledger.holder(world.name)
    return f"{holder['holder']} (process {holder['pid']} on {holder['host']})" if holder else None


def _newest(world: World, source: str) -> str | None:
    lying = deliveries(world.home.landing, source, date.max)
    return lying[-1].day.isoformat() if lying else None


def _answer_lines(status: Status) -> Iterator[str]:
    """Who answers, and whether there is training; a model that runs elsewhere has neither role nor training here."""
    if status["watches_log"] and status["champion"] is None:
        yield f"  model           runs elsewhere, watched by its log '{status['watches_log']}'"
        if day := status["closed_through"]:
            told = ", ".join(f"{row['model_version']} ({row['n']:,})" for row in status["answering"]) or "nobody"
            yield f"  answering       {told} on {day}"
        return
    for role in ("champion", "fallback"):
        held = status[role]
        told = f"{held['model_version']} since {held['since']} UTC, trained on {held['trained_on']}" if held else "none"
        yield f"  {role:<14}  {told}" + ("" if held or role == "fallback" else ": the declared prior answers")
    frozen = f"frozen since {status['frozen_since']}" if status["frozen_since"] else "not frozen"
    yield f"  retraining      {frozen}"


def status_lines(status: Status) -> Iterator[str]:
    """A status for people."""
    yield f"{status['service']}"
    yield f"  closed through  {status['closed_through'] or 'no day yet'} (epoch {status['epoch']})"
    yield from _answer_lines(status)
    yield f"  incidents       {len(status['open_incidents'])} open"
    for row in status["open_incidents"]:
        has = f", {row['acknowledged_by']} has it" if row["acknowledged_by"] else ""
        closed = row["closed_from"]
        until = f", closed from {closed['day']} on by {closed['by']}" if closed else ""
        state = f"{row['tier']}, {row['state']}{has}{until}"
        yield f"    {row['incident_id']} ({state}): {row['text']}"
    if status["open_incidents"]:
        yield f"    playbook: mlops status {status['service']} --incident {status['open_incidents'][0]['incident_id']}"
    judged = status["precision"]
    if judged["closed"]:
        yield f"  precision       {judged['real']} of {judged['closed']} closed incidents were real: {judged['query']}"
    for number, line in enumerate(status["alarm_budget"]):
        yield f"  {'alarm budget' if number == 0 else '':<14}  {line}"
    if (own := status["own_labels_share"]) is not None:
        yield f"  own labels      {own:.1%} of {OWN_LABELS_DAYS} days' labels exist only because of our own decision"
    for number, line in enumerate(comparison_lines(status["label_definitions"])):
        yield f"  {'' if number else 'labels':<14}  {line}"
    yield f"  actions         {len(status['pending_actions'])} pending"
    for row in status["pending_actions"]:
        yield f"    {row['decision_id']}"
    if status["void_inputs"]:
        yield f"  void            {len(status['void_inputs'])} of the words that people said"
    for row in status["void_inputs"]:
        yield f"    {row['kind']} by {row['by']}, effective {row['effective_day']}: {row['reason']}"
    for row in status["proposals"]:
        yield f"    {row['model_version']} waits for: mlops approve {row['decision_id']} --by NAME"
    waits = status["next"]
    yield f"  next            {waits['reason']}"
    yield f"  written by      {status['writer'] or 'nobody now'}"
    yield "  newest file     " + ", ".join(f"{name} {day or 'none'}" for name, day in status["sources"].items())
    yield "  verdicts"
    for row in status["verdicts"]:
        yield f"    {row['day']}  {row['verdict']:<12}  {row['reason']}"
        if row["changes"]:
            yield f"    {'':<26}changed: {'; '.join(row['changes'])}"
