"""Third step, judging and deciding: day after day, with what stood in the ledger at the end of the day before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import duckdb
import pandas as pd

from mlops_assets.adapters.engine import append_sql, frame, literal, put, quote, run
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.block import Block, blocked_by_then
from mlops_assets.closing.budgeting import budget_of, is_report_day, ledger_rows
from mlops_assets.closing.changes import changes_of
from mlops_assets.closing.commit import DayJudgement
from mlops_assets.closing.drifting import drift_of, label_columns, source_of, usual_days
from mlops_assets.closing.explaining import explained_quality
from mlops_assets.closing.following import event_row, follow, incident_row, listen, unfreezing
from mlops_assets.closing.releasing import automatic_rollback
from mlops_assets.closing.roles import open_roles
from mlops_assets.closing.sliced_features import parted_features
from mlops_assets.closing.slicing import parted_rows, with_slices_named
from mlops_assets.closing.standing import Standing, inputs, open_incident, standing_before
from mlops_assets.closing.watching import unusual_rows, watch
from mlops_assets.closing.world import World
from mlops_assets.decisions import CHANGING, Decision, Kind, decision_row
from mlops_assets.feedback_loop.maturity import arrival_series_sql
from mlops_assets.monitoring_loop.actions import decide, reasons_to_retrain
from mlops_assets.monitoring_loop.drift import history_days, series_from_profiles
from mlops_assets.monitoring_loop.evidence import Evidence, reach_days, read_evidence
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.incidents import Event, going_on, with_upstream_causes
from mlops_assets.monitoring_loop.operations import operations_series
from mlops_assets.monitoring_loop.rules import QualityJudgement, judge_quality, rules_frame
from mlops_assets.monitoring_loop.verdict import Verdict, judge_day
from mlops_assets.tables import BY_NAME


def with_closed_days_sql(table: str, before: date) -> str:
    """SQL of a view ``all_<table>``: its closed days before the block, and the block's own."""
    return f"""
        create or replace temp view {quote(f"all_{table}")} as select * from {quote(f"closed_{table}")}
        where day < {literal(before)} union all by name select * from {quote(table)}
    """


def all_quality_sql(before: date, label_version: str) -> str:
    """SQL of a view of what rules look at: quality, and the KPI as one more metric; closed days and the block's own.

    Of the label definition in force: two definitions side by side give two values, and a rule never mixes them.
    """
    kpi = "select * exclude (total, expected, alarms, kpi), kpi as metric"
    return f"""
        create or replace temp view all_quality as
        select * from (
            select * from closed_quality where day < {literal(before)} union all by name select * from quality
            union all by name {kpi} from closed_kpi where day < {literal(before)} union all by name {kpi} from kpi
        ) where label_version in ({literal(label_version)}, '')
    """


def series(world: World, block: Block) -> pd.DataFrame:
    """The profiles as series, closed days before the block and the block's own."""
    before = min(block.days)
    first, last = before - timedelta(days=history_days(world.service.drift)), before - timedelta(days=1)
    views = {"profiles": "closed_profiles", "operations": "closed_operations", "completeness": "closed_completeness"}
    for name, view in views.items():
        world.lake.view(block.con, name, BY_NAME[name].columns, name=view, first=first, last=last)
    for name in ("profiles", "operations", "completeness"):
        run(block.con, with_closed_days_sql(name, before))
    open_roles(world, block, first)
    profiled = series_from_profiles(
        block.con, profiles="all_profiles", roles="roles", label_version=world.service.label.version
    )
    running = operations_series(
        block.con, operations="all_operations", with_latency=world.service.operations.watches_latency
    )
    arriving = frame(block.con, arrival_series_sql(world.service.label, "all_completeness"))
    return pd.concat([profiled, running, arriving], ignore_index=True)


def evidence_of(world: World, block: Block) -> list[Evidence]:
    """What rules may know about quality at the end of each of the block's days."""
    before = min(block.days)
    for table in ("quality", "kpi"):
        first, last = before - timedelta(days=reach_days(world.service, table)), before - timedelta(days=1)
        world.lake.view(block.con, table, BY_NAME[table].columns, name=f"closed_{table}", first=first, last=last)
    run(block.con, all_quality_sql(before, world.service.label.version))
    return read_evidence(
        block.con, world.service, days=block.days, blocked=blocked_by_then(world, block),
        usual=usual_days(world, block.days),
    )  # fmt: skip


def judge_block(world: World, block: Block, *, stops: bool = True) -> list[DayJudgement]:
    """Drift, verdict and decisions of the block's days; ``stops`` at the first one whose decisions change something.

    Leaves temp tables ``drift``, ``rules`` and ``verdicts`` in the engine.
    """
    profiled = series(world, block)
    drift = with_slices_named(world, block, drift_of(world, block, profiled))
    strange = [*unusual_rows(world, block), *parted_rows(world, block), *parted_features(world, block)]
    if strange:
        found = pd.DataFrame(strange, columns=drift.columns).astype(drift.dtypes.to_dict())
        drift = pd.concat([drift, found], ignore_index=True)
    _fill(block.con, "drift", drift)
    others, changes = watch(world, block), changes_of(world, block, block.days)
    by_day = {day: rows for day, rows in drift.groupby(pd.to_datetime(drift["day"]).dt.date)} if len(drift) else {}
    quality = judge_quality(world.service, evidence_of(world, block), con=block.con)
    quality = explained_quality(world, block, quality)
    _fill(block.con, "rules", rules_frame(quality))
    of_day = {judgement.day: judgement for judgement in quality}
    standing = standing_before(world, min(block.days))
    current = world.ledger.epoch(world.name)
    epochs = {day: row["epoch"] for day, row in world.ledger.closings(world.name).items()}
    said = inputs(world)
    judged: list[DayJudgement] = []
    for day in block.days:
        words, frozen_since = [row for row in said if row["effective_day"] == day], standing.frozen_since
        events = listen(standing, words)
        lifted = unfreezing(day, frozen_since, standing, words)
        findings = by_day.get(day, drift.iloc[:0])
        about = _Day(day, findings, of_day[day], others.get(day, []), profiled, epochs.get(day, current), lifted)
        judged.append(replace(_judge(world, block, about, standing, events), changes=changes[day]))
        if is_report_day(day):
            report = ledger_rows(world, about.epoch, budget_of(world, day, judged))
            judged[-1] = replace(judged[-1], alarm_budget=report)
        if stops and any(row["kind"] in CHANGING for row in judged[-1].decisions):
            break
    _fill(block.con, "verdicts", pd.DataFrame([judgement.verdict for judgement in judged]))
    return judged


def _fill(con: duckdb.DuckDBPyConnection, name: str, rows: pd.DataFrame) -> None:
    run(con, BY_NAME[name].create_sql())
    if len(rows):
        put(con, "filling", rows.assign(day=pd.to_datetime(rows["day"])))
        run(con, append_sql(name, "filling"))


@dataclass(frozen=True)
class _Day:
    """One day to judge: rows of ``drift``, quality, other findings, the series behind them, the epoch, and a freeze
    that people ended for it.
    """

    day: date
    drift: pd.DataFrame
    quality: QualityJudgement
    others: Sequence[Finding]
    series: pd.DataFrame
    epoch: int
    lifted: Sequence[Decision]


def _judge(world: World, block: Block, judged: _Day, standing: Standing, events: list[Event]) -> DayJudgement:
    """The verdict on a day, what is decided, and what that does to freezes and incidents; ``events`` grows."""
    day, quality = judged.day, judged.quality
    states = {state.source: (state.state, state.reason) for state in block.states[day]}
    origin = label_columns(judged.drift, world.service.label.source) | source_of(world.service.views)
    verdict = judge_day(
        day, judged.drift, states, day in block.blocked, source_of=origin,
        quality=quality.findings(world.service.label.source), others=judged.others,
    )  # fmt: skip
    findings = with_upstream_causes(
        verdict.findings, {source.name for source in world.service.sources}, world.service.incidents.follows,
        going_on(standing.incidents.values(), origin),
    )  # fmt: skip
    is_frozen = standing.frozen_since is not None
    decisions = decide(
        day, verdict, findings, open_causes=set(standing.open_causes),
        is_frozen=is_frozen or world.service.is_monitor_only,  # where nothing is trained there is nothing to freeze
        reasons_to_retrain=[] if world.service.is_monitor_only else reasons_to_retrain(
            world.service.model, day, quality.reasons_to_retrain, last_training=standing.last_training,
            last_hold=standing.last_hold, is_frozen=is_frozen,
        ),
    )  # fmt: skip
    rows = [decision_row(world.name, day, judged.epoch, decision) for decision in [*judged.lifted, *decisions]]
    opened = [incident_row(row) for row in rows if row["kind"] == Kind.OPEN_INCIDENT.value]
    for row in opened:
        open_incident(standing, row)
    more = follow(world, day, findings, standing, events, series=judged.series, is_blocked=day in block.blocked)
    back = automatic_rollback(world, day, findings, standing.incidents.values())
    rows += [decision_row(world.name, day, judged.epoch, decision) for decision in [*more, *([back] if back else [])]]
    for row in rows:
        standing.note(day, Kind(row["kind"]))
    if day not in block.blocked:
        standing.count_quiet_day(day)
    told = [event_row(world, judged.epoch, event) for event in events]
    still_open = tuple(standing.incidents.values())
    return DayJudgement(day, _verdict_row(verdict, rows), rows, opened, told, open_incidents=still_open)


def _verdict_row(verdict: Verdict, decisions: Sequence[Row]) -> Row:
    return {
        "day": verdict.day, "verdict": verdict.verdict, "tier": verdict.tier, "reason": verdict.reason,
        "decisions": ", ".join(row["kind"] for row in decisions), "state": verdict.state,
    }  # fmt: skip
