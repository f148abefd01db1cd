"""Third step, computing: what a KPI with a source of its own will be once everything about a day has come."""

from collections.abc import Sequence
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, literal, put, quote, run
from mlops_assets.feedback_loop.maturity import LOOKBACK_DAYS, MIN_DAYS, Triangle, product_limit
from mlops_assets.monitoring_loop.kpi_source import fresh_days_sql
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.service.kpi import KpiSource

UNITS, WORTH = 0, 1
"""Places of the two curves in a triangle: how many units of a day have come, and what they are worth."""


def history_days(own: KpiSource) -> int:
    """Days of earlier rows of ``kpi`` that a curve reads."""
    return LOOKBACK_DAYS + own.settles_after_days if own.settles_after_days else 0


def correct_fresh_days(
    con: duckdb.DuckDBPyConnection, name: str, own: KpiSource, *, days: Sequence[date], history: str
) -> None:
    """Give the rows of days that are not settled, in temp table ``kpi``, the value that they will probably have.

    What had come of earlier days by each age stands in the rows that were written then: the same product limit as for
    labels (``feedback_loop/maturity.py``), once over units and once over their worth. Late units may be worth more or
    less than early ones. All versions and slices share both curves; before ten settled days there are none.

    Args:
        history: relation of table ``kpi``, ``history_days`` before the first day; days before it only.
    """
    if not own.settles_after_days:
        return
    told = frame(con, told_so_far_sql(name, history))
    triangle = Triangle.empty(min(days) - timedelta(days=history_days(own)), max(days), own.settles_after_days)
    age = told["age"].to_numpy(int)
    place = triangle.positions(told["day"]) - age
    there = (place >= 0) & (age <= own.settles_after_days)  # what is told later restates, and is nobody's to wait for
    for what, column in ((UNITS, "n"), (WORTH, "total")):
        triangle.arrived[place[there], age[there], what, 0] = told[column].to_numpy(np.float64)[there]
    found = [row for day in days for row in shares_of(triangle, day, own)]
    if found:
        put(con, "kpi_arrival", pd.DataFrame(found).assign(day=lambda rows: pd.to_datetime(rows["day"])))
        run(con, fresh_days_sql(name, own))


def shares_of(triangle: Triangle, day: date, own: KpiSource) -> list[dict[str, object]]:
    """Per age the shares of units and of worth that have come, and the variance of the logarithm of their ratio."""
    curve = product_limit(triangle, day)
    if curve.days[0] < MIN_DAYS:
        return []
    found = []
    for age in range(own.settles_after_days):
        units, worth = curve.share[age, :, 0]
        of_units, of_worth = curve.variance[age, :, 0]
        variance = max(float(of_units + of_worth - 2 * curve.covariance[age, 0]), 0.0)
        if units > 0 and worth > 0 and np.isfinite(variance):
            found.append({"day": day, "age": age, "units": units, "worth": worth, "variance": variance})
    return found


def told_so_far_sql(name: str, history: str) -> str:
    """SQL of ``(day, age, n, total)``: what had come of a day by each age, of what was served."""
    columns = "day, prediction_day, window_days, version, slice, kpi, n, total, reason"
    return f"""
        select day, day - prediction_day as age, max(n) as n, max(total) as total
        from (select {columns} from {quote(history)} union all by name select {columns} from kpi)
        where window_days = 1 and version = {literal(SERVED)} and slice = {literal(ALL)} and kpi = {literal(name)}
          and reason is distinct from 'blocked'
        group by day, prediction_day
    """
