"""Third step, computing: a block of days in one in-memory engine, from predictions to score profiles and quality.

Every row of a day depends only on what is known by the end of that day, so a block gives the same rows as its
days one by one. Nothing is written here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import copy_sql, frame, literal, put, quote, register_days, rows, run
from mlops_assets.adapters.ledger import Row
from mlops_assets.adapters.stopwatch import resources
from mlops_assets.closing.features import feature_columns
from mlops_assets.closing.feedback import (
    attribute_labels,
    prediction_days_sql,
    profile_label_timing,
    read_labels,
    read_log,
    register_block,
    with_conflicts,
)
from mlops_assets.closing.known import (
    KnownGeneration,
    SourceState,
    blocked_days,
    inputs_fingerprints,
    source_states,
)
from mlops_assets.closing.maturing import measure_completeness
from mlops_assets.closing.scoring_cost import Scoring, add_scoring_cost
from mlops_assets.closing.valuing import measure_kpis, own_source
from mlops_assets.closing.world import World, source_columns
from mlops_assets.feedback_loop import attribution
from mlops_assets.feedback_loop.outcomes import outcomes_sql
from mlops_assets.feedback_loop.prediction_log import BUCKETS, log_sql, other_stands_in_sql, prior_stands_in_sql
from mlops_assets.monitoring_loop.bill import USAGE_DAYS, allocate_bill
from mlops_assets.monitoring_loop.kpi_source import reach_days
from mlops_assets.monitoring_loop.operations import measure_operations
from mlops_assets.monitoring_loop.profiles import profile_labels, profile_scores
from mlops_assets.monitoring_loop.quality import history_days, measure_quality
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.operations import DailyBill, LabelDelayObjective
from mlops_assets.service.rollout import RolloutPolicy
from mlops_assets.service.service import MLService
from mlops_assets.service.training import ModelPolicy
from mlops_assets.tables import BY_NAME

HISTORY_DAYS = 40
"""Prediction days of history that the windows of quality can look back on, at least."""
PRIOR = "prior"


@dataclass
class Block:
    """A block of days being computed: the engine that holds its tables, and what is known about each day."""

    con: duckdb.DuckDBPyConnection
    days: list[date]
    known: list[KnownGeneration]
    inputs: dict[date, str]
    states: dict[date, list[SourceState]]
    blocked: dict[date, str]
    versions: Mapping[str, int]
    findings: dict[date, pd.DataFrame] = field(default_factory=dict)
    scorings: list[Scoring] = field(default_factory=list)


def compute_block(
    world: World, con: duckdb.DuckDBPyConnection, days: list[date], known: list[KnownGeneration]
) -> Block:
    """Compute predictions, labels, score profiles and quality of consecutive days (no closing is changed)."""
    states = source_states(world, known, days)
    block = Block(
        con,
        days,
        known,
        inputs_fingerprints(known, days),
        states,
        blocked_days(world, states),
        world.lake.versions(),
    )
    register_block(world, con, days, known)
    read_labels(world, con, days, known)
    first = min(first_needed(world.service, min(days)), _touched_first(world, block))
    register_days(con, world.calendar, first, max(days))
    _open_features(world, block)
    _open_history(world, block, first)
    run(con, BY_NAME["profiles"].create_sql())
    if world.service.prediction_log is None:
        _score(world, block)
        _recall_recorded(world, block)
    else:
        read_log(world, con, days, known)
        _recall_recorded(world, block)
        block.states = with_conflicts(world, con, states)
    attribute_labels(world, con, days, known)
    task = world.service.task
    is_chance = task in ("binary", "multiclass")
    profile_scores(
        con, predictions="predictions", days=days, into="profiles", is_chance=is_chance,
        slices=world.service.profiled_slices,
    )  # fmt: skip
    profile_labels(con, labels="labels", days=days, into="profiles", is_yes_or_no=task == "binary")
    profile_label_timing(world, con, days)
    add_feature_profiles(world, block, days)
    measure_completeness(world, con, days)
    _measure_quality(world, block)
    _measure_kpi(world, block)
    _measure_operations(world, block)
    return block


def _measure_kpi(world: World, block: Block) -> None:
    """Table ``kpi`` of the block's days."""
    first, routed = min(block.days), own_source(world) is not None and not world.service.is_monitor_only
    reach = days_between(first - timedelta(days=reach_days(world.service)), max(block.days))
    measure_kpis(
        world, block.con, block.days, known=block.known, routes=routes(world, list(reach)) if routed else [],
        blocked=blocked_by_then(world, block),
    )  # fmt: skip


def first_needed(service: MLService, first: date) -> date:
    """First day of predictions and labels that a block beginning on ``first`` looks at, corrections aside."""
    days = max(HISTORY_DAYS, *(history_days(service.reading(label)) for label in service.labels))
    windows = [first - label.window - timedelta(days=days + 1) for label in service.labels]
    attributed = [label for label in service.labels if label.attribution != "same_request"]
    return min(windows + [first - timedelta(days=attribution.history_days(label)) for label in attributed])


def predictions_since_sql(name: str, first: date) -> str:
    """SQL of a view of the predictions from a day on: a label definition counts for them and no earlier ones."""
    return f"""
        create or replace temp view {quote(name)} as
        select * from predictions where prediction_day >= {literal(first)}
    """


def _predictions_for(con: duckdb.DuckDBPyConnection, label: LabelDefinition) -> str:
    """Name of the relation with the predictions that a definition counts for."""
    if label.effective_from is None:
        return "predictions"
    run(con, predictions_since_sql(f"predictions_of_{label.version}", label.effective_from))
    return f"predictions_of_{label.version}"


def _measure_quality(world: World, block: Block) -> None:
    """Table ``quality`` of the block's days, under each label definition by itself."""
    run(block.con, BY_NAME["quality"].create_sql())
    for label in world.service.labels:
        measure_quality(
            block.con, world.service.reading(label), predictions=_predictions_for(block.con, label), labels="labels",
            completeness="completeness", days=block.days, into="quality", blocked=blocked_by_then(world, block),
        )  # fmt: skip


def _measure_operations(world: World, block: Block) -> None:
    """Table ``operations`` of the block's days."""
    run(block.con, BY_NAME["operations"].create_sql())
    delay = world.service.operations.objective("label_delay")
    measure_operations(
        block.con, predictions="predictions", labels="labels", label=world.service.label,
        max_label_delay_hours=delay.limit_hours if isinstance(delay, LabelDelayObjective) else None,
        days=block.days, slices=world.service.slices, into="operations",
    )  # fmt: skip
    if block.scorings:
        add_scoring_cost(world, block.con, block.scorings, block.days)
    if world.service.operations.bill is not None:
        _allocate_bill(world, block, world.service.operations.bill)


def _allocate_bill(world: World, block: Block, bill: DailyBill) -> None:
    """Share the bills that arrived on the block's days by the predictions of the days they are about."""
    source, first = world.service.source(bill.source), min(block.days)
    arrivals = [k.arrival_day for k in block.known if k.source == source.name and k.listed_on in set(block.days)]
    if arrivals:
        last = first - timedelta(days=1)
        world.shared.view(
            block.con, source.name, source_columns(source), name="stored_bill", first=min(arrivals), last=max(arrivals)
        )
        world.lake.view(
            block.con, "operations", BY_NAME["operations"].columns, name="operations_history",
            first=first - timedelta(days=USAGE_DAYS), last=last,
        )  # fmt: skip
        allocate_bill(
            block.con, bill, source, stored="stored_bill", listed="listed", history="operations_history", before=first,
            operations="operations",
        )  # fmt: skip


def blocked_by_then(world: World, block: Block) -> set[date]:
    """Blocked days of the block and before it: they stay in question until their label window is over."""
    closings = world.ledger.closings(world.name)
    before = {day for day, row in closings.items() if day < min(block.days) and row["state"] == "blocked"}
    return before | set(block.blocked)


def oldest_event_sql() -> str:
    """SQL of the oldest outcome among the block's label events."""
    return "select min(event_at) from labels"


def _touched_first(world: World, block: Block) -> date:
    """First prediction day that the block's label events can be about: a correction may concern an old one."""
    ((oldest,),) = rows(block.con, oldest_event_sql())
    window = max(label.window for label in world.service.labels)
    return min(block.days) if oldest is None else world.calendar.day_of(oldest - window)


def history_sql(table: str, first: date, last: date) -> str:
    """SQL that adds the closed rows of a fact table, from first to the day before last."""
    return f"""
        insert into {quote(table)} by name
        select * from {quote("closed_" + table)} where day >= {literal(first)} and day < {literal(last)}
    """


def _open_history(world: World, block: Block, first: date) -> None:
    """Fact tables ``predictions`` and ``labels``: the closed days before the block, and the block's own."""
    before = min(block.days)
    run(block.con, BY_NAME["predictions"].create_sql())
    for name in ("predictions", "labels"):
        world.lake.view(
            block.con,
            name,
            BY_NAME[name].columns,
            name=f"closed_{name}",
            first=first,
            last=before - timedelta(days=1),
        )
        run(block.con, history_sql(name, first, before))


def _open_features(world: World, block: Block) -> None:
    """View ``features`` over the stored features of the block's days."""
    releases = {row["feature_version"] for row in world.releases()}
    feature_sets = [world.feature_set(v) for v in sorted(releases | {world.feature_version})]
    columns = feature_columns(feature_sets)
    world.lake.view(block.con, "features", columns, first=min(block.days), last=max(block.days), is_open=True)


@dataclass(frozen=True)
class Shift:
    """A stretch of time in which the same versions hold the same roles."""

    start_at: datetime
    end_at: datetime
    holders: Mapping[str, Row]


def shifts(world: World, days: Sequence[date]) -> list[Shift]:
    """The block's time, cut where a role changes hands (a request's roles are looked up by ``predicted_at``)."""
    start, end = world.calendar.start_of(min(days)), world.calendar.end_of(max(days))
    cuts = sorted({row["effective_at"] for row in world.releases() if start < row["effective_at"] < end})
    edges = [start, *cuts, end]
    return [Shift(a, b, world.holders(a)) for a, b in zip(edges, edges[1:], strict=False)]


def routes(world: World, days: Sequence[date]) -> list[Row]:
    """Which version answers which hash buckets, from when until when, over some days."""
    found: list[Row] = []
    for shift in shifts(world, days):
        holders = shift.holders or {PRIOR: {"model_version": PRIOR}}
        for role, row in sorted(holders.items()):
            first, last = buckets_of(role, holders, world.service.model.rollout)
            found.append({
                "start_at": shift.start_at, "end_at": shift.end_at, "role": role, "version": row["model_version"],
                "from_bucket": first, "to_bucket": last,
            })  # fmt: skip
    return found


def requests_sql(columns: Sequence[str], version: str, shift: Shift) -> str:
    """SQL of the feature rows of one version in one stretch of time, ordered by request."""
    named = "".join(f", {quote(column)}" for column in columns)
    return f"""
        select day, request_id, predicted_at, context, feature_version{named} from features
        where feature_version = {literal(version)} and filled_on is null
          and predicted_at >= {literal(shift.start_at)} and predicted_at < {literal(shift.end_at)}
          and day in (select day from block_days)
        order by request_id
    """


def prior_requests_sql(version: str, shift: Shift) -> str:
    """SQL of the requests of one stretch of time: the prior reads no features, so any version's rows name them.

    The declared version's if the day has it; a day that closed under an older declaration keeps that one.
    """
    return f"""
        select day, request_id, predicted_at, context, feature_version from features
        where filled_on is null and day in (select day from block_days)
          and predicted_at >= {literal(shift.start_at)} and predicted_at < {literal(shift.end_at)}
        qualify row_number() over (
            partition by request_id order by feature_version = {literal(version)} desc, feature_version) = 1
        order by request_id
    """


def _score(world: World, block: Block) -> None:
    """Every role holder scores every request; the champion's answer is served, but for a holdback the fallback's.

    Where the one whose turn it is gives no number the other one answers, and the prior where both fail.
    """
    model, has_failed = world.service.model, False
    for shift in shifts(world, block.days):
        holders: list[tuple[str, Row | None]] = [(role, row) for role, row in sorted(shift.holders.items())]
        for role, row in holders or [(PRIOR, None)]:
            scored = _scored(world, block, shift, role, row)
            scored["from_bucket"], scored["to_bucket"] = buckets_of(role, shift.holders, world.service.model.rollout)
            put(block.con, "scored", scored)
            has_failed |= not np.isfinite(scored["score"]).all()
            decides = role != "fallback" or model.rollout.holdback_keeps == "fallback"
            logged = log_sql(
                world.name,
                scored="scored",
                into="predictions",
                threshold=model.threshold,
                decides=decides,
            )
            run(block.con, logged)
    if has_failed:
        run(block.con, other_stands_in_sql(model.threshold))
        run(block.con, prior_stands_in_sql(model.prior, model.threshold))


def buckets_of(role: str, holders: Collection[str], rollout: RolloutPolicy) -> tuple[int, int]:
    """The hash buckets that a role answers, the second one excluded; before there is a champion the prior has all."""
    held = round(rollout.holdback_share * BUCKETS) if "fallback" in holders else 0
    if role == PRIOR:
        return 0, BUCKETS
    return {"champion": (held, BUCKETS), "fallback": (0, held)}.get(role, (0, 0))


def recall_recorded_sql() -> str:
    """SQL that gives predictions of closed days the latencies and the context that their closing wrote down."""
    return """
        update predictions set latency_ms = recorded.latency_ms, context = recorded.context from recorded
        where recorded.request_id = predictions.request_id and recorded.model_version = predictions.model_version
          and recorded.day = predictions.day
    """


def _recall_recorded(world: World, block: Block) -> None:
    """A closed day that is computed again keeps the latencies it had: they are what its promises were judged on.

    And the slices that were declared then: what is declared today says nothing about them.
    """
    first, closed = min(block.days), world.closed_through()
    if closed is not None and first <= closed:
        columns = BY_NAME["predictions"].columns
        last = min(closed, max(block.days))
        world.lake.view(block.con, "predictions", columns, name="recorded", first=first, last=last)
        run(block.con, recall_recorded_sql())


def _scored(world: World, block: Block, shift: Shift, role: str, row: Row | None) -> pd.DataFrame:
    """One holder's scores of one stretch of time, 9 decimals, with the time a row took."""
    if row is None:
        requests = frame(block.con, prior_requests_sql(world.feature_version, shift))
        with resources() as used:
            scores = np.full(len(requests), round(world.service.model.prior, 9))
    else:
        names = world.feature_set(row["feature_version"]).names
        requests = frame(block.con, requests_sql(names, row["feature_version"], shift))
        with resources() as used:
            scores = score_with(world, row, requests, names)
        if len(requests):
            counted = pd.to_datetime(requests["day"]).dt.date.value_counts()
            of_days = dict(zip(counted.index.tolist(), counted.tolist(), strict=True))
            block.scorings.append(Scoring(row["model_version"], of_days, used))
    elapsed_ms = used.wall_seconds * 1000 / max(len(requests), 1)
    found = requests[["day", "request_id", "predicted_at", "context", "feature_version"]].copy()
    found["model_version"] = row["model_version"] if row else PRIOR
    found["role"], found["score"], found["latency_ms"] = role, scores, elapsed_ms
    found["cost"] = np.nan if (cost := cost_of(world.service.model, role)) is None else cost
    return found


def cost_of(model: ModelPolicy, role: str) -> float | None:
    """What one prediction in a role costs; the prior costs nothing, a version its tier's price."""
    if role == PRIOR:
        return 0.0
    return (model.fallback if role == "fallback" else model.champion).cost_per_prediction


def score_with(world: World, release: Row, requests: pd.DataFrame, names: Sequence[str]) -> "np.ndarray[Any, Any]":
    """Scores of a released version, loaded through the checked loader; a model is loaded once per process."""
    from mlops_assets.model_loop.training import score

    if requests.empty:
        return np.empty(0)
    key = (release["model_version"], release["model_sha256"])
    if key not in _loaded:
        _loaded[key] = world.registry.load(release["model_version"], sha256=release["model_sha256"])
    return score(_loaded[key], requests, names)


_loaded: dict[tuple[str, str], Any] = {}


def keep_feature_profiles_sql(columns: Sequence[str], days: Sequence[date]) -> str:
    """SQL that takes the feature profiles of the second step over into ``profiles``, which is rewritten by day."""
    named = ", ".join(quote(column) for column in columns)
    listed = ", ".join(literal(day) for day in days)
    return f"""
        insert into profiles by name
        select {named} from stored_profiles
        where subject in (select feature_version from features) and day in ({listed})
    """


def add_feature_profiles(world: World, block: Block, days: Sequence[date]) -> None:
    """Put the feature profiles of these days beside the score profiles of the block."""
    table = BY_NAME["profiles"]
    world.lake.view(block.con, table.name, table.columns, name="stored_profiles", first=min(days), last=max(days))
    run(block.con, keep_feature_profiles_sql([column.name for column in table.columns], days))


def outcomes_days(world: World, block: Block, kept: Sequence[date]) -> list[date]:
    """Prediction days whose outcomes the kept days change: open, maturing, touched by a label event or logged late."""
    window = max(label.window for label in world.service.labels)
    start = world.calendar.start_of(min(kept))
    first = world.calendar.day_of(start - window - timedelta(hours=2))
    open_days = set(days_between(max(first, world.service.first_day), max(kept)))
    told = rows(block.con, touched_days_sql(max(kept))) + rows(block.con, prediction_days_sql(kept))
    return sorted(open_days | {row[0] for row in told})


def touched_days_sql(last: date) -> str:
    """SQL of the prediction days that the block's label events, up to a day, are about."""
    return f"""
        select distinct p.prediction_day from labels l join predictions p using (request_id)
        where l.day <= {literal(last)} and l.day in (select day from block_days) order by 1
    """


def compute_outcomes(world: World, block: Block, kept: Sequence[date]) -> list[date]:
    """Temp table ``outcomes`` as of the last kept day; returns the prediction days it replaces."""
    days = outcomes_days(world, block, kept)
    listed = ", ".join(literal(day) for day in days)
    outcomes = [
        outcomes_sql(
            label,
            predictions=_predictions_for(block.con, label),
            labels="labels",
            days="days",
            as_of=literal(max(kept)),
        )
        for label in world.service.labels
    ]
    run(block.con, copy_sql("outcomes", " union all by name ".join(of_days_sql(query, listed) for query in outcomes)))
    return days


def of_days_sql(query: str, listed: str) -> str:
    """SQL of the rows of a query that belong to the listed days."""
    return f"select * from ({query}) where day in ({listed})"
