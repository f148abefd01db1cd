"""What became of each prediction, as of the end of a day."""

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.service.labels import LabelDefinition


def outcomes_sql(label: LabelDefinition, *, predictions: str, labels: str, days: str, as_of: str) -> str:
    """SQL of table ``outcomes`` as of the end of one day.

    Reads ``predictions`` and ``labels`` as in ``tables.py``, ``days(day, start_at, end_at)``; ``as_of`` is an SQL
    expression of a date. The label that counts is the newest one known by the end of that day whose event lies
    inside the window; one whose newest event was withdrawn has none. ``open``: unlabelled and the window is not
    over; ``final``: the window is over; ``restated``: an event became known after the window was over.
    """
    hours = f"to_microseconds({round(label.window_hours * 3_600_000_000)})"
    return f"""
        with told as (
            select p.request_id as told_request, p.model_version as told_version, l.value, l.known_at,
                   count(*) over of_one::integer as label_events
            from {quote(predictions)} p
            join {quote(labels)} l on l.request_id = p.request_id and l.label_version = {literal(label.version)}
            where l.day <= {as_of} and l.event_at <= p.predicted_at + {hours}
            window of_one as (partition by p.request_id, p.model_version)
            qualify row_number() over (partition by p.request_id, p.model_version order by l.known_at desc) = 1
        )
        select p.prediction_day as day, p.request_id, p.model_version, {literal(label.version)} as label_version,
               p.role, p.served, p.score, n.value, n.known_at, coalesce(n.label_events, 0) as label_events,
               case when d.end_at < p.predicted_at + {hours} then
                        case when n.value is null then 'open' else 'provisional' end
                    when n.known_at > p.predicted_at + {hours} and n.label_events > 1 then 'restated'
                    else 'final' end as state
        from {quote(predictions)} p
        join {quote(days)} d on d.day = {as_of}
        left join told n on n.told_request = p.request_id and n.told_version = p.model_version
        where p.prediction_day <= {as_of}
    """
