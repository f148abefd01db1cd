"""Third step, judging drift: the block's profiles with what people said, what was planned and what was learned."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, timedelta
from types import MappingProxyType

import pandas as pd

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import frame, literal
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.announcing import announced_shares
from mlops_assets.closing.block import Block, blocked_by_then
from mlops_assets.closing.learned import trainings_of
from mlops_assets.closing.standing import inputs
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.drift import Answers, drift_frame, find_drift, size_gates
from mlops_assets.monitoring_loop.events import closed_days, days_of_earlier, explain, known_events
from mlops_assets.monitoring_loop.evidence import Usual
from mlops_assets.monitoring_loop.grid import LABELS
from mlops_assets.monitoring_loop.operations import OPERATIONS
from mlops_assets.service.drifting import KnownEvent
from mlops_assets.service.features import RequestView, View
from mlops_assets.tables import BY_NAME


def drift_of(world: World, block: Block, series: pd.DataFrame) -> pd.DataFrame:
    """Rows of table ``drift`` of the block's days; ``series`` are the profiles behind them."""
    policy, events = world.service.drift, known_events(world.service.drift)
    trainings = trainings_of(world, block)
    log = world.service.prediction_log
    lag_days = log.log_lag_days if log else 0
    parts = [
        find_drift(
            series, days=days, policy=policy, critical=policy.critical_features, blocked=blocked_by_then(world, block),
            answers=answers, closed=closed_days(events, days, lag_days=lag_days), trainings=trainings,
        )
        for days, answers in days_with_the_same_answers(world, block.days)
    ]  # fmt: skip
    drift = pd.concat(parts, ignore_index=True) if parts else drift_frame([])
    earlier = _earlier_drift(world, block, events, lag_days)
    announced = announced_shares(world, block, drift, events, lag_days=lag_days)
    return explain(drift, events, size_gates(policy), earlier=earlier, announced=announced, lag_days=lag_days)


def days_with_the_same_answers(world: World, days: Sequence[date]) -> Iterator[tuple[list[date], Answers]]:
    """The days in runs between which nobody closed an incident, each with what had been said by then."""
    said = [row for row in inputs(world) if row["kind"] == "close" and row["details"]]
    causes = (
        {row["incident_id"]: row["cause"] for row in world.ledger.effective("incidents", world.name)} if said else {}
    )
    cuts = sorted({row["effective_day"] for row in said} & set(days)) if said else []
    bounds = [min(days), *(cut for cut in cuts if cut > min(days)), max(days) + timedelta(days=1)]
    for start, end in zip(bounds, bounds[1:], strict=False):
        known = [row for row in said if row["effective_day"] <= start]
        run = [day for day in days if start <= day < end]
        if run:
            yield run, answers_of(known, causes, source_of(world.service.views), moved_with(world) if known else {})


def moved_with(world: World) -> dict[str, set[str]]:
    """Incident -> the columns that moved with it, those of sources that follow its own included."""
    found: dict[str, set[str]] = {}
    for row in world.ledger.effective("incident_events", world.name):
        found.setdefault(row["incident_id"], set()).update((row["evidence"] or {}).get("children", ()))
    return found


def usual_days(world: World, days: Sequence[date]) -> dict[date, Usual]:
    """What had been said by each day about which days quality may be compared with.

    Bad data is bad for quality whatever broke; a new normal is one for quality if the incident was about quality.
    """
    said = [row for row in inputs(world) if row["kind"] == "close" and row["details"]]
    if not said:
        return {}
    causes = {row["incident_id"]: row["cause"] for row in world.ledger.effective("incidents", world.name)}
    return {day: usual_of([row for row in said if row["effective_day"] <= day], causes) for day in days}


def usual_of(said: Sequence[Row], causes: Mapping[str, str]) -> Usual:
    """What closings mean for the days that quality is compared with."""
    bad: set[date] = set()
    since = date.min
    for row in said:
        if row["subject"] not in causes:
            continue  # a redo has no such incident: the word is void
        details, cause = row["details"], causes[row["subject"]]
        if details.get("as") == "bad_data":
            bad.update(days_between(date.fromisoformat(details["from"]), date.fromisoformat(details["until"])))
        elif details.get("as") == "new_normal" and cause.startswith("quality:"):
            since = max(since, date.fromisoformat(details["from"]))
    return Usual(frozenset(bad), since)


def answers_of(
    said: Sequence[Row],
    causes: Mapping[str, str],
    source_of_column: Mapping[str, str],
    moved: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Answers:
    """What closings mean for the columns that their incidents were about: those of a source, and what moved with it."""
    bad_days: dict[str, set[date]] = {}
    normal_since: dict[str, date] = {}
    for row in said:
        details, cause = row["details"], causes.get(row["subject"], "")
        columns = [name for name, source in source_of_column.items() if source == cause]
        named = columns or [cause.removeprefix("drift:").removeprefix("operations:")]
        for column in sorted({*named, *moved.get(row["subject"], ())}):
            if details.get("as") == "bad_data":
                listed = days_between(date.fromisoformat(details["from"]), date.fromisoformat(details["until"]))
                bad_days.setdefault(column, set()).update(listed)
            elif details.get("as") == "new_normal":
                since = date.fromisoformat(details["from"])
                normal_since[column] = max(since, normal_since.get(column, since))
    return Answers(bad_days, normal_since)


def source_of(views: Sequence[View]) -> dict[str, str]:
    """Feature -> the source its view reads: where to look first when it moves."""
    return {name: view.source for view in views if not isinstance(view, RequestView) for name in view.features}


def label_columns(drift: pd.DataFrame, source: str) -> dict[str, str]:
    """Columns that say how labels come (rate, delay, completeness, missing ones) -> the source they come from."""
    are_labels = (drift["subject"] == LABELS) | ((drift["subject"] == OPERATIONS) & (drift["column_name"] == "labels"))
    return dict.fromkeys(drift.loc[are_labels, "column_name"], source)


def earlier_drift_sql(days: Collection[date]) -> str:
    """SQL of what was found on earlier occurrences of an event."""
    return f"select * from earlier_drift where day in ({', '.join(literal(day) for day in sorted(days))})"


def _earlier_drift(world: World, block: Block, events: Sequence[KnownEvent], lag_days: int) -> pd.DataFrame:
    table, before = BY_NAME["drift"], min(block.days)
    asked = {day - timedelta(days=lag) for day in block.days for lag in {0, lag_days}}
    told = {day + timedelta(days=lag) for day in days_of_earlier(events, asked) for lag in {0, lag_days}}
    days = {day for day in told if day < before}
    if not days:
        return drift_frame([])
    world.lake.view(block.con, table.name, table.columns, name="earlier_drift", first=min(days), last=max(days))
    return frame(block.con, earlier_drift_sql(days))
