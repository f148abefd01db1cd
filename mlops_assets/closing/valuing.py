"""Third step, computing: what the answers of the block's days were worth (table ``kpi``)."""

from collections.abc import Collection, Sequence
from datetime import date, timedelta

import duckdb

from mlops_assets.adapters.engine import put, run
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing import arriving
from mlops_assets.closing.known import KnownGeneration
from mlops_assets.closing.world import World, arrow, source_columns
from mlops_assets.feedback_loop.prediction_log import bucket_sql
from mlops_assets.monitoring_loop import kpi_source
from mlops_assets.monitoring_loop.kpi import measure_kpi
from mlops_assets.monitoring_loop.quality import history_days
from mlops_assets.service.kpi import KpiSource
from mlops_assets.tables import BY_NAME, Column

_LISTED = (
    Column("listed_on", "DATE", ""), Column("source", "VARCHAR", ""), Column("day", "DATE", ""),
    Column("generation", "INTEGER", ""),
)  # fmt: skip
_ROUTES = (
    Column("start_at", "TIMESTAMP", ""), Column("end_at", "TIMESTAMP", ""), Column("role", "VARCHAR", ""),
    Column("version", "VARCHAR", ""), Column("from_bucket", "INTEGER", ""), Column("to_bucket", "INTEGER", ""),
)  # fmt: skip


def measure_kpis(
    world: World,
    con: duckdb.DuckDBPyConnection,
    days: Sequence[date],
    *,
    known: Sequence[KnownGeneration],
    routes: Sequence[Row],
    blocked: Collection[date],
) -> None:
    """Temp table ``kpi`` of the block's days; the closed single days that longer windows add up are ``closed_kpi``.

    Args:
        routes: where requests are scored here, which version answered which buckets, over ``reach_days``.
    """
    table, first, own = BY_NAME["kpi"], min(days), own_source(world)
    run(con, table.create_sql())
    if world.service.quality.kpi is None:
        return
    reach = timedelta(days=history_days(world.service) if own is None else kpi_source.reach_days(world.service))
    back = max(reach, timedelta(days=arriving.history_days(own) if own else 0))
    world.lake.view(
        con, table.name, table.columns, name="closed_kpi", first=first - back, last=first - timedelta(days=1)
    )
    if own is None:
        measure_kpi(con, world.service, days=days, history="closed_kpi", completeness="completeness")
        return
    source = world.service.source(own.source)
    listed = [
        k for k in known if k.source == own.source and k.arrival_day >= first - reach and k.listed_on <= max(days)
    ]
    put(con, "kpi_listed", arrow([_listing(k) for k in listed], _LISTED))
    put(con, "kpi_routes", arrow(routes, _ROUTES))
    world.shared.view(
        con, source.name, source_columns(source), name="stored_kpi", first=first - reach, last=max(days), is_open=True
    )
    routed = kpi_source.routed_sql("kpi_routes", bucket_sql(world.name, "unit"))
    kpi_source.measure_own_kpi(
        con, world.service, own, stored="stored_kpi", listed="kpi_listed",
        answerers=kpi_source.logged_sql("predictions") if world.service.is_monitor_only else routed,
        days=days, history="closed_kpi", blocked=blocked,
    )  # fmt: skip
    arriving.correct_fresh_days(con, world.service.quality.kpi.name, own, days=days, history="closed_kpi")


def own_source(world: World) -> KpiSource | None:
    """The source of its own that the KPI comes from, if it has one."""
    return world.service.quality.kpi.source if world.service.quality.kpi else None


def _listing(known: KnownGeneration) -> Row:
    return {
        "listed_on": known.listed_on, "source": known.source, "day": known.arrival_day, "generation": known.generation,
    }  # fmt: skip
