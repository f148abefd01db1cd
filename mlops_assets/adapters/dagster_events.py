"""What a run tells Dagster's history: one materialization per asset and day that was really computed."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.adapters.asset_specs import key_of, source_key
from mlops_assets.adapters.engine import literal, quote, rows
from mlops_assets.service.sources import Source
from mlops_assets.tables import BY_NAME

if TYPE_CHECKING:
    from mlops_assets.adapters.ledger import Row
    from mlops_assets.closing.world import World
    from mlops_assets.day_loop import DayReport

Log = Callable[[dg.AssetMaterialization], None]
BUDGET = "alarm_budget"
TABLE_OF = {"verdict": "verdicts"}
"""Assets whose table has another name."""
NEEDS_REQUESTS = frozenset({"features", "profiles", "predictions"})
"""What a blocked day does not get."""


def _done(key: dg.AssetKey, day: date, count: int | None, **more: Any) -> dg.AssetMaterialization:
    metadata = {"dagster/partition_row_count": count} if count is not None else {}
    return dg.AssetMaterialization(key, partition=day.isoformat(), metadata={**metadata, **more})


def sources_done(
    world: "World", con: duckdb.DuckDBPyConnection, days: Sequence[date], sources: Iterable[Source], log: Log
) -> None:
    """Report the days of each source that were delivered and accepted, or on which nothing was due."""
    from mlops_assets.closing.known import newest_deliveries
    from mlops_assets.closing.world import source_columns

    newest = newest_deliveries(world)
    for source in sources:
        world.shared.view(con, source.name, source_columns(source), first=min(days), last=max(days))
        counts = dict(rows(con, source_rows_sql(source.name)))
        for day in days:
            delivery = newest.get((source.name, day))
            if delivery is not None and delivery["outcome"] == "accepted":
                log(_done(source_key(source.name), day, counts.get(day, 0), generation=delivery["generation"]))
            elif delivery is None and not source.expected.covers(day):
                log(_done(source_key(source.name), day, 0, state="not expected"))


def source_rows_sql(source: str) -> str:
    """SQL of ``(day, rows)`` of a source as its newest generations leave it."""
    return f"""
        select day, count(*) from (
            select day, withdrawn from {quote(source)}
            qualify row_number() over (partition by day, source_key order by generation desc) = 1
        ) where not withdrawn group by day
    """


def features_done(
    world: "World", con: duckdb.DuckDBPyConnection, days: Sequence[date], names: Sequence[str], log: Log
) -> None:
    """Report the days of the second pass that are not blocked."""
    from mlops_assets.closing.known import blocked_days, known_for, source_states

    blocked = blocked_days(world, source_states(world, known_for(world, days), days))
    charts, newest = chart_pages(world, names, world.closed_through()), max(days)
    for name, day, count, _state in generation_rows(world, con, days, names):
        if day not in blocked:
            log(_done(key_of(world.service, name), day, count, **(charts.get(name, {}) if day == newest else {})))


def generation_rows(
    world: "World", con: duckdb.DuckDBPyConnection, days: Sequence[date], names: Sequence[str]
) -> list[tuple[Any, ...]]:
    """``(asset, day, rows, state)`` as table ``generations`` has them, in day order."""
    world.lake.view(con, "generations", BY_NAME["generations"].columns, first=min(days), last=max(days))
    asset_of = {TABLE_OF.get(name, name): name for name in names}
    found = rows(con, generation_rows_sql(list(asset_of), days))
    return [(asset_of[table], day, count, state) for table, day, count, state in found]


def generation_rows_sql(tables: Sequence[str], days: Sequence[date]) -> str:
    """SQL of ``(table, day, rows, state)`` of some tables and days."""
    return f"""
        select table_name, day, rows, state from generations
        where table_name in ({", ".join(map(literal, tables)) or "null"})
          and day in ({", ".join(map(literal, days))}) order by day, table_name
    """


def loop_done(world: "World", report: "DayReport", names: Sequence[str], log: Log) -> None:
    """Report one day of the day loop; a blocked day has no predictions."""
    is_newest = report.day == world.closed_through()  # one of a block: these are pages, not records
    charts = chart_pages(world, names, report.day) if is_newest else {}
    for name in names:
        if report.state == "blocked" and name in NEEDS_REQUESTS:
            continue
        count = report.rows.get(TABLE_OF.get(name, name))
        more: dict[str, Any] = {}
        if name == "verdict":
            more = {"verdict": report.verdict, "reason": report.reason, "decisions": ", ".join(report.decisions)}
            if report.open_incidents:
                more["open incidents"] = incidents_page(world, report)
            if report.changes:
                more["changes"] = changes_table(report.changes)
        if is_newest:
            more |= charts.get(name, {})
            more |= definitions_page(world, report.day) if name == "labels" else {}
        log(_done(key_of(world.service, name), report.day, count, closing=report.is_new, **more))
    if report.alarm_budget:
        log(dg.AssetMaterialization(key_of(world.service, BUDGET), metadata=budget_metadata(report.alarm_budget)))


def chart_pages(world: "World", names: Sequence[str], day: "date | None") -> dict[str, dict[str, Any]]:
    """The series that stand for each asset over ten weeks, with what changed as marks; none without a day."""
    from mlops_assets.closing.plotting import charts_of_assets

    drawn = charts_of_assets(world, names, day) if day else {}
    pages = {name: "\n\n".join(f"```\n{one}\n```" for one in charts) for name, charts in drawn.items()}
    return {name: {"chart": dg.MetadataValue.md(page)} if page else {} for name, page in pages.items()}


def budget_metadata(rows: "Sequence[Row]") -> dict[str, Any]:
    """The week's report: everything first, then the causes, and what might be changed."""
    from mlops_assets.monitoring_loop.alarm_budget import BudgetRow, in_words

    told = [BudgetRow(**{name: row[name] for name in BudgetRow.__dataclass_fields__}) for row in rows]
    listed = [dg.TableRecord({"scope": row.scope, "report": in_words(row)}) for row in told]
    return {
        "week to": str(told[0].day), "state": told[0].state, "incidents": told[0].incidents,
        "report": dg.MetadataValue.md("\n".join(f"- {in_words(row)}" for row in told)),
        "scopes": dg.MetadataValue.table(listed),
    }  # fmt: skip


def incidents_page(world: "World", report: "DayReport") -> dg.MarkdownMetadataValue:
    """The open incidents, and the playbooks of those that people were told of on this day."""
    from mlops_assets.closing.incident_pages import incident_page

    lines = [f"- `{one.incident_id}` ({one.tier}, {one.state}): {one.text}" for one in report.open_incidents]
    pages = [incident_page(world, one, report.day) for one in report.open_incidents if one.told_on == report.day]
    return dg.MetadataValue.md("\n\n---\n\n".join(["\n".join(lines), *pages]))


def definitions_page(world: "World", day: date) -> dict[str, dg.MarkdownMetadataValue]:
    """Two label definitions side by side, where there are two: agreement, rates, and every model under both."""
    from mlops_assets.closing.comparing import compared_definitions, comparison_page

    compared = compared_definitions(world, day)
    return {"definitions side by side": dg.MetadataValue.md(comparison_page(compared))} if compared else {}


def changes_table(changes: "Sequence[Row]") -> dg.TableMetadataValue:
    """What changed behind the numbers of a day, to be seen beside them."""
    names = ("kind", "subject", "before", "after", "by", "reason")
    return dg.MetadataValue.table([dg.TableRecord({name: str(row[name]) for name in names}) for row in changes])


def closed_before(
    world: "World", con: duckdb.DuckDBPyConnection, days: Sequence[date], names: Sequence[str], log: Log
) -> None:
    """Report closed days that the history lacks, from what the tables say."""
    closings = world.ledger.closings(world.name)
    sources_done(world, con, days, world.service.sources, log)
    for name, day, count, _state in generation_rows(world, con, days, names):
        if closings[day]["state"] != "blocked" or name not in NEEDS_REQUESTS:
            log(_done(key_of(world.service, name), day, count, reported="from the tables, without a run"))


def training_done(world: "World", decision_ids: set[str], log: Log) -> None:
    """Report what the decisions to train led to: the gate's verdict, and who was released."""
    gates = {row["decision_id"]: row for row in world.ledger.effective("gates", world.name)}
    releases = world.releases()
    for decision_id in sorted(decision_ids & set(gates)):
        gate = gates[decision_id]
        common = {
            "decision": decision_id,
            "day": str(gate["day"]),
            "fingerprint": str(gate["fingerprint"]),
            "candidate": str(gate["candidate"]),
        }
        judged = {"rival": str(gate["rival"]), "verdict": gate["verdict"], "reasons": "; ".join(gate["reasons"])}
        released = {r["role"]: r["model_version"] for r in releases if r["decision_id"] == decision_id}
        told: dict[str, dict[str, Any]] = {
            "training_set": {}, "candidate": {}, "evaluation": judged, "release": {**judged, **released},
        }  # fmt: skip
        for name, more in told.items():
            log(dg.AssetMaterialization(key_of(world.service, name), metadata={**common, **more}))
