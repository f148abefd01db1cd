"""Measure: the KPI over several days, from what was known of each of them at the end of a day."""

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import copy_sql, literal, put, quote, run
from mlops_assets.monitoring_loop.metrics import Z95
from mlops_assets.monitoring_loop.metrics_windows import student

VALUE_UNIT = 1_000_000
"""Values of one request are counted in 1e-6."""
MOST_DAYS = 400


def add_windows(con: duckdb.DuckDBPyConnection, name: str, history: str) -> None:
    """Add the longer windows of ``kpi_asked`` to ``kpi``, whose single days are there.

    Reads ``kpi_asked(day, prediction_day, window_days, version, role, slice, label_version, n, completeness, state)``.

    Args:
        history: relation of table ``kpi``; days before the block only.
    """
    degrees = np.arange(1, MOST_DAYS)
    put(con, "kpi_student", pd.DataFrame({"degrees": degrees, "t": student(degrees.astype(np.float64))}))
    run(con, copy_sql("kpi_news", news_sql(history, name)))
    run(con, windows_sql(name))


def news_sql(history: str, name: str) -> str:
    """SQL of ``kpi_news``: what was known of a single day, from one day until another.

    ``above`` and ``below`` are the sums that a value is the ratio of, ``error`` the standard error of the value where
    labels were still to come.
    """
    columns = """version, role, slice, label_version, prediction_day, day, value, low, high, total, alarms,
                 n_labelled, expected, state, kpi, window_days"""
    return f"""
        select version, role, slice, label_version, prediction_day, day as from_day,
               coalesce(lead(day) over (partition by version, role, slice, label_version, prediction_day order by day),
                        date '9999-12-31') as until_day,
               value, total as above, coalesce(expected, n_labelled) as below, alarms, n_labelled,
               case when state = 'provisional' then (high - low) / {2 * Z95!r} else 0.0 end as error
        from (select {columns} from {quote(history)} union all by name select {columns} from kpi)
        where window_days = 1 and kpi = {literal(name)}
    """


def windows_sql(name: str) -> str:
    """SQL that adds the longer windows; the day is the unit of their intervals.

    Linearised ratio of sums with days as clusters (W. G. Cochran, *Sampling Techniques*, 3rd ed. 1977, ch. 6) and
    Student's t; no bounds from one day alone. What is uncertain about the completeness of its newest days moves them
    together, so their errors are added before they are squared, which is the most it can be.
    """
    sum_of = "list_aggregate(list({} order by last), 'fsum')"
    keys = "day, prediction_day, window_days, version, role, slice"
    return f"""
        insert into kpi by name
        with daily as (
            select a.*, k.prediction_day as last, k.value, above, below, alarms, k.n_labelled, error
            from (select * from kpi_asked where window_days > 1) as a
            left join kpi_news as k
              on k.version = a.version and k.role = a.role and k.slice = a.slice and k.value is not null
             and a.reason is null and k.label_version = a.label_version
             and k.prediction_day between a.prediction_day - (a.window_days - 1)::integer and a.prediction_day
             and k.from_day <= a.day and a.day < k.until_day
        ), summed as (
            select {keys}, any_value(label_version) as label_version, any_value(n) as n,
                   any_value(completeness) as completeness, any_value(state) as state, any_value(reason) as why,
                   count(last) as days, coalesce(sum(alarms), 0)::bigint as alarms,
                   coalesce(sum(n_labelled), 0)::bigint as n_labelled, {sum_of.format("above")} as above,
                   {sum_of.format("below")} as below, {sum_of.format("error * below")} as error
            from daily group by {keys}
        ), spread as (
            select {keys}, {sum_of.format("pow((d.above - s.above / s.below * d.below) / s.below, 2)")} as squares
            from daily as d join summed as s using ({keys}) group by {keys}
        ), bounded as (
            select *, above / below as value,
                   sqrt(t * t * days / (days - 1) * squares + pow({Z95!r} * error / below, 2)) as half
            from summed join spread using ({keys}) left join kpi_student on degrees = days - 1
        )
        select {keys}, {literal(name)} as kpi, label_version, round(value, 9) as value, round(value - half, 9) as low,
               round(value + half, 9) as high, round(coalesce(above, 0), 9) as total, round(below, 9) as expected,
               alarms, n, n_labelled, completeness, case when days > 0 then state else 'not_measured' end as state,
               case when days = 0 then coalesce(why, 'no day of the window was measured') end as reason
        from bounded
    """
