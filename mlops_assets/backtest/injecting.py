"""Faults injected into stored profiles at random dates: what the monitor sees of them, and would not have without."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt

import numpy as np
import pandas as pd

from mlops_assets.backtest.faults import CATALOGUE, Fault
from mlops_assets.backtest.replaying import Judged, series_before
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.drift import FEATURES, ROWS, find_drift, size_gates
from mlops_assets.monitoring_loop.events import explain, known_events
from mlops_assets.monitoring_loop.metrics import wilson

FAULT_DAYS = 7
STD_DAYS = 30
ALARMS = ("moderate", "severe", "unknown")
Alarms = set[tuple[date, str]]
"""(day, column) on which a person is asked to look."""


@dataclass(frozen=True)
class Seen:
    """How often one kind of fault was seen: of all episodes, within seven days and on the first one."""

    fault: str
    episodes: int
    seen: int
    same_day: int
    low: float
    high: float
    median_delay_days: float | None


def alarms_of(drift: pd.DataFrame) -> Alarms:
    """Where the drift monitor asks somebody to look."""
    asked = drift[drift["tier"].isin(ALARMS)]
    return set(zip(pd.to_datetime(asked["day"]).dt.date, asked["column_name"].astype(str), strict=True))


def series_count(drift: pd.DataFrame) -> int:
    """How many series share the alarm budget on a usual day: those that had a surprise."""
    watched = drift[drift["surprise"].notna() & (drift["baseline"] == "trailing")]
    a_day = watched.groupby("day").size()
    return round(float(a_day.median())) if len(a_day) else 1


def injected(world: World, judged: Judged, *, dates: int, seed: int, told: Callable[[int], None]) -> tuple[Seen, ...]:
    """Inject the catalogue on so many random dates into every column that is judged by then.

    A hit is an alarm on a day and column that had none without the fault, under the policy of ``judged``.
    """
    rng = np.random.default_rng(seed)
    quiet, count = alarms_of(judged.drift), series_count(judged.drift)
    able = columns_judged(judged.drift)
    starts = [day for day in judged.days[: -FAULT_DAYS + 1] if able.get(day)]
    delays: dict[str, list[int | None]] = {fault.name: [] for fault in CATALOGUE}
    under_policy = World(judged.service, world.home, world.clock)
    chosen = sorted(rng.choice(len(starts), min(dates, len(starts)), replace=False)) if starts else []
    for done, at in enumerate(chosen, start=1):
        days = [starts[at] + timedelta(days=number) for number in range(FAULT_DAYS)]
        own = series_before(under_policy, days)
        own = own[own["subject"] == FEATURES]
        blocked = {day for day, row in world.ledger.closings(world.name).items() if row["state"] == "blocked"}
        found = alarms_with_faults(own, days, judged, blocked, count)
        for fault in CATALOGUE:
            for column in able[starts[at]] & columns_of(own, fault):
                with_fault = found.get((fault.name, column), set())
                delays[fault.name].append(first_hit(with_fault, {day for day, c in quiet if c == column}, days))
        told(done)
    return tuple(_counted(name, told_of) for name, told_of in delays.items() if told_of)


def columns_judged(drift: pd.DataFrame) -> dict[date, set[str]]:
    """Day -> columns of features that had something to be compared with."""
    known = drift[drift["expected"].notna() & (drift["subject"] == FEATURES) & (drift["baseline"] == "trailing")]
    days = pd.to_datetime(known["day"]).dt.date
    return {day: set(part["column_name"]) for day, part in known.groupby(days)}


def columns_of(series: pd.DataFrame, fault: Fault) -> set[str]:
    """The columns that a fault can happen to: numbers have sums, texts have counts alone."""
    numbers = set(series[series["total"].notna()]["column_name"])
    texts = set(series[series["counts"].notna()]["column_name"]) - numbers
    return {*(numbers if "number" in fault.on else ()), *(texts if "text" in fault.on else ()),
            *((ROWS,) if "rows" in fault.on else ())}  # fmt: skip


def alarms_with_faults(
    own: pd.DataFrame, days: Sequence[date], judged: Judged, blocked: set[date], count: int
) -> dict[tuple[str, str], set[date]]:
    """(fault, column) -> days with an alarm on that column, every fault on every column by itself."""
    day = pd.to_datetime(own["day"]).dt.date
    before, during = own[day < days[0]], own[day.isin(days)]
    stds = _stds(before[day[before.index] >= days[0] - timedelta(days=STD_DAYS)])
    found: dict[tuple[str, str], set[date]] = {}
    of_columns = [fault for fault in CATALOGUE if "rows" not in fault.on]
    parts = [part for fault in of_columns for part in _broken(before, during, fault, stds)]
    loud = _alarms(pd.concat(parts, ignore_index=True), days, judged, blocked, count) if parts else set()
    for alarm_day, name in loud:
        column, _, fault_name = name.rpartition("#")
        found.setdefault((fault_name, column), set()).add(alarm_day)
    for fault in (fault for fault in CATALOGUE if "rows" in fault.on):
        whole = pd.concat([before, fault.breaks(during, 0.0)], ignore_index=True)
        found[fault.name, ROWS] = {d for d, name in _alarms(whole, days, judged, blocked, count) if name == ROWS}
    return found


def _broken(
    before: pd.DataFrame, during: pd.DataFrame, fault: Fault, stds: Mapping[str, float]
) -> Iterator[pd.DataFrame]:
    """The series of every column that a fault can happen to, with the fault, under a name of their own."""
    named = columns_of(before, fault)
    history = dict(list(before.groupby("column_name")))
    for column, today in during.groupby("column_name"):
        if column in named:
            broken = fault.breaks(today, stds.get(str(column), 0.0))
            yield pd.concat([history[column], broken]).assign(column_name=f"{column!s}#{fault.name}")


def _alarms(series: pd.DataFrame, days: Sequence[date], judged: Judged, blocked: set[date], count: int) -> Alarms:
    """What the monitor says, known events included."""
    policy = judged.service.drift
    found = find_drift(series, days=days, policy=policy, critical=(), blocked=blocked, series_count=count)
    names = found["column_name"].astype(str)
    plain = found.assign(column_name=names.str.rpartition("#")[0].where(names.str.contains("#"), names))
    told = explain(plain, known_events(policy), size_gates(policy), earlier=plain.iloc[:0])
    return alarms_of(told.assign(column_name=names))


def _stds(month: pd.DataFrame) -> dict[str, float]:
    """Column -> standard deviation of its values over some days."""
    sums = month.assign(valued=month["n"] - month["nulls"]).groupby("column_name")[["valued", "total", "squares"]].sum()
    return {
        str(name): sqrt(max(squares / valued - (total / valued) ** 2, 0.0))
        for name, valued, total, squares in sums.itertuples()
        if valued
    }


def first_hit(with_fault: set[date], without: set[date], days: Sequence[date]) -> int | None:
    """Days until the first alarm on a day that has none without the fault."""
    return next((number for number, day in enumerate(days) if day in with_fault and day not in without), None)


def _counted(fault: str, delays: Sequence[int | None]) -> Seen:
    hits = [delay for delay in delays if delay is not None]
    share = wilson(np.array([len(hits) / len(delays)]), np.array([float(len(delays))]))
    low, high = float(share.low[0]), float(share.high[0])
    median = float(np.median(hits)) if hits else None
    return Seen(fault, len(delays), len(hits), hits.count(0), round(low, 4), round(high, 4), median)
