"""The summary at the end of a replay: what was closed, decided and measured, and where to look next."""

import resource
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb

from mlops_assets.adapters.engine import literal, quote, rows
from mlops_assets.adapters.people_sql import open_views
from mlops_assets.adapters.stopwatch import Spent
from mlops_assets.closing.world import World


@dataclass(frozen=True)
class Effort:
    """What a replay cost: seconds per step, and what was spent inside of the steps on work worth watching."""

    days: int
    wall_seconds: float
    seconds: Mapping[str, float]
    spent: Mapping[str, Spent]

    def lines(self) -> Iterator[str]:
        """Wall and CPU seconds, peak memory, seconds per step."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(one.ru_utime + one.ru_stime for one in used)
        unit = 1024**2 if sys.platform == "darwin" else 1024
        peak = max(one.ru_maxrss for one in used) / unit
        daily = f" ({self.wall_seconds / self.days:.2f} s a day)" if self.days else ""
        yield f"took         {self.wall_seconds:,.1f} s{daily}, CPU {cpu:,.1f} s, peak memory {peak:,.0f} MiB"
        if self.seconds:
            yield "             " + ", ".join(f"{name} {took:,.1f} s" for name, took in self.seconds.items())
        for work, took in sorted(self.spent.items(), key=lambda item: -item[1].wall_seconds):
            share = f"{took.wall_seconds:,.1f} s ({took.wall_seconds / self.wall_seconds:.0%})"
            yield (
                f"             of that {work}: {share}, CPU {took.cpu_seconds:,.1f} s; "
                f"{took.times:,} times, the largest {took.largest_cpu_seconds:,.1f} CPU s"
            )


def counts_sql(service: str, label_version: str) -> str:
    """SQL of (predictions, served ones, days with predictions, labels of a version) up to the last closed day."""
    name = quote(service)
    return f"""
        select (select count(*) from {name}.predictions),
               (select count(*) from {name}.predictions where served),
               (select count(distinct day) from {name}.predictions),
               (select count(*) from {name}.labels where value is not null and label_version = {literal(label_version)})
    """


def monthly_quality_sql(service: str, label_version: str) -> str:
    """SQL of the quality as served under one label definition, per month of prediction; a month of labelled ones.

    Columns: month, predictions, labelled, positive share, Brier score, AUC (share of pairs in the right
    order, ties count one half).
    """
    return f"""
        with served as (
            select date_trunc('month', day)::date as month, score, value
            from {quote(service)}.outcomes where served and label_version = {literal(label_version)}
        ), ranked as (
            select month, score, value, rank() over (partition by month order by score)
                   + (count(*) over (partition by month, score) - 1) / 2.0 as place
            from served where value is not null and score is not null
        ), judged as (
            select month, count(*) as labelled, avg(value) as positive_share,
                   avg(power(score - value, 2)) as brier,
                   (sum(place) filter (value = 1) - sum(value) * (sum(value) + 1) / 2)
                       / nullif(sum(value) * (count(*) - sum(value)), 0) as auc
            from ranked group by month
        )
        select month, count(*), coalesce(any_value(labelled), 0), any_value(positive_share), any_value(brier),
               any_value(auc)
        from served left join judged using (month) group by month order by month
    """


def summary_lines(world: World, effort: Effort | None) -> Iterator[str]:
    """The whole summary, line by line; ``effort`` is None when nothing was left to do."""
    closed = world.ledger.closings(world.name)
    if not closed:
        yield f"{world.name}: no day is closed yet"
        return
    with open_views([world.service], world.home, is_open=False) as con:
        yield ""
        yield f"{world.name}: closed through {max(closed)}"
        yield from _day_lines(con, world, closed)
        yield from _decision_lines(world)
        is_yes_or_no = world.service.task == "binary"
        yield from (_quality_lines if is_yes_or_no else _newest_quality_lines)(con, world)
    if effort:
        yield from effort.lines()
    yield from next_lines(world, max(closed))


def _day_lines(con: duckdb.DuckDBPyConnection, world: World, closed: Mapping[date, Mapping[str, Any]]) -> Iterator[str]:
    blocked = [day for day, row in sorted(closed.items()) if row["state"] == "blocked"]
    named = f", of which blocked: {', '.join(map(str, blocked))}" if blocked else ""
    [(predictions, served, days, labels)] = rows(con, counts_sql(world.name, world.service.label.version))
    yield f"days         {len(closed):,} closed{named}"
    yield f"predictions  {predictions:,}, of which {served:,} answered a request, on {days:,} days"
    yield f"labels       {labels:,}"


def _decision_lines(world: World) -> Iterator[str]:
    decisions = world.ledger.effective("decisions", world.name)
    kinds = Counter(row["kind"] for row in decisions)
    gates = world.ledger.effective("gates", world.name)
    said = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common()) or "none"
    yield f"decisions    {said}"
    if world.service.is_monitor_only:
        return
    verdicts = ", ".join(f"{verdict} {n}" for verdict, n in Counter(row["verdict"] for row in gates).most_common())
    yield f"retrainings  {len(gates):,}" + (f" (gate: {verdicts})" if gates else "")
    for row in gates:
        yield f"             {row['day']}  {row['verdict']:<12}  {row['candidate']} against {row['rival']}"


def _quality_lines(con: duckdb.DuckDBPyConnection, world: World) -> Iterator[str]:
    yield "quality of what was served, per month of prediction:"
    yield f"  {'month':<8}{'n':>9}{'labelled':>10}{'positive':>10}{'Brier':>8}{'AUC':>8}"
    for month, n, labelled, share, brier, auc in rows(
        con, monthly_quality_sql(world.name, world.service.label.version)
    ):
        yield (
            f"  {month:%Y-%m} {n:>9,}{_number(labelled / n, '.1%'):>10}{_number(share, '.1%'):>10}"
            f"{_number(brier, '.4f'):>8}{_number(auc, '.4f'):>8}"
        )


def newest_quality_sql(service: str, label_version: str) -> str:
    """SQL of ``(metric, window_days, prediction_day, value, low, high)``: the newest long window of what was served.

    Under one label definition.
    """
    return f"""
        select metric, window_days, prediction_day, value, low, high from {quote(service)}.quality
        where version = 'served' and slice = 'all' and state in ('final', 'restated')
          and label_version = {literal(label_version)}
        qualify row_number() over (partition by metric order by window_days desc, prediction_day desc, day desc) = 1
        order by metric
    """


def _newest_quality_lines(con: duckdb.DuckDBPyConnection, world: World) -> Iterator[str]:
    """Of a task that is not yes or no: its own metrics, newest window."""
    yield "quality of what was served, newest mature window:"
    for metric, window, last, value, low, high in rows(
        con, newest_quality_sql(world.name, world.service.label.version)
    ):
        bounds = "" if low is None else f" [{low:.4g}, {high:.4g}]"
        yield f"  {metric:<24}{value:>12.4g}{bounds}  {window} days to {last}"


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None or value != value else format(value, spec)


def next_lines(world: World, last: date) -> Sequence[str]:
    """Where to look next."""
    return [
        "next:",
        "  make ui                       lineage, checks and runs in Dagster; models in MLflow",
        f"  mlops status {world.name}",
        f'  mlops sql "{example_sql(world.name, last)}"',
    ]


def example_sql(service: str, day: date) -> str:
    """SQL that a newcomer can paste: what was answered on the last closed day."""
    return (
        f"select model_version, count(*) as n, round(avg(score), 3) as mean_score from {service}.predictions "
        f"where served and day = '{day}' group by all"
    )
