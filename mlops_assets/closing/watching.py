"""Third step: what the service promised about running, and whether its four loops agree, day by day of a block.

Reads the block's tables and the closed days before it, leaves temp tables ``objectives`` and ``loop_sync`` in the
engine, and returns what asks for people.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from math import ceil
from typing import Any

from mlops_assets.adapters.engine import append_sql, frame, literal, rows, run
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.block import Block
from mlops_assets.closing.changes import events_known, label_definition
from mlops_assets.closing.repairing import stored_generations
from mlops_assets.closing.scoring_cost import scored_days
from mlops_assets.closing.world import World, arrow
from mlops_assets.decisions import Kind
from mlops_assets.feedback_loop.maturity import ARRIVAL, arrival_counts_sql
from mlops_assets.monitoring_loop.decomposition import USUAL_DAYS, unusual_slices
from mlops_assets.monitoring_loop.events import known_events
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.grid import LABELS
from mlops_assets.monitoring_loop.loop_sync import Clocks, ModelClock, SourceClock, Sync, compare_clocks
from mlops_assets.monitoring_loop.objectives import (
    Level,
    Measured,
    amounts_sql,
    explaining_slice,
    history_days,
    judge_objectives,
    read_events,
)
from mlops_assets.monitoring_loop.operations import OPERATIONS, slice_counts_sql
from mlops_assets.monitoring_loop.own_metrics import FAILED
from mlops_assets.monitoring_loop.training_cost import Training, costly
from mlops_assets.tables import BY_NAME

PROFILED_DAYS = 14
"""How far back the newest profile of a feature version is looked for."""
ONE_DAY = timedelta(days=1)


def watch(world: World, block: Block) -> dict[date, list[Finding]]:
    """Findings about objectives, loop sync, what trainings and scoring cost, and own metrics that failed, by day."""
    levels, synced = judged_levels(world, block), judged_sync(world, block)
    found: dict[date, list[Finding]] = defaultdict(list)
    for level in levels:
        if level.tier != "stable":
            found[level.day].append(
                Finding(level.tier, f"objective:{level.objective}", level.reason, level.burn or 0.0)
            )
    for row in synced:
        if row.tier != "stable":
            found[row.day].append(Finding(row.tier, f"loop_sync:{row.check}", row.reason))
    carried_out, limit = trainings(world), world.service.operations.max_training_growth
    scored, growth = scored_days(block.con), world.service.operations.max_scoring_growth
    for day in block.days:
        found[day] += costly(carried_out, day, limit)
        found[day] += costly(scored, day, growth, work="scoring", watched=("cpu_seconds",))
    for day, finding in failed_metrics(world, block):
        found[day].append(finding)
    return found


def failed_metrics_sql() -> str:
    """SQL of ``(day, metric, rows, reason)`` of the service's own metrics that raised an error."""
    return f"""
        select day, metric, count(*), min(reason) from quality
        where state = 'not_measured' and starts_with(reason, {literal(FAILED)})
        group by day, metric order by day, metric
    """


def failed_metrics(world: World, block: Block) -> list[tuple[date, Finding]]:
    """Metrics of the service's own that gave no number but an error: a person has to look at the function."""
    if not world.service.quality.own_metrics:
        return []
    return [
        (day, Finding("moderate", f"quality:{metric}", f"{reason}; {n} row(s) of quality have no value", float(n)))
        for day, metric, n, reason in rows(block.con, failed_metrics_sql())
    ]


def trainings(world: World) -> list[Training]:
    """What every training used, oldest first."""
    names = ("decision_id", "known_on", "rows", "cpu_seconds", "peak_mib")
    used = world.ledger.effective("trainings", world.name)
    return sorted((Training(*(row[name] for name in names)) for row in used), key=lambda one: one.known_on)


def unusual_rows(world: World, block: Block) -> list[dict[str, Any]]:
    """Rows of ``drift`` about slices that stand out: recorded, and told on their own only if the whole moves too.

    Answers that failed, labels that never came, and labels that are slower than usual at one of the watched ages.
    """
    first = min(block.days) - timedelta(days=USUAL_DAYS)
    counted = {
        (OPERATIONS, what): frame(block.con, slice_counts_sql("all_operations", what, first))
        for what in ("labels", "answers")
    }
    arriving = frame(block.con, arrival_counts_sql(world.service.label, "all_completeness", first))
    counted |= {(LABELS, f"{ARRIVAL}{age}"): some for age, some in arriving.groupby("age_days", sort=True)}
    return [
        {
            "day": one.day, "subject": subject, "slice": one.slice, "column_name": what, "statistic": "null_share",
            "baseline": "trailing", "value": one.share, "expected": one.expected, "scale": one.scale,
            "surprise": one.z, "size": round(one.share - one.expected, 9), "tier": "expected",
            "reason": one.in_words(what),
        }
        for (subject, what), table in counted.items()
        for one in unusual_slices(table, block.days)
    ]  # fmt: skip


def _store(block: Block, table: str, found: Sequence[Mapping[str, Any]]) -> None:
    run(block.con, BY_NAME[table].create_sql())
    block.con.register("stored_rows", arrow(found, BY_NAME[table].columns))
    run(block.con, append_sql(table, "stored_rows"))
    block.con.unregister("stored_rows")


def measured_sql() -> str:
    """SQL of what the objectives counted on closed days."""
    return "select day, objective, n, bad, value from closed_objectives order by day, objective"


def judged_levels(world: World, block: Block) -> list[Level]:
    """The rows of ``objectives``, and that table; nothing is read for a service that promised nothing."""
    policy, con, before = world.service.operations, block.con, min(block.days)
    levels: list[Level] = []
    if policy.objectives or policy.max_cost_per_1000 is not None:
        first = before - timedelta(days=history_days(policy))
        columns = BY_NAME["objectives"].columns
        world.lake.view(con, "objectives", columns, name="closed_objectives", first=first, last=before - ONE_DAY)
        world.lake.view(con, "freshness", BY_NAME["freshness"].columns, first=before, last=max(block.days))
        today = read_events(
            con, policy, operations="operations", freshness="freshness", quality="quality", days=block.days,
            higher_is_better=world.service.quality.higher_is_better,
        )  # fmt: skip
        levels = judge_objectives(policy, today, [Measured(*row) for row in rows(con, measured_sql())])
        levels = [explained(world, block, level) for level in levels]
    _store(block, "objectives", [asdict(level) for level in levels])
    return levels


def explained(world: World, block: Block, level: Level) -> Level:
    """A broken promise with the slice that explains most of the rise over the four weeks before, if one does."""
    if level.tier == "stable" or level.objective not in ("errors", "latency", "label_delay", "cost_per_1000"):
        return level

    def amounts(first: date, last: date) -> dict[str, tuple[float, float]]:
        query = amounts_sql("all_operations", level.objective, world.service.operations, first, last)
        return {name: (events, amount) for name, events, amount in rows(block.con, query)}

    usual = amounts(level.day - timedelta(days=history_days(world.service.operations)), level.day - ONE_DAY)
    found = explaining_slice(amounts(level.day, level.day), usual)
    if found is None:
        return level
    return replace(level, slice=found[0], reason=f"{level.reason}; {found[0]} explains {found[1]:.0%} of the rise")


def judged_sync(world: World, block: Block) -> list[Sync]:
    """The rows of ``loop_sync``, and that table."""
    known = _Known(world, block)
    limit = world.service.operations.max_model_age_days
    found = [row for day in block.days for row in compare_clocks(known.clocks(day), max_model_age_days=limit)]
    _store(block, "loop_sync", [asdict(row) for row in found])
    return found


def served_sql() -> str:
    """SQL of ``(day, feature_version, requests)`` that the champion answered."""
    return """
        select day, feature_version, count(*) from predictions
        where served and role = 'champion' and day in (select day from block_days) group by all
    """


def profiled_sql(first: date) -> str:
    """SQL of ``(day, feature version, rows)`` of the feature profiles from a day on, oldest first."""
    return f"""
        select day, subject, max(n) from all_profiles
        where column_name <> 'score' and slice = 'all' and day >= {literal(first)} group by all order by day
    """


def source_clocks_sql() -> str:
    """SQL of the newest row of each source and the strictest promise of the views that read it, per day."""
    return """
        select day, source, max(newest_available_at), min(age_hours), min(max_age_hours)
        from clock_freshness group by all order by day, source
    """


def declared_on(world: World, days: Sequence[date]) -> dict[date, str]:
    """The feature version that was declared when each of these days was computed; of closed days alone."""
    closed = [day for day in days if day in world.ledger.closings(world.name)]
    stored = stored_generations(world, closed) if closed else {}
    versions = {day: row["feature_versions"] for (name, day), row in stored.items() if name == "features"}
    return {day: named.split(",")[0] for day, named in versions.items() if named}


class _Known:
    """What a block knows about the clocks of its days, read once."""

    def __init__(self, world: World, block: Block) -> None:
        self.world, self.block = world, block
        con, first, last = block.con, min(block.days), max(block.days)
        world.lake.view(con, "freshness", BY_NAME["freshness"].columns, name="clock_freshness", first=first, last=last)
        self.sources: dict[date, list[SourceClock]] = defaultdict(list)
        for day, *clock in rows(con, source_clocks_sql()):
            self.sources[day].append(SourceClock(*clock))
        self.served: dict[date, dict[str, int]] = defaultdict(dict)
        for day, version, n in rows(con, served_sql()):
            self.served[day][version] = n
        self.profiled = rows(con, profiled_sql(first - timedelta(days=PROFILED_DAYS)))
        self.releases = [row for row in world.releases() if row["role"] == "champion"]
        self.changes = world.ledger.effective("changes", world.name)
        self.failing = failing_trainings(world)
        self.label = label_definition(world.service.label)
        self.declared = declared_on(world, block.days)
        self.events = known_events(world.service.drift)

    def clocks(self, day: date) -> Clocks:
        """The clocks at the end of a day."""
        service, calendar = self.world.service, self.world.calendar
        profiled = {version: (on, n) for on, version, n in self.profiled if on <= day}
        champion = self.champion(day)
        return Clocks(
            day=day,
            inputs=self.block.inputs[day],
            sources=self.sources[day],
            champion=champion,
            served=self.served[day],
            profiled=profiled,
            features=self.declared.get(day, self.world.feature_version),
            label=self.label,
            newest_mature_day=calendar.day_of(calendar.end_of(day) - service.label.window) - ONE_DAY,
            label_window_days=ceil(service.label.window / ONE_DAY),
            failed={row["decision_id"]: row["detail"] for row in self.failing if row["since"] <= day < row["until"]},
            events=events_known(self.events, day),
            events_then=events_known(self.events, champion.trained_on) if champion else "",
        )

    def champion(self, day: date) -> ModelClock | None:
        """Who held the role at the end of a day."""
        last = self.world.calendar.last_instant(day)
        held = [row for row in self.releases if row["effective_at"] <= last]
        if not held:
            return None
        row = held[-1]
        trained = self.world.trained_on(row["model_version"])
        told = {c["kind"]: c["after"] for c in self.changes if c["day"] <= trained}
        return ModelClock(
            row["model_version"],
            trained,
            row["fingerprint"],
            row["feature_version"],
            told.get("label"),
            told.get("events"),
        )


def failing_trainings(world: World) -> list[Row]:
    """Decisions to train that failed, with the kind of the last error, from the day of it until they were carried out.

    As known then: a closed day that is computed again does not know that somebody carried the training out since.
    """
    acted: dict[str, list[Row]] = defaultdict(list)
    for row in world.ledger.effective("actions", world.name):
        acted[row["decision_id"]].append(row)
    day_of = world.calendar.day_of
    return [
        {
            "decision_id": decision["decision_id"], "detail": failed[-1]["detail"].partition(":")[0],
            "since": day_of(failed[0]["acted_at"]),
            "until": min((day_of(r["acted_at"]) for r in tried if r["state"] == "done"), default=date.max),
        }
        for decision in world.ledger.effective("decisions", world.name)
        if decision["kind"] == Kind.RETRAIN.value
        and (tried := acted[decision["decision_id"]])
        and (failed := sorted((r for r in tried if r["state"] == "failed"), key=lambda r: r["attempt"]))
    ]  # fmt: skip
