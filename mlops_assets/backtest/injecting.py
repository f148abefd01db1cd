"""Faults injected into stored profiles at random dates: what the monitor sees of them, and would not have without."""

from collections.abc import Callable, Sequence
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
from mlops_assets.monitoring_loop.profiles import ALL

FAULT_DAYS = 7
STD_DAYS = 30
COLUMNS_A_DATE = 5
"""Into so many columns each fault is injected on a date: judging one takes a quarter of a second."""
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
    watched = drift[drift["surprise"].notna() & (drift["baseline"] == "trailing") & (drift["slice"] == ALL)]
    a_day = watched.groupby("day").size()
    return round(float(a_day.median())) if len(a_day) else 1


def injected(world: World, judged: Judged, *, dates: int, seed: int, told: Callable[[int], None]) -> tuple[Seen, ...]:
    """Inject the catalogue on so many random dates, each fault into random columns, one column at a time.

    A hit is an alarm on a day and column that had none without the fault, under the policy of ``judged``. All other
    columns stay healthy: a column is judged beside its companions.
    """
    rng = np.random.default_rng(seed)
    quiet = alarms_of(judged.drift)
    able = columns_judged(judged.drift)
    starts = [day for day in judged.days[: -FAULT_DAYS + 1] if able.get(day)]
    delays: dict[str, list[int | None]] = {fault.name: [] for fault in CATALOGUE}
    under_policy = World(judged.service, world.home, world.clock)
    chosen = sorted(rng.choice(len(starts), min(dates, len(starts)), replace=False)) if starts else []
    for done, at in enumerate(chosen, start=1):
        days = [starts[at] + timedelta(days=number) for number in range(FAULT_DAYS)]
        own = series_before(under_policy, days)
        injection = _Injection(world, judged, own[own["subject"] == FEATURES], days)
        for fault in CATALOGUE:
            usable = sorted(able[starts[at]] & columns_of(own, fault))
            for column in rng.choice(usable, min(COLUMNS_A_DATE, len(usable)), replace=False) if usable else ():
                hits = {day for day, name in injection.alarms(fault, str(column)) if name == column}
                delays[fault.name].append(first_hit(hits, {day for day, name in quiet if name == column}, days))
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


class _Injection:
    """The feature series that judge some days, to be broken in one column at a time."""

    def __init__(self, world: World, judged: Judged, own: pd.DataFrame, days: Sequence[date]) -> None:
        self.own, self.days, self.policy = own, days, judged.service.drift
        self.blocked = {day for day, row in world.ledger.closings(world.name).items() if row["state"] == "blocked"}
        self.count = series_count(judged.drift)
        self.day = pd.to_datetime(own["day"]).dt.date
        month = (self.day < days[0]) & (self.day >= days[0] - timedelta(days=STD_DAYS))
        self.stds = _stds(own[month])

    def alarms(self, fault: Fault, column: str) -> Alarms:
        """What the monitor says when one column, or all rows, are broken on the days; known events included."""
        is_hit = self.day.isin(self.days) & (True if column == ROWS else self.own["column_name"] == column)
        broken = fault.breaks(self.own[is_hit], self.stds.get(column, 0.0))
        series = pd.concat([self.own[~is_hit], broken], ignore_index=True)
        found = find_drift(
            series, days=self.days, policy=self.policy, critical=(), blocked=self.blocked, series_count=self.count
        )
        told = explain(found, known_events(self.policy), size_gates(self.policy), earlier=found.iloc[:0])
        return alarms_of(told)


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
