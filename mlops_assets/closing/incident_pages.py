"""The page of an incident: its playbook, with the series behind it and what it has led to so far."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from mlops_assets.adapters.engine import literal, on_days_sql, open_engine, rows
from mlops_assets.closing.plotting import plots_of
from mlops_assets.closing.standing import incident_events, pending_decisions
from mlops_assets.closing.world import World
from mlops_assets.decisions import TOLD, Kind
from mlops_assets.monitoring_loop.incidents import Incident
from mlops_assets.monitoring_loop.playbooks import playbook
from mlops_assets.monitoring_loop.profiles import SCORE
from mlops_assets.tables import BY_NAME

BEFORE_DAYS = 28
"""Answers of the days on which an incident showed are held against those of the four weeks before it."""


def incident_page(world: World, incident: Incident, as_of: date) -> str:
    """The filled-in page of an incident as it stood at the end of a day, in Markdown."""
    plots = plots_of(world, incident, as_of)
    return playbook(world.service, incident, plots=plots, consequences="\n".join(consequences(world, incident, as_of)))


def consequences(world: World, incident: Incident, as_of: date) -> Iterator[str]:
    """What followed from an incident, each a line of a Markdown list: answers, score, quality, decisions, others."""
    shown = sorted({
        event.day for event in incident_events(world)
        if event.incident_id == incident.incident_id and event.event == "seen" and event.day <= as_of
    } or {incident.opened_on})  # fmt: skip
    yield from _answers(world, incident, shown, as_of)
    yield from _decided(world, incident, as_of)
    others = [
        f"{row['cause']} ({row['incident_id']})" for row in world.ledger.effective("incidents", world.name)
        if row["day"] in shown and row["incident_id"] != incident.incident_id
    ]  # fmt: skip
    yield f"- Other incidents opened on these days: {', '.join(others) or 'none'}."


def _answers(world: World, incident: Incident, shown: Sequence[date], as_of: date) -> Iterator[str]:
    """What was answered on the days it showed, whether the score moved with it, and how good the answers were."""
    first, metric = incident.opened_on - timedelta(days=BEFORE_DAYS), world.service.quality.metrics[0]
    with open_engine() as con:
        for table in ("operations", "drift", "quality"):
            world.lake.view(con, table, BY_NAME[table].columns, first=first, last=as_of)
        ((answered,),) = rows(con, answered_sql(shown))
        moved = [str(day) for (day,) in rows(con, score_moved_sql(shown))]
        measured = {
            (is_now, role): (value, labels)
            for is_now, role, value, labels in rows(con, measured_sql(metric, world.service.label.version, shown))
        }
    days = f"{len(shown)} day{'s' * (len(shown) != 1)}"
    yield f"- It showed on {days}; {answered:,} requests were answered on them."
    yield f"- The score {'moved on ' + ', '.join(moved) if moved else 'did not move on these days'}."
    if (True, "served") not in measured:
        yield f"- {metric} of these answers is not measured yet."
        return
    value, labels = measured[True, "served"]
    beside = [
        f"{measured[key][0]:.4g} {words}"
        for key, words in (((True, "fallback"), "the fallback's"), ((False, "served"), f"{BEFORE_DAYS} days before"))
        if key in measured
    ]
    compared = f" ({', '.join(beside)})" if beside else ""
    yield f"- {metric} of these answers: {value:.4g}{compared}, {labels:,} labels known."


def _decided(world: World, incident: Incident, as_of: date) -> Iterator[str]:
    """Decisions since, that this cause led to; messages to people are told elsewhere."""
    pending = {row["decision_id"] for row in pending_decisions(world)}
    found = False
    for row in world.ledger.effective("decisions", world.name):
        causes = (row["subject"], row["evidence"].get("cause"), *row["evidence"].get("causes", ()))
        is_held = row["kind"] == Kind.HOLD_RETRAINING and incident.tier == "severe"
        is_of_it = is_held or (row["kind"] not in TOLD and incident.cause in causes)
        if not is_of_it or not incident.opened_on <= row["day"] <= as_of:
            continue
        found = True
        state = "pending" if row["decision_id"] in pending else "done"
        yield f"- {row['day']} {row['kind']} ({state}): {row['because']}."
    if not found:
        yield "- Nothing was frozen, rolled back or trained because of it."


def answered_sql(days: Sequence[date]) -> str:
    """SQL of how many requests were answered on some days."""
    return f"""
        select coalesce(sum(n), 0)::bigint from operations
        where version = 'served' and slice = 'all' and {on_days_sql(days)}
    """


def score_moved_sql(days: Sequence[date]) -> str:
    """SQL of the days of some on which the distribution of the score was found to have moved."""
    return f"""
        select distinct day from drift
        where column_name = {literal(SCORE)} and slice = 'all' and tier in ('moderate', 'severe')
          and {on_days_sql(days)} order by day
    """


def measured_sql(metric: str, label_version: str, days: Sequence[date]) -> str:
    """SQL of ``(is_now, role, value, labels)``: a metric as known last, over some days and those before.

    Days weigh as many labels as they have.
    """
    return f"""
        with known as (
            select prediction_day, role, arg_max(value, day) as value, arg_max(n_labelled, day) as labels
            from quality
            where metric = {literal(metric)} and slice = 'all' and window_days = 1
              and label_version = {literal(label_version)} and role in ('served', 'fallback') and value is not null
            group by all
        )
        select {on_days_sql(days, "prediction_day")} as is_now, role,
               sum(value * labels) / nullif(sum(labels), 0), sum(labels)::bigint
        from known where labels > 0 and (is_now or prediction_day < {literal(min(days))})
        group by all
    """
