"""Outcomes in the world become label events: append-only, and a correction is a new event."""

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.feedback_loop.told import told_sql
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.sources import Source


def label_events_sql(label: LabelDefinition, source: Source, *, stored: str, listed: str, into: str) -> str:
    """SQL that adds the label events of some days to ``into`` (columns of table ``labels``).

    Reads ``stored`` and ``listed`` as ``told_sql`` does: a label is known when its source row was told. A withdrawn
    row is an event with value null. A definition reads what is told from its ``effective_from`` on.
    """
    since = f" where listed_on >= {literal(label.effective_from)}" if label.effective_from else ""
    return f"""
        insert into {quote(into)} by name
        with told as ({told_sql(source, stored=stored, listed=listed)})
        select listed_on as day, ({label.expressions["request_id"]})::varchar as request_id,
               {literal(label.version)} as label_version,
               case when withdrawn then null else {label.stored_value} end as value,
               case when withdrawn then null else ({label.kpi or "null"})::double end as kpi,
               {quote(source.event_at)} as event_at, told_at as known_at,
               {literal(source.name)} || '/' || day || '/' || generation as source
        from told{since}
    """


def label_timing_sql(*, labels: str, predictions: str, needs_decision: bool, has_kpi: bool) -> str:
    """SQL of a relation to be profiled: one row per label event of the block's days, beside the answer it is about.

    ``delay_hours``: from the answer until the label was known; ``own_decision``: 1 if the label only exists because
    the answer was a positive decision; ``per_kpi``: the day's labels per unit of KPI, on one of its rows.
    """
    of_all = "sum(l.value) over of_day / nullif(sum((l.kpi * 1e6)::hugeint) over of_day / 1e6, 0)"
    is_one = "row_number() over (partition by l.day, l.label_version order by l.request_id, l.known_at) = 1"
    ratio = f"case when {is_one} then {of_all} end" if has_kpi else "null::double"
    decided = "coalesce(p.decision, false)::integer" if needs_decision else "null::integer"
    return f"""
        select l.day, l.label_version, round(epoch(l.known_at - p.predicted_at) / 3600.0, 9) as delay_hours,
               {decided} as own_decision, round({ratio}, 9) as per_kpi
        from {quote(labels)} l join {quote(predictions)} p on p.request_id = l.request_id and p.served
        where l.day in (select day from block_days)
        window of_day as (partition by l.day, l.label_version)
    """
