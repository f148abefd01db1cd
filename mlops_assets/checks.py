"""Asset checks: what the tables say about the days of a run, once per run. The tables are the record, not these."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.adapters.asset_specs import key_of, source_key
from mlops_assets.adapters.engine import literal, rows
from mlops_assets.closing.standing import standing_before
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.findings import RANK
from mlops_assets.service.service import MLService
from mlops_assets.tables import BY_NAME

SHOWN = 20
"""Findings that a check lists; the tables have all of them."""


def check_specs(service: MLService) -> list[dg.AssetCheckSpec]:
    """One check per source contract, one for freshness, one for drift. They block nothing."""
    contracts = [
        dg.AssetCheckSpec(
            "contract",
            asset=source_key(source.name),
            description=f"Every promise of contract '{source.contract}' held on every delivered file of the run.",
        )
        for source in service.sources
    ]
    return [
        *contracts,
        dg.AssetCheckSpec(
            "freshness",
            asset=key_of(service, "features"),
            description="No view was older than it promises, by the data's own clock.",
        ),
        dg.AssetCheckSpec(
            "tier",
            asset=key_of(service, "drift"),
            description="Nothing moved further than expected: no finding is moderate, severe or unknown.",
        ),
        dg.AssetCheckSpec(
            "incidents",
            asset=key_of(service, "verdict"),
            description="No incident is open. One is closed by a named person: `mlops close`.",
        ),
    ]


def check_results(
    world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date], wanted: set[dg.AssetCheckKey]
) -> Iterator[dg.AssetCheckResult]:
    """Evaluate the wanted checks over the days of one run."""
    found = {
        **{dg.AssetCheckKey(source_key(s.name), "contract"): (s.name, "contracts") for s in world.service.sources},
        dg.AssetCheckKey(key_of(world.service, "features"), "freshness"): (
            "",
            "freshness",
        ),
        dg.AssetCheckKey(key_of(world.service, "drift"), "tier"): ("", "drift"),
    }
    for name in sorted({table for key, (_source, table) in found.items() if key in wanted}):
        lake = world.shared if BY_NAME[name].is_shared else world.lake
        lake.view(con, name, BY_NAME[name].columns, first=min(days), last=max(days))
    for key in sorted(wanted & set(found)):
        source, name = found[key]
        yield _result(key, rows(con, _FINDINGS[name](source, days)), len(days))
    of_incidents = dg.AssetCheckKey(key_of(world.service, "verdict"), "incidents")
    if of_incidents in wanted:
        standing = standing_before(world, max(days) + timedelta(days=1))
        found_open = sorted(standing.incidents.values(), key=lambda one: (-RANK[one.tier], one.opened_on))
        severity = {"severe": "critical"}
        listed = [(i.opened_on, i.incident_id, severity.get(i.tier, "warning"), i.text) for i in found_open]
        yield _result(of_incidents, listed, len(days))


def contract_findings_sql(source: str, days: Sequence[date]) -> str:
    """SQL of ``(day, what, severity, message)``: promises that the newest delivery of a day broke."""
    return f"""
        select day, expectation, severity, coalesce(message, observed) from (
            select *, max(generation) over (partition by day) as newest
            from contracts where source = {literal(source)} and day in ({_listed(days)})
        ) where generation = newest and not success order by day, expectation
    """


def freshness_findings_sql(_source: str, days: Sequence[date]) -> str:
    """SQL of ``(day, what, severity, message)``: views that are stale or whose source is missing."""
    return f"""
        select day, view, 'warning', format('{{}}: {{}} hours old, promised {{}}', state, age_hours, max_age_hours)
        from freshness where state in ('stale', 'missing') and day in ({_listed(days)}) order by day, view
    """


def drift_findings_sql(_source: str, days: Sequence[date]) -> str:
    """SQL of ``(day, what, severity, message)``: findings that ask for a person."""
    return f"""
        select day, column_name || ' ' || statistic, if(tier = 'severe', 'critical', 'warning'), tier || ': ' || reason
        from drift where tier in ('moderate', 'severe', 'unknown') and day in ({_listed(days)})
        order by day, column_name, statistic
    """


_FINDINGS = {"contracts": contract_findings_sql, "freshness": freshness_findings_sql, "drift": drift_findings_sql}


def _listed(days: Sequence[date]) -> str:
    return ", ".join(literal(day) for day in days)


def _result(key: dg.AssetCheckKey, found: Sequence[tuple[Any, ...]], days: int) -> dg.AssetCheckResult:
    """Passed if nothing was found; an error if one finding is critical. Neither stops anything."""
    is_critical = any(severity == "critical" for _day, _what, severity, _message in found)
    listed = [
        dg.TableRecord({"day": str(day), "what": str(what), "severity": str(severity), "message": str(message)})
        for day, what, severity, message in found[:SHOWN]
    ]
    metadata: dict[str, Any] = {"days": days, "findings": len(found)}
    if listed:
        metadata["first findings"] = dg.MetadataValue.table(listed)
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_critical else dg.AssetCheckSeverity.WARN,
        description=f"{found[0][0]}: {found[0][3]}"[:300] if found else f"held on {days} days",
        metadata=metadata,
    )
