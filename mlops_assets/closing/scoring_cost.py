"""Third step, what scoring used: CPU seconds and memory of this process, shared by the rows of a version and day.

A block is scored version by version, not day by day, so a day gets its rows' part of the CPU seconds, and the memory
is that of the whole block. Both belong to the machine that closed the day; a day that is computed again keeps them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from mlops_assets.adapters.engine import rows, run
from mlops_assets.adapters.stopwatch import Used
from mlops_assets.closing.world import World, arrow
from mlops_assets.monitoring_loop.training_cost import Training
from mlops_assets.tables import BY_NAME, Column

USED_COLUMNS = (
    Column("day", "DATE", ""), Column("version", "VARCHAR", ""), Column("n", "BIGINT", ""),
    Column("cpu_seconds", "DOUBLE", ""), Column("peak_mib", "DOUBLE", ""),
)  # fmt: skip


@dataclass(frozen=True)
class Scoring:
    """One stretch of rows that one version scored: how many of each day, and what that used."""

    version: str
    rows: dict[date, int]
    used: Used


def add_scoring_cost(
    world: World, con: duckdb.DuckDBPyConnection, scorings: Sequence[Scoring], days: Sequence[date]
) -> None:
    """Fill ``cpu_seconds`` and ``peak_mib`` of the block's rows of ``operations``; closed days keep what they had."""
    listed = [
        {"day": day, "version": one.version, "n": n, "peak_mib": round(one.used.peak_mib, 3),
         "cpu_seconds": one.used.cpu_seconds * n / sum(one.rows.values())}
        for one in scorings
        for day, n in one.rows.items()
    ]  # fmt: skip
    con.register("scoring_used", arrow(listed, USED_COLUMNS))
    run(con, share_scoring_sql())
    con.unregister("scoring_used")
    closed = world.closed_through()
    if closed is not None and min(days) <= closed:
        table = BY_NAME["operations"]
        world.lake.view(con, table.name, table.columns, name="told_operations", first=min(days), last=closed)
        run(con, recall_scoring_sql())


def share_scoring_sql() -> str:
    """SQL that gives each version and slice of a day its rows' part of what scoring used."""
    return """
        update operations set cpu_seconds = round(used.cpu_seconds * operations.n / used.n, 9), peak_mib = used.peak_mib
        from (
            select day, version, sum(n) as n, sum(cpu_seconds) as cpu_seconds, max(peak_mib) as peak_mib
            from scoring_used group by all
        ) as used
        where operations.day = used.day and operations.version = used.version and operations.n > 0
    """


def recall_scoring_sql() -> str:
    """SQL that gives closed days back what their closing wrote down."""
    return """
        update operations set cpu_seconds = told.cpu_seconds, peak_mib = told.peak_mib from told_operations as told
        where operations.day = told.day and operations.version = told.version and operations.slice = told.slice
    """


def scored_days_sql() -> str:
    """SQL of ``(day, rows, CPU seconds, MiB)`` of all versions that scored, oldest day first."""
    return """
        select day, sum(n)::bigint, sum(cpu_seconds), max(peak_mib) from all_operations
        where slice = 'all' and cpu_seconds is not null group by day order by day
    """


def scored_days(con: duckdb.DuckDBPyConnection) -> list[Training]:
    """What scoring used on each day, as the watch over trainings reads it."""
    return [Training(str(day), day, n, cpu, peak) for day, n, cpu, peak in rows(con, scored_days_sql())]
