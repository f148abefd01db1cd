"""Which source rows stand behind one request's features, and since when they could be read."""

from mlops_assets.adapters.engine import quote
from mlops_assets.service.features import LatestView, StaticView, WindowView
from mlops_assets.service.sources import Source

SourceView = LatestView | StaticView | WindowView


def used_rows_sql(view: SourceView, source: Source, *, spine: str, relation: str, limit: int) -> str:
    """SQL of the rows that one view read for the one request in ``spine``, newest first.

    Reads   ``spine(request_id, predicted_at, <request columns>)`` and ``relation``, the effective rows of the source.
    Returns ``(n, event_at, available_at, source_key)``: ``n`` counts all of them, at most ``limit`` are listed. A
    window takes its longest stretch, a latest or static view the one row that it looked up.
    """
    at = f"s.{quote(source.available_at)}"
    conditions = [f"s.{quote(column)} = q.{quote(asked)}" for column, asked in view.keys.items()]
    conditions.append(f"{at} <= q.predicted_at")
    if isinstance(view, WindowView):
        conditions.append(f"{at} > q.predicted_at - interval '{max(view.windows_hours)}' hour")
        conditions += [f"({view.where})"] if view.where else []
    elif isinstance(view, LatestView):
        conditions.append(f"{at} >= q.predicted_at - to_microseconds({round(view.max_age_hours * 3_600_000_000)})")
    key = " || '|' || ".join(f"s.{quote(column)}::varchar" for column in source.key)
    order = ", ".join(f"s.{quote(column)} desc" for column in (source.available_at, source.event_at, *source.key))
    how_many = "count(*) over ()" if isinstance(view, WindowView) else "1"
    return f"""
        select {how_many} as n, s.{quote(source.event_at)}, {at}, {key}
        from {quote(relation)} s join {quote(spine)} q on true
        where {" and ".join(conditions)}
        order by {order} limit {limit if isinstance(view, WindowView) else 1}
    """
