"""What the incidents of a replayed home say: how many people were asked, and what became of known facts of the year.

Printed by ``benchmarks/monitor.py``: from the home's own ledger and tables, nothing is judged again; and, through the
life cycle that the service itself uses, what becomes of faults that never end and that nobody answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd
from monitor_faults import CATALOGUE, SCHEDULE
from monitor_year import Year, seen_on, with_fault

from mlops_assets.adapters.engine import rows
from mlops_assets.adapters.people_sql import open_views
from mlops_assets.closing.drifting import source_of
from mlops_assets.closing.standing import Standing
from mlops_assets.closing.telling import message
from mlops_assets.closing.world import World
from mlops_assets.decisions import TOLD, Kind
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.incidents import (
    LEVEL,
    going_on,
    level_check,
    next_events,
    opened,
    with_upstream_causes,
)
from mlops_assets.monitoring_loop.verdict import drift_findings

QUARTER = 91
MOST_DRIFT, MOST = 4, 8
"""Incidents a quarter that are aimed at: of drift, and of everything."""
FURLOUGH, SEEN_BY = date(2013, 4, 21), date(2013, 4, 25)
THANKSGIVING = (date(2013, 11, 26), date(2013, 12, 2))
PERMANENT_DAYS = 60


def told_sql(first: date, last: date) -> str:
    """SQL of what people were asked: cause, and whether it is an incident that was quiet before."""
    return f"""
        select cause, false as is_back from flight_delays.incidents where day between '{first}' and '{last}'
        union all
        select cause, true from flight_delays.incident_events as e join flight_delays.incidents as i using (incident_id)
        where e.event = 'raised' and json_extract_string(e.evidence, '$.before') = 'stable'
          and e.day between '{first}' and '{last}'
    """


def ledger_table(con: duckdb.DuckDBPyConnection, periods: Mapping[str, tuple[date, date]], sources: set[str]) -> None:
    """Print all incidents of the ledger per quarter, those that came back after they were quiet included."""
    print("\nwhat the ledger asked of people, per quarter: new incidents, and those that came back (nobody closes any)")
    for name, (first, last) in periods.items():
        quarters = ((last - first).days + 1) / QUARTER
        told = rows(con, told_sql(first, last))
        new = [cause for cause, is_back in told if not is_back]
        drift = [cause for cause, _ in told if cause in sources or cause.startswith("drift:")]
        print(f"{name}: {len(new) / quarters:.1f} new, {len(told) / quarters:.1f} with those that came back "
              f"(aim {MOST}); of drift {len(drift) / quarters:.1f} (aim {MOST_DRIFT})")  # fmt: skip
        print("  " + ", ".join(f"{cause} {n}" for cause, n in Counter(cause for cause, _ in told).most_common()))


def facts_table(con: duckdb.DuckDBPyConnection, world: World) -> None:
    """Print when labels found the furlough, and what became of the storm at Thanksgiving."""
    found = rows(con, furlough_sql())
    day, reason = found[0] if found else (None, "never")
    print(f"\nthe furlough from {FURLOUGH} on, seen by labels on {day} (aim {SEEN_BY}): {reason[:90]}")
    decided = world.ledger.effective("decisions", world.name)
    told = [row for row in decided if Kind(row["kind"]) in TOLD and THANKSGIVING[0] <= row["day"] <= THANKSGIVING[1]]
    channels = Counter(message(world, row).channel.value for row in told)
    print(f"Thanksgiving, {THANKSGIVING[0]} to {THANKSGIVING[1]}: " + (
        ", ".join(f"{verdict} {n}" for verdict, n in rows(con, verdicts_sql(*THANKSGIVING))) + "; messages: "
        + (", ".join(f"{channel} {n}" for channel, n in sorted(channels.items())) or "none")
        + f"; pages: {channels.get('page', 0)}"
    ))  # fmt: skip
    for day, tier, column, reason in rows(con, storm_sql(*THANKSGIVING)):
        print(f"  {day} {tier:<9} {column}: {reason[:110]}")


def furlough_sql() -> str:
    """SQL of the first day on which quality asked for somebody after the furlough began, and why."""
    return f"""
        select day, reason from flight_delays.verdicts
        where day > '{FURLOUGH}' and tier in ('moderate', 'severe') and contains(reason, 'observed/predicted')
        order by day limit 1
    """


def verdicts_sql(first: date, last: date) -> str:
    """SQL of how often each verdict was given."""
    return f"""
        select verdict, count(*) from flight_delays.verdicts where day between '{first}' and '{last}'
        group by 1 order by 2 desc, 1
    """


def storm_sql(first: date, last: date) -> str:
    """SQL of the gravest finding of each day that is not stable."""
    return f"""
        select day, arg_max(tier, rank), arg_max(column_name, rank), arg_max(reason, rank) from (
            select *, (case tier when 'severe' then 3e6 when 'moderate' then 2e6 else 1e6 end) + coalesce(surprise, 0)
                      as rank
            from flight_delays.drift where tier <> 'stable' and slice = 'all' and day between '{first}' and '{last}'
        ) group by day order by day
    """


def home_tables(world: World, periods: Mapping[str, tuple[date, date]]) -> None:
    """Print what the home itself says."""
    with open_views([world.service], world.home, is_open=False) as con:
        ledger_table(con, periods, {source.name for source in world.service.sources})
        facts_table(con, world)


def lives(year: Year, found: pd.DataFrame, series: pd.DataFrame, days: Sequence[date], column: str) -> tuple[str, str]:
    """How the incident of a column stands after its days if nobody says a word: state, and the newest level check."""
    source, service = source_of(year.world.service.views), year.world.service
    standing, checked = Standing(), ""
    for day in days:
        findings: list[Finding] = [one for one in drift_findings(day, found, source) if one.subject == column]
        known = going_on(standing.incidents.values(), source)
        findings = with_upstream_causes(
            findings, {one.name for one in service.sources}, service.incidents.follows, known
        )
        for one in findings:
            if one.tier in LEVEL and one.cause not in standing.incidents:
                standing.incidents[one.cause] = opened(f"{day}-{one.cause}", one.cause, day, one.tier, one.reason)
        for event in next_events(
            day, findings, list(standing.incidents.values()), is_blocked=False,
            quiet_after=service.incidents.quiet_days,
        ):  # fmt: skip
            if event.event == "quieted":
                checked = level_check(series, standing.by_id[event.incident_id], day)
                event = replace(event, text=checked)
            standing.take(event)
        standing.count_quiet_day(day)
    states = [one.state for one in standing.incidents.values()]
    return (states[0] if states else "never opened"), checked


def permanent_table(year: Year, count: int, dates: int, seed: int, span: tuple[date, date]) -> None:
    """Print what becomes of a fault that begins one day and never ends, through the incidents of the service."""
    rng = np.random.default_rng(seed)
    print(f"\na fault that never ends, looked at {PERMANENT_DAYS} days later; nobody has said a word, seed {seed}")
    for fault in (one for one in CATALOGUE if one.name in ("shift 1 sd", "unit x1.6", "null 20 %")):
        told: Counter[str] = Counter()
        for column in SCHEDULE:
            for back in rng.integers(0, (span[1] - span[0]).days - PERMANENT_DAYS, dates):
                start = span[0] + timedelta(days=int(back))
                days = [start + timedelta(days=number) for number in range(PERMANENT_DAYS)]
                series = with_fault(year, year.series, fault, column, days, rng)
                found = year.judge(seen_on(series, days), days, count)
                state, checked = lives(year, found, series, days, column)
                told[state] += 1
                told["not back"] += "not back" in checked
        opened_ones = sum(told.values()) - told["never opened"] - told["not back"]
        print(f"{fault.name:<24}{opened_ones} opened: still open {told['open']}, quiet and unresolved "
              f"{told['quiet, unresolved']} (of which said not to be back at the level before: {told['not back']}), "
              f"closed by itself {told['closed']}; never opened {told['never opened']}")  # fmt: skip
