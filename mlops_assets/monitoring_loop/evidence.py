"""What was known about quality at the end of a day: the numbers that rules are judged on.

Rows of ``quality`` say what was known on the day they stand under; of a prediction day that was measured
several times, the newest row by the end of D counts for D. So a rule reads the same numbers in a block of days
and one by one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil
from typing import Literal

import duckdb

from mlops_assets.adapters.calendar import MICROSECOND
from mlops_assets.adapters.engine import literal, rows, run
from mlops_assets.monitoring_loop.baseline import WEEK
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality import ONE_DAY
from mlops_assets.service.degradation import SAME_WEEKDAY, VERSION, DegradationRule
from mlops_assets.service.service import MLService

CHAMPION, FALLBACK, SERVED = "champion", "fallback", "served"
WEEKS = 8
"""Weeks of the same weekday that a rule compares with."""
LOSSES = ("brier", "log_loss", "mae")
"""The first of them that is measured is watched for small lasting harm."""
MIN_COMPLETENESS = 0.5
"""Below this share of labels a provisional number is not judged."""


@dataclass(frozen=True)
class Known:
    """One metric over one window, as known at the end of a day; ``reason`` says why there is no value."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n_labelled: int = 0
    completeness: float = 0.0
    state: str = "final"
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the window was mature."""
        return self.value is not None and self.state in ("final", "restated")


@dataclass(frozen=True, order=True)
class Asked:
    """A series: who answered (a role, *served*, *version:NAME*), in which slice, which metric, over how many days."""

    role: str
    slice: str
    metric: str
    window_days: int


@dataclass(frozen=True)
class Usual:
    """Which days may stand for what is usual, as people said when they closed incidents.

    Days that were ``bad`` data, and those before a new normal began (``since``), are judged themselves, and nothing
    is compared with them.
    """

    bad: frozenset[date] = frozenset()
    since: date = date.min

    def holds(self, day: date) -> bool:
        """Whether a day is one to compare with."""
        return day >= self.since and day not in self.bad


UNMODELLED = Asked("prior", ALL, "positive_share", 1)
"""Has a row on every day on which the prior answered."""
Series = Mapping[date, Known]
"""Prediction day (the last one of the window) -> what was known."""


@dataclass(frozen=True)
class Evidence:
    """All series as known at the end of ``day``; ``mature`` is the newest day whose label window has closed.

    ``blocked`` days have no predictions; ``usual`` says which ones a day may be compared with.
    """

    day: date
    mature: date
    series: Mapping[Asked, Series]
    blocked: frozenset[date] = frozenset()
    usual: Usual = Usual()

    def of(self, asked: Asked) -> Series:
        """One series; empty if nothing was ever measured."""
        return self.series.get(asked, {})

    def is_unmodelled(self, last: date, window_days: int) -> bool:
        """Whether the prior answered on a day of a window: it is no model, and nothing there could degrade."""
        prior = self.of(UNMODELLED)
        return any(last - timedelta(days=back) in prior for back in range(window_days))


def asked_by(service: MLService) -> dict[Asked, int]:
    """The series that the service's rules and its calibration monitor read, each with the days it looks back."""
    maturing = ceil(service.label.window / ONE_DAY) + 2
    asked: dict[Asked, int] = {}
    for rule in (*service.quality.degradation, *service.retrain_when):
        days = rule.of_days + rule.window_days + (WEEK * WEEKS if rule.compared_with == SAME_WEEKDAY else 0)
        for series in series_of(rule):
            asked[series] = max(asked.get(series, 0), days + maturing)
    monitor = service.quality.calibration
    if monitor:
        days = monitor.residual_days + 2 * max(monitor.windows_days)
        for metric in ("positive_share", "calibration_ratio"):
            asked[Asked(CHAMPION, ALL, metric, 1)] = days + maturing
    harm, loss = service.quality.harm, loss_of(service)
    if harm and loss:
        for series in asked_for_harm(loss):
            asked[series] = max(asked.get(series, 0), harm.days + maturing)
    return asked | ({UNMODELLED: max(asked.values())} if asked else {})


def loss_of(service: MLService) -> str | None:
    """The loss that is watched for small lasting harm, if any is measured."""
    return next((name for name in LOSSES if name in service.quality.metrics), None)


def asked_for_harm(loss: str) -> tuple[Asked, Asked, Asked]:
    """What that reads: both losses of a day, and what the champion's exceeds its estimate by."""
    roles = ((CHAMPION, loss), (FALLBACK, loss), (CHAMPION, f"{loss}_surprise"))
    champion, fallback, surprise = (Asked(role, ALL, metric, 1) for role, metric in roles)
    return champion, fallback, surprise


def series_of(rule: DegradationRule) -> list[Asked]:
    """What a rule reads: what was served, and the answers of its control."""
    served = Asked(SERVED, rule.slice, rule.metric, rule.window_days)
    return [served] if rule.compared_with in (None, SAME_WEEKDAY) else [served, control_of(rule)]


def control_of(rule: DegradationRule) -> Asked:
    """The answers of the same day that a rule compares with."""
    return Asked(rule.compared_with or "", rule.control_slice or rule.slice, rule.metric, rule.window_days)


def reach_days(service: MLService, table: Literal["quality", "kpi"]) -> int:
    """Days before a judged day whose rows of a table can matter to it; 0: none of them are asked for."""
    kpi = service.quality.kpi.name if service.quality.kpi else None
    return max((days for a, days in asked_by(service).items() if (a.metric == kpi) == (table == "kpi")), default=0)


def asked_rows_sql(asked: Mapping[Asked, int]) -> str:
    """SQL of ``rules_asked``: the rows of ``all_quality`` that rules read, with the days they look back.

    The single conditions stand beside the join because they are what skips most of the files' content.
    """
    series = ", ".join(
        f"({literal(a.role)}, {literal(a.slice)}, {literal(a.metric)}, {a.window_days}, {days})"
        for a, days in sorted(asked.items())
    )
    roles, slices, metrics = (
        ", ".join(sorted({literal(getattr(a, name)) for a in asked})) for name in ("role", "slice", "metric")
    )
    versions = sorted({a.role.removeprefix(VERSION) for a in asked if a.role.startswith(VERSION)})
    of_versions = f"""
            union all by name select * replace ({literal(VERSION)} || version as role) from all_quality
            where version in ({", ".join(literal(name) for name in versions)})"""
    return f"""
        create or replace temp table rules_asked as
        select * from (
            select * from all_quality{of_versions if versions else ""}
        )
        join (values {series}) as asked(role, slice, metric, window_days, reach)
            using (role, slice, metric, window_days)
        where role in ({roles}) and slice in ({slices}) and metric in ({metrics})
    """


def known_sql(days: Sequence[date]) -> str:
    """SQL of ``(as_of, role, slice, metric, window_days, prediction_day, ...)``: the newest row by each day.

    Reads   ``rules_asked``.
    Returns one row per asked series, day and prediction day; where two versions held a role on one day, the
    one that answered more.
    """
    columns = ("value", "low", "high", "n_labelled", "completeness", "state", "reason")
    return f"""
        select as_of, role, slice, metric, window_days, prediction_day, unnest(newest)
        from (
            select asked.day as as_of, role, slice, metric, window_days, prediction_day,
                   arg_max({{{", ".join(f"{name}: {name}" for name in columns)}}}, (q.day, q.n, q.version)) as newest
            from (values {", ".join(f"({literal(day)})" for day in days)}) as asked(day)
            join rules_asked as q on q.day between asked.day - reach and asked.day
                and prediction_day > asked.day - reach
            group by all
        )
    """


def mature_days_sql(days: Sequence[date], window: timedelta) -> str:
    """SQL of ``(day, mature)``: the newest day whose label window has closed by the end of each day.

    By instants: after a day of 23 hours, two days later is an hour too early for a window of 48.
    """
    return f"""
        select asked.day, max(past.day) from days as asked
        join days as past on past.end_at + to_microseconds({window // MICROSECOND}) <= asked.end_at
        where asked.day in ({", ".join(literal(day) for day in days)}) group by asked.day
    """


def read_evidence(
    con: duckdb.DuckDBPyConnection,
    service: MLService,
    *,
    days: Sequence[date],
    blocked: Collection[date],
    usual: Mapping[date, Usual] | None = None,
) -> list[Evidence]:
    """The evidence of each day, from ``all_quality`` and the calendar ``days`` in the engine.

    Args:
        blocked: days without predictions because a file was missing or bad.
        usual: what people had said by each day; None: nothing.
    """
    said = usual or {}
    asked = asked_by(service)
    found: dict[date, dict[Asked, dict[date, Known]]] = {day: {} for day in days}
    if asked and days:
        run(con, asked_rows_sql(asked))
        for as_of, role, part, metric, window, last, *known in rows(con, known_sql(days)):
            value, low, high, labelled, completeness, state, reason = known
            found[as_of].setdefault(Asked(role, part, metric, window), {})[last] = Known(
                value, low, high, labelled or 0, completeness or 0.0, state, reason or ""
            )
    mature = dict(rows(con, mature_days_sql(days, service.label.window))) if days else {}
    return [Evidence(day, mature[day], found[day], frozenset(blocked), said.get(day, Usual())) for day in days]
