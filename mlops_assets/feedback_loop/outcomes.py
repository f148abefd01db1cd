"""What became of each prediction, as of the end of a day."""

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.service.labels import LabelDefinition


def outcomes_sql(label: LabelDefinition, *, predictions: str, labels: str, days: str, as_of: str) -> str:
    """SQL of table ``outcomes`` as of the end of one day.

    Reads ``predictions`` and ``labels`` as in ``tables``, ``days(day, start_at, end_at)``; ``as_of`` is an SQL
    expression of a date. The label that counts is the newest one known by the end of that day whose event lies
    inside the window; one whose newest event was withdrawn has none. Where a request without a label counts as
    negative, it does so once its window is over. ``open``: unlabelled and the window is not over; ``final``: the
    window is over; ``restated``: an event became known after the window was over.

    Labels are brought to one row per request before they meet the predictions: one large join instead of two and a
    sort (``benchmarks/label_join.py``). Only requests with several events carry them as a list.
    """
    closes_at = f"p.predicted_at + to_microseconds({round(label.window_hours * 3_600_000_000)})"
    value = "case when value is null and is_closed then 0.0 else value end" if label.is_one_sided else "value"
    told = f"""
        select * from {quote(labels)}
        where label_version = {literal(label.version)} and day <= {as_of} and event_at is not null"""
    return f"""
        with told as ({told}),
        counted as (
            select request_id, count(*) as events, arg_max_null(value, known_at) as value,
                   max(known_at) as known_at, max(event_at) as event_at
            from told group by request_id
        ),
        several as (
            select request_id,
                   list({{known_at: known_at, value: value, event_at: event_at}} order by known_at desc) as told
            from told where request_id in (select request_id from counted where events > 1) group by request_id
        ),
        newest as (select * from counted left join several using (request_id)),
        joined as (
            select p.*, {closes_at} <= d.end_at as is_closed,
                   case when n.told is not null then list_filter(n.told, lambda e: e.event_at <= {closes_at})
                        end as inside,
                   case when n.told is not null then inside[1].value
                        when n.event_at <= {closes_at} then n.value end as value,
                   case when n.told is not null then inside[1].known_at
                        when n.event_at <= {closes_at} then n.known_at end as known_at,
                   case when n.told is not null then len(inside)
                        when n.event_at <= {closes_at} then 1 else 0 end::integer as label_events
            from {quote(predictions)} p
            join {quote(days)} d on d.day = {as_of}
            left join newest n on n.request_id = p.request_id
            where p.prediction_day <= {as_of}
        )
        select prediction_day as day, request_id, model_version, {literal(label.version)} as label_version,
               role, served, score, {value} as value, known_at, label_events,
               case when not is_closed then case when value is null then 'open' else 'provisional' end
                    when known_at > {closes_at} and label_events > 1 then 'restated'
                    else 'final' end as state
        from joined p
    """
