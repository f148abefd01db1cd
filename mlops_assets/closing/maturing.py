"""Third step, computing: how much of the labels is known at which age, as of the end of each day of a block."""

from collections.abc import Sequence
from datetime import date, timedelta

import duckdb

from mlops_assets.adapters.engine import append_sql, frame, literal, put, quote, run
from mlops_assets.closing.world import World
from mlops_assets.feedback_loop.maturity import (
    ALL,
    Triangle,
    completeness_frame,
    fill_triangle,
    history_days,
    horizon_days,
    recall_triangle,
    triangle_sql,
)
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.tables import BY_NAME

TABLE = "completeness"


def measure_completeness(world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date]) -> None:
    """Temp table ``completeness`` of the block's days, from its predictions and labels and from earlier rows.

    What had arrived on the days before the block stands in the rows that those days wrote: the history that is
    read grows with the days, not with the predictions.
    """
    run(con, BY_NAME[TABLE].create_sql())
    for label in world.service.labels:
        _measure(world, con, label, min(days), max(days), days)


def _measure(
    world: World, con: duckdb.DuckDBPyConnection, label: LabelDefinition, first: date, last: date, days: Sequence[date]
) -> None:
    """The rows of one label definition."""
    table, closed = BY_NAME[TABLE], first - timedelta(days=1)
    start = first - timedelta(days=history_days(label))
    world.lake.view(con, TABLE, table.columns, name="closed_completeness", first=start, last=closed)
    stored = frame(con, arrived_sql("closed_completeness"), [label.version])
    asked = first - timedelta(days=horizon_days(label))
    slices = tuple(world.service.quality.slices)
    counted = frame(
        con,
        triangle_sql(label, predictions="predictions", labels="labels", first=asked, last=last, slices=slices),
    )
    named = {*stored["slice"].unique(), *counted["slice"].unique()}
    triangle = Triangle.empty(start, last, horizon_days(label), sorted(named))
    recall_triangle(triangle, stored)
    fill_triangle(triangle, counted)
    put(con, "completeness_found", completeness_frame(triangle, label, days))
    run(con, append_sql(TABLE, "completeness_found"))


def arrived_sql(stored: str) -> str:
    """SQL of what earlier days of one label version counted; parameter: the version."""
    return f"""
        select day, coalesce(slice, {literal(ALL)}) as slice, outcome, age_days, arrived from {quote(stored)}
        where label_version = ?
    """
