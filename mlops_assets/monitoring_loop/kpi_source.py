"""Measure: a KPI that comes from a source of its own, per session, customer or day, joined to versions by bucket."""

from collections.abc import Collection, Sequence
from datetime import date

import duckdb

from mlops_assets.adapters.engine import copy_sql, literal, quote, run
from mlops_assets.monitoring_loop.kpi_windows import VALUE_UNIT, add_windows
from mlops_assets.monitoring_loop.metrics import Z95
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.service.kpi import KpiSource
from mlops_assets.service.service import MLService
from mlops_assets.service.sources import Source

ARRIVE = "units of this day arrive until "
"""How the reason of a day begins that is not settled."""


def reach_days(service: MLService) -> int:
    """Days before a measured day whose files and rows of ``kpi`` must be at hand; older news restates nothing."""
    own = service.quality.kpi.source if service.quality.kpi else None
    return max(1, *service.quality.windows_days) + (own.settles_after_days if own else 0) + 1


def measure_own_kpi(
    con: duckdb.DuckDBPyConnection,
    service: MLService,
    own: KpiSource,
    *,
    stored: str,
    listed: str,
    answerers: str,
    days: Sequence[date],
    history: str,
    blocked: Collection[date] = (),
) -> None:
    """Insert the ``kpi`` rows of each day into temp table ``kpi``.

    Day D has rows of every day that is not settled at the end of D - 1 or that a row told on D is about, and of the
    longer windows that end on the day that settled or hold a corrected one. The engine has ``days`` and ``block_days``.

    Args:
        stored: the source's table with all generations of the files of ``reach_days`` before the first day on.
        listed: which generation which day's closing lists: ``(listed_on, source, day, generation)``.
        answerers: relation ``(unit, at, prediction_day, version, role)`` query over ``kpi_units``: who answered it.
        history: relation of table ``kpi``, ``reach_days`` before the first day; days before it only.
        blocked: days without predictions.
    """
    kpi = service.quality.kpi
    if kpi is None:
        return
    source, reach = service.source(own.source), reach_days(service)
    run(con, copy_sql("kpi_told", told_sql(own, source, stored, listed)))
    run(con, copy_sql("kpi_singles", singles_sql(own, service.first_day, reach)))
    run(con, copy_sql("kpi_units", units_sql(own)))
    run(con, copy_sql("kpi_answerers", answerers))
    run(con, copy_sql("kpi_sums", sums_sql(own, is_day=own.grain == "day")))
    run(con, own_days_sql(kpi.name, own, blocked))
    lengths = [length for length in service.quality.windows_days if length > 1]
    run(con, copy_sql("kpi_asked", windows_asked_sql(kpi.name, history, lengths)))
    add_windows(con, kpi.name, history)


def told_sql(own: KpiSource, source: Source, stored: str, listed: str) -> str:
    """SQL of ``kpi_told``: one version of a row of the source, true on the days ``[from_day, until_day)``."""
    unit = own.unit if own.unit is not None else "1"
    unit = (
        f"({unit})::varchar as unit, 1 as weight" if own.grain != "day" else f"'' as unit, ({unit})::bigint as weight"
    )
    parts = "".join(f", ({text})::varchar as {quote('slice_' + name)}" for name, text in own.slices.items())
    return f"""
        with versions as (
            select s.withdrawn, s.source_key, k.listed_on as from_day, s.{quote(source.event_at)} as seen_at, {unit},
                   round(({own.value}) * {VALUE_UNIT})::hugeint as value{parts},
                   coalesce(lead(k.listed_on) over (partition by s.day, source_key order by k.listed_on, s.generation),
                            date '9999-12-31') as until_day
            from {quote(stored)} as s
            join {quote(listed)} as k
              on k.source = {literal(source.name)} and k.day = s.day and k.generation = s.generation
        )
        select v.*, d.day as prediction_day
        from versions as v join days as d on seen_at >= d.start_at and seen_at < d.end_at
        where not withdrawn and unit is not null and value is not null
    """


def singles_sql(own: KpiSource, first: date, reach: int) -> str:
    """SQL of ``kpi_singles``: the single days that each of the block's days is asked about."""
    return f"""
        select b.day, p.day as prediction_day,
               case when p.day + {own.settles_after_days} <= b.day then 'final' else 'provisional' end as state
        from block_days as b join days as p on p.day between b.day - {own.settles_after_days} and b.day
        where p.day >= {literal(first)}
        union
        select b.day, prediction_day, 'restated' from block_days as b join (
            select from_day as day, prediction_day from kpi_told union select until_day, prediction_day from kpi_told
        ) using (day)
        where prediction_day between b.day - {reach} and b.day - {own.settles_after_days + 1}
          and prediction_day >= {literal(first)}
    """


def units_sql(own: KpiSource) -> str:
    """SQL of ``kpi_units``: one unit on one day, as known on a day; at day grain the day itself."""
    parts = "".join(f", arg_min({quote(name)}, (seen_at, source_key)) as {quote(name)}"
                    for name in ("slice_" + slice for slice in own.slices))  # fmt: skip
    return f"""
        select a.day, a.prediction_day, unit, min(seen_at) as seen_at, sum(value) as value,
               {"sum" if own.grain == "day" else "max"}(weight) as weight{parts}
        from kpi_singles as a
        join kpi_told as t on t.prediction_day = a.prediction_day and t.from_day <= a.day and a.day < t.until_day
        group by a.day, a.prediction_day, unit
    """


def routed_sql(routes: str, bucket: str) -> str:
    """SQL of ``kpi_answerers`` where requests are scored here: the version that serves the bucket of the unit.

    Reads ``kpi_units`` and ``routes(start_at, end_at, role, version, from_bucket, to_bucket)``; ``bucket`` is the SQL
    of the hash bucket of a column ``unit``.
    """
    return f"""
        select u.day, u.prediction_day, u.unit, r.version, r.role
        from (select *, {bucket} as bucket from kpi_units where unit <> '') as u
        join {quote(routes)} as r on u.seen_at >= r.start_at and u.seen_at < r.end_at
         and u.bucket >= r.from_bucket and u.bucket < r.to_bucket
    """


def logged_sql(predictions: str) -> str:
    """SQL of ``kpi_answerers`` where a log is read: the version that answered the request of the unit's id."""
    return f"""
        select u.day, u.prediction_day, u.unit, p.model_version as version, p.role
        from kpi_units as u join {quote(predictions)} as p
          on p.request_id = u.unit and p.served and p.prediction_day = u.prediction_day and p.day <= u.day
    """


def sums_sql(own: KpiSource, *, is_day: bool) -> str:
    """SQL of ``kpi_sums``: one version and slice on one day, as known on a day."""
    parts = "".join(f", {literal(name + '=')} || coalesce({quote('slice_' + name)}, 'null')" for name in own.slices)
    version = f"""
            union all
            select u.day, u.prediction_day, w.version, w.role, unnest([{literal(ALL)}{parts}]) as slice, value, weight
            from kpi_units as u join kpi_answerers as w using (day, prediction_day, unit)"""
    return f"""
        select day, prediction_day, version, role, slice, count(*) as counted, sum(weight)::bigint as n,
               sum(value)::double / {VALUE_UNIT} as total, sum(value * value)::double / {VALUE_UNIT**2} as squares
        from (
            select day, prediction_day, {literal(SERVED)} as version, {literal(SERVED)} as role,
                   unnest([{literal(ALL)}{parts}]) as slice, value, weight from kpi_units{"" if is_day else version}
        ) group by all
    """


def own_days_sql(name: str, own: KpiSource, blocked: Collection[date]) -> str:
    """SQL that adds one day's rows: the mean per unit, with a normal interval over units; at day grain without one.

    A day that nothing is told about, that is blocked, or whose units are still arriving, has a row that says so.
    """
    closed = ", ".join(literal(day) for day in sorted(blocked)) or "null"
    reason = f"""case when prediction_day in ({closed}) then 'blocked'
                      when state = 'provisional' then '{ARRIVE}' ||
                          (prediction_day + {own.settles_after_days})::date
                      when coalesce(n, 0) = 0 then 'source {own.source} says nothing about this day' end"""
    return f"""
        insert into kpi by name
        with found as (
            select a.*, coalesce(version, {literal(SERVED)}) as version, coalesce(role, {literal(SERVED)}) as role,
                   coalesce(slice, {literal(ALL)}) as slice, n, counted, total, squares,
                   nullif({reason}, '') as reason
            from kpi_singles as a left join kpi_sums using (day, prediction_day)
        ), valued as (select *, case when reason is null then total / n end as value, {half_of(own)} as half from found)
        select day, prediction_day, 1 as window_days, version, role, slice, {literal(name)} as kpi,
               '' as label_version, round(value, 9) as value, round(value - half, 9) as low,
               round(value + half, 9) as high, coalesce(total, 0) as total,
               case when value is not null then n end as expected, coalesce(n, 0) as n, coalesce(n, 0) as n_labelled,
               case when state <> 'provisional' then 1.0 end as completeness,
               case when value is null then 'not_measured' else state end as state, reason
        from valued
    """


def fresh_days_sql(name: str, own: KpiSource) -> str:
    """SQL that gives days that are not settled their probable value: the mean so far, corrected for what is to come.

    Reads ``kpi_sums`` and ``kpi_arrival(day, age, units, worth, variance)``: shares of both that have come. The
    interval adds what the shares owe to their error and to the speed of a day, by the delta method.
    """
    return f"""
        update kpi set value = round(f.value, 9), low = round(f.value - f.half, 9), high = round(f.value + f.half, 9),
               expected = round(f.n / f.units, 9), completeness = round(f.units, 9), state = 'provisional',
               reason = null
        from (
            select *, sqrt(pow(half_so_far * units / worth, 2) + pow({Z95!r} * value, 2) * variance) as half
            from (
                select s.*, a.units, a.worth, a.variance, total / n * units / worth as value,
                       {half_of(own)} as half_so_far
                from kpi_sums as s join kpi_arrival as a on a.day = s.day and a.age = s.day - s.prediction_day
                where n > 0
            )
        ) as f
        where kpi.day = f.day and kpi.prediction_day = f.prediction_day and kpi.version = f.version
          and kpi.role = f.role and kpi.slice = f.slice and kpi.window_days = 1 and kpi.kpi = {literal(name)}
          and kpi.reason like '{ARRIVE}%'
    """


def half_of(own: KpiSource) -> str:
    """SQL of half the interval of a mean per unit; at day grain there is none."""
    half = f"{Z95!r} * sqrt(greatest(squares - total * total / counted, 0) / (counted - 1) / counted)"
    return "null::double" if own.grain == "day" else f"case when counted > 1 then {half} end"


def windows_asked_sql(name: str, history: str, lengths: Sequence[int]) -> str:
    """SQL of ``kpi_asked``: the longer windows, for every version and slice that their last day has.

    They end on the day that settled, or hold a day that was corrected.
    """
    listed = ", ".join(f"({length})" for length in lengths)
    columns = "day, prediction_day, version, role, slice, value, kpi, window_days"
    asked = "select day, prediction_day, 0 as length, state from kpi_singles where state = 'final'"
    if not lengths:
        return f"""
            select day, prediction_day, 0 as window_days, '' as version, '' as role, '' as slice, '' as label_version,
                   0 as n, 1.0 as completeness, state, null::varchar as reason from ({asked}) where false
        """
    return f"""
        with settled as ({asked}), singles as (
            select {columns} from {quote(history)} union all by name select {columns} from kpi
        ), ends as (
            select s.day, s.prediction_day, w.length, 'final' as state from settled as s, (values {listed}) as w(length)
            union
            select c.day, e.day, w.length, 'restated' from kpi_singles as c, (values {listed}) as w(length)
            join days as e on e.day between c.prediction_day and c.prediction_day + (w.length - 1)::integer
            join settled as s on s.day = c.day and e.day < s.prediction_day
            where c.state = 'restated'
        )
        select distinct e.day, e.prediction_day, e.length as window_days, s.version, s.role, s.slice,
               '' as label_version, null::bigint as n, 1.0 as completeness, e.state, null::varchar as reason
        from ends as e join singles as s
          on s.prediction_day = e.prediction_day and s.day <= e.day and s.window_days = 1 and s.kpi = {literal(name)}
         and s.value is not null
    """
