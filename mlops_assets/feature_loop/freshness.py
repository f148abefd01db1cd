"""How late a view may be, and whether it is: the newest row of its source at the end of a day."""

from collections.abc import Mapping, Sequence
from datetime import date

import duckdb

from mlops_assets.adapters.engine import literal, quote, run
from mlops_assets.service.features import FeatureSet, LatestView, RequestView, StaticView, WindowView
from mlops_assets.service.sources import Expected
from mlops_assets.tables import BY_NAME

SourceView = LatestView | StaticView | WindowView


def measure_freshness(
    con: duckdb.DuckDBPyConnection,
    features: FeatureSet,
    *,
    sources: Mapping[str, str],
    days: Sequence[date],
    features_table: str,
    into: str,
) -> None:
    """Create the temp table ``into``, of the shape of ``freshness``: one row per day and view with a source.

    Depends only on rows available by the end of each day, so a block of days equals its days one by one.

    Args:
        sources: source name -> relation with its effective rows, back to the newest row before each day.
        days: business days; all of them are in the engine's table ``days`` (``engine.register_days``).
        features_table: relation ``(predicted_at, <features>)`` of one feature version, covering ``days``.
    """
    run(con, BY_NAME["freshness"].create_sql(into))
    if not days:
        return
    for view in features.views:
        if not isinstance(view, RequestView):
            query = freshness_sql(
                view,
                source=sources[view.source],
                available_at=features.source(view.source).available_at,
                expected=features.source(view.source).expected,
                days=days,
                features_table=features_table,
            )
            run(con, _insert_sql(into, query))


def max_age_hours(view: SourceView) -> float | None:
    """The age at which the newest row of a source no longer serves a view, in hours; None for a lookup.

    For a window view it is the shortest window: without a younger row that window is empty for every key.
    """
    if isinstance(view, StaticView):
        return None
    return view.max_age_hours if isinstance(view, LatestView) else float(min(view.windows_hours))


def freshness_sql(
    view: SourceView,
    *,
    source: str,
    available_at: str,
    expected: Expected,
    days: Sequence[date],
    features_table: str,
) -> str:
    """SQL of table ``freshness`` for one view: one row is one day.

    Reads ``days(day, start_at, end_at)``, relation ``source`` and ``features_table``. State, the first that
    holds: ``not_expected`` (the source owes no file of that day; for a lookup: none yet, and it has no row),
    ``missing`` (no row was ever available), ``stale`` (older than ``max_age_hours`` at the end of the day;
    never a lookup), ``fresh``. ``stale_share`` is null on a day without requests, and for a view of counts.
    """
    is_static = isinstance(view, StaticView)
    is_due = {day: expected.first_due <= day if is_static else expected.covers(day) for day in days}
    asked = ", ".join(f"({literal(day)}, {'true' if due else 'false'})" for day, due in is_due.items())
    limit = max_age_hours(view)
    not_expected = "not is_due and newest_available_at is null" if is_static else "not is_due"
    age = "epoch(end_at - newest_available_at) / 3600.0"
    return f"""
        with asked as (
            select days.*, is_due from days join (values {asked}) as due(day, is_due) on due.day = days.day
        ), available as (
            select distinct {quote(available_at)} as newest_available_at
            from {source} where {quote(available_at)} is not null
        ), newest as (
            select asked.*, newest_available_at
            from asked asof left join available on asked.end_at > available.newest_available_at
        ), unfilled as (
            select asked.day, {_stale_share_sql(view)} as stale_share
            from asked join {features_table} as answered
            on answered.predicted_at >= asked.start_at and answered.predicted_at < asked.end_at
            group by asked.day
        )
        select newest.day, {literal(view.name)} as "view", {literal(view.source)} as source,
               newest_available_at, round({age}, 9) as age_hours,
               cast({limit or "null"} as double) as max_age_hours, round(stale_share, 9) as stale_share,
               case when {not_expected} then 'not_expected'
                    when newest_available_at is null then 'missing'
                    when {age} > {limit or "null"} then 'stale'
                    else 'fresh' end as state
        from newest left join unfilled on unfilled.day = newest.day
    """


def _stale_share_sql(view: SourceView) -> str:
    """Share of requests that got nothing from a view: every feature null, counts (never null) aside."""
    names = [
        name for name, declared in view.features.items() if isinstance(declared, str) or declared[0].function != "count"
    ]
    if not names:
        return "cast(null as double)"
    got_nothing = " and ".join(f"answered.{quote(name)} is null" for name in names)
    return f"avg(case when {got_nothing} then 1.0 else 0.0 end)"


def _insert_sql(into: str, query: str) -> str:
    return f"insert into {quote(into)} by name {query}"
