"""Measure: what the answers were worth, in the declared unit, as known at the end of a day.

The questions (days, windows, versions) are those that ``quality`` answers for mature days, so the two tables
stand side by side. One day is counted from its requests; longer windows add up the days' newest counts. Values
are counted in millionths: sums are exact in any order, so a block gives the same bits as its days one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import fsum, sqrt
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.calendar import MICROSECOND
from mlops_assets.adapters.engine import copy_sql, literal, quote, rows, run
from mlops_assets.monitoring_loop.metrics import Z95, student
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.service.kpi import KpiPolicy
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.service import MLService
from mlops_assets.tables import BY_NAME

VALUE_UNIT = 1_000_000
"""Values of one request are counted in 1e-6."""


@dataclass(frozen=True)
class Worth:
    """One version in one role on one prediction day: requests with a value, alarms, and the sum of the values."""

    counted: int
    alarms: int
    total: float


def measure_kpi(con: duckdb.DuckDBPyConnection, service: MLService, *, days: Sequence[date], history: str) -> None:
    """Insert the ``kpi`` rows of each day into temp table ``kpi``; none without a declared KPI.

    Reads ``quality`` (of these days), ``predictions``, ``labels``.

    Args:
        history: relation of table ``kpi``, from the longest window before the first day on; days before it only.
    """
    kpi = service.quality.kpi
    if kpi is None or not days:
        return
    run(con, copy_sql("kpi_asked", kpi_asked_sql(service.label.version)))
    run(con, copy_sql("kpi_days", kpi_days_sql(kpi, tuple(service.slices), service.label)))
    run(con, single_days_sql(kpi.name))
    windows = rows(con, windows_asked_sql())
    if windows:
        newest = read_newest(con, history, kpi.name)
        found = [window_row(kpi.name, asked, newest) for asked in windows]
        columns = [column.name for column in BY_NAME["kpi"].columns]
        numbers = {c.name: "float64" for c in BY_NAME["kpi"].columns if c.type == "DOUBLE"}
        con.register("kpi_windows", pd.DataFrame(found, columns=columns).astype(numbers))
        run(con, windows_sql())
        con.unregister("kpi_windows")


def kpi_asked_sql(label_version: str) -> str:
    """SQL of ``kpi_asked``: the mature windows that ``quality`` answers for under one label definition."""
    return f"""
        select day, prediction_day, window_days, version, role, label_version, n, n_labelled, completeness, state
        from quality where slice = {literal(ALL)} and metric = 'positive_share' and state in ('final', 'restated')
          and label_version = {literal(label_version)}
    """


def kpi_days_sql(kpi: KpiPolicy, slices: Sequence[str], label: LabelDefinition) -> str:
    """SQL of ``kpi_days``: one version in one role on one prediction day, as known on a day.

    Reads   ``predictions``, ``labels`` and ``kpi_asked``.
    Returns requests with a value, how many of them were alarms, and the sums of values and of their squares.
    """
    named = "".join(f", json_extract_string(context, {literal('$.' + name)}) as {quote(name)}" for name in slices)
    return f"""
        with answers as (
            select asked.day, p.* exclude (day) from predictions as p
            join (select distinct day, prediction_day from kpi_asked where window_days = 1) as asked
              on p.prediction_day = asked.prediction_day and p.day <= asked.day
        ), truth as (
            select a.day, a.request_id, arg_max({{value: l.value}}, l.known_at).value > 0.5 as outcome
            from (select distinct day, request_id, predicted_at from answers) as a
            join labels as l on l.request_id = a.request_id and l.day <= a.day
            where l.label_version = {literal(label.version)}
              and (l.event_at is null or l.event_at <= a.predicted_at
                   + to_microseconds({label.window // MICROSECOND}))
            group by all
        ), valued as (
            select day, prediction_day, decision, round(({kpi.value}) * {VALUE_UNIT})::hugeint as value,
                   unnest([{{version: model_version, role: role}}] || case when served
                          then [{{version: {literal(SERVED)}, role: {literal(SERVED)}}}] else [] end, max_depth := 2)
            from (select day, prediction_day, model_version, role, served, score, decision, outcome{named}
                  from answers join truth using (day, request_id) where outcome is not null)
        )
        select day, prediction_day, version, role, count(value) as counted,
               count(value) filter (where decision) as alarms, sum(value)::double / {VALUE_UNIT} as total,
               sum(value * value)::double / {VALUE_UNIT**2} as squares
        from valued group by all
    """


def single_days_sql(name: str) -> str:
    """SQL that adds one day's rows: the mean over requests, with a normal interval over them."""
    half = f"{Z95!r} * sqrt(greatest(squares - total * total / counted, 0) / (counted - 1) / counted)"
    return f"""
        insert into kpi by name
        select day, prediction_day, window_days, version, role, {literal(ALL)} as slice, {literal(name)} as kpi,
               label_version, round(total / counted, 9) as value,
               round(total / counted - {half}, 9) as low, round(total / counted + {half}, 9) as high,
               total, alarms, n, counted as n_labelled, completeness, state
        from kpi_asked join kpi_days using (day, prediction_day, version, role)
        where window_days = 1 and counted > 1
    """


def windows_asked_sql() -> str:
    """SQL of the longer windows, in the order in which they are answered."""
    return """
        select day, prediction_day, window_days, version, role, label_version, n, completeness, state
        from kpi_asked where window_days > 1 order by all
    """


Newest = Mapping[tuple[str, str, date], Sequence[tuple[date, Worth]]]
"""(version, role, prediction day) -> what was known of it from which day on, oldest first."""


def newest_sql(history: str, name: str) -> str:
    """SQL of ``(version, role, prediction_day, day, counted, alarms, total)`` of single days, oldest news first."""
    columns = "version, role, prediction_day, day, n_labelled, alarms, total"
    return f"""
        select {columns} from (
            select {columns} from {quote(history)} where window_days = 1 and kpi = {literal(name)}
            union all select {columns} from kpi where window_days = 1
        ) order by all
    """


def read_newest(con: duckdb.DuckDBPyConnection, history: str, name: str) -> Newest:
    """What is known of single days: closed days before the block, and the block's own."""
    found: dict[tuple[str, str, date], list[tuple[date, Worth]]] = {}
    for version, role, last, day, counted, alarms, total in rows(con, newest_sql(history, name)):
        found.setdefault((version, role, last), []).append((day, Worth(counted, alarms, total)))
    return found


def window_row(name: str, asked: tuple[Any, ...], newest: Newest) -> tuple[Any, ...]:
    """A longer window, from what was known of its days then."""
    day, last, length, version, role, label_version, n, completeness, state = asked
    found = (newest.get((version, role, last - timedelta(days=back)), ()) for back in range(length))
    daily = [known[-1] for known in ([worth for told, worth in one if told <= day] for one in found) if known]
    value, low, high = mean_of_days(daily)
    why = None if daily else "no day of the window was measured"
    return (
        *(day, last, length, version, role, ALL, name, label_version, value, low, high),
        *(fsum(one.total for one in daily), sum(one.alarms for one in daily), n),
        *(sum(one.counted for one in daily), completeness, state if daily else "not_measured", why),
    )


def mean_of_days(daily: Sequence[Worth]) -> tuple[float | None, float | None, float | None]:
    """Value per request over several days and its 95 % interval, 9 decimals; the day is the unit.

    Linearised ratio of sums with days as clusters (W. G. Cochran, Sampling Techniques, 3rd ed. 1977, ch. 6) and
    Student's t; no bounds from one day alone.
    """
    counted = sum(one.counted for one in daily)
    if not counted:
        return None, None, None
    value = fsum(one.total for one in daily) / counted
    if len(daily) < 2:
        return round(value, 9), None, None
    spread = fsum(((one.total - value * one.counted) / counted) ** 2 for one in daily)
    half = float(student(np.array([len(daily) - 1.0]))[0]) * sqrt(len(daily) / (len(daily) - 1) * spread)
    return round(value, 9), round(value - half, 9), round(value + half, 9)


def windows_sql() -> str:
    """SQL that adds the longer windows."""
    return "insert into kpi by name select * replace (day::date as day) from kpi_windows"
