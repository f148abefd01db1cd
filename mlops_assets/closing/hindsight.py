"""What rules say about days that are closed: the same functions over stored ``quality``; nothing is written."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import copy_sql, literal, open_engine, put, register_days, run
from mlops_assets.closing.roles import ROLE_COLUMNS, told_by_ledger
from mlops_assets.closing.world import World, arrow
from mlops_assets.monitoring_loop.evidence import asked_by, reach_days, read_evidence
from mlops_assets.monitoring_loop.grid import history_days, series_from_profiles
from mlops_assets.monitoring_loop.plain_rules import RuleRecord, records
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.rules import QualityJudgement, judge_quality
from mlops_assets.tables import BY_NAME

BLOCK_DAYS = 28
QUARTER_DAYS = 91


def stored_quality_sql(label_version: str, slices: Iterable[str]) -> str:
    """SQL of the rows that rules read: quality (of all, of some slices, of any slice on a day), and the KPI."""
    return f"""
        select * from (
            select * from quality where window_days = 1 or slice in ({", ".join(literal(part) for part in slices)})
            union all by name select * exclude (total, expected, alarms, kpi), kpi as metric from kpi
        ) where label_version in ({literal(label_version)}, '')
    """


def judged_days(world: World, first: date, last: date) -> list[QualityJudgement]:
    """What today's rules say about closed days, each from the quality rows that were known by its end."""
    closings = world.ledger.closings(world.name)
    blocked = {day for day, row in closings.items() if row["state"] == "blocked"}
    days = [day for day in days_between(first, last) if day in closings]
    if not days:
        return []
    with open_engine() as con:
        start = first - timedelta(days=reach_days(world.service, "quality"))
        for name in ("quality", "kpi"):
            world.lake.view(con, name, BY_NAME[name].columns, first=start, last=last)
        read = {ALL, *(asked.slice for asked in asked_by(world.service))}
        run(con, copy_sql("all_quality", stored_quality_sql(world.service.label.version, sorted(read))))
        register_days(con, world.calendar, start, last)
        return [
            found
            for part in _parts(days)
            for found in judge_quality(
                world.service, read_evidence(con, world.service, days=part, blocked=blocked), con=con
            )
        ]


def rule_records(world: World, last: date) -> list[RuleRecord]:
    """What the declared plain rules would have done in the quarter that ends on ``last``."""
    policy, first = world.service.drift, max(last - timedelta(days=QUARTER_DAYS - 1), world.service.first_day)
    if not policy.rules:
        return []
    start = max(first - timedelta(days=history_days(policy)), world.service.first_day)
    told, _ = told_by_ledger(world, list(days_between(start, last)))
    with open_engine() as con:
        world.lake.view(con, "profiles", BY_NAME["profiles"].columns, first=start, last=last)
        put(con, "roles", arrow(told, ROLE_COLUMNS))
        label = world.service.label.version
        series = series_from_profiles(con, profiles="profiles", roles="roles", label_version=label)
    return records(series, list(days_between(first, last)), policy)


def _parts(days: Sequence[date]) -> list[Sequence[date]]:
    return [days[start : start + BLOCK_DAYS] for start in range(0, len(days), BLOCK_DAYS)]
