"""The day loop: the only place where a day is closed. The daily run, a replay and a backfill call the same function.

predictions -> labels -> outcomes -> score profiles -> quality -> operations -> drift -> verdict -> commit -> act, in
one process over blocks of days on in-memory tables. A block is kept up to the first day whose decisions change
something, committed, acted on, and the loop goes on (docs/decisions/0003-day-loop.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from mlops_assets.adapters.engine import open_engine
from mlops_assets.adapters.fault_points import fault_point
from mlops_assets.adapters.ledger import Lease, Row
from mlops_assets.closing.acting import Moment, act
from mlops_assets.closing.block import compute_block
from mlops_assets.closing.commit import commit_block
from mlops_assets.closing.features import refresh_features
from mlops_assets.closing.judging import judge_block
from mlops_assets.closing.known import known_for
from mlops_assets.closing.meanings import new_meanings
from mlops_assets.closing.recomputing import recompute_block
from mlops_assets.closing.releasing import reconcile
from mlops_assets.closing.repairing import stored_generations
from mlops_assets.closing.standing import pending_decisions, waits_for
from mlops_assets.closing.voids import void_lines
from mlops_assets.closing.world import SHARED, World
from mlops_assets.decisions import TOLD, Kind
from mlops_assets.errors import LedgerError, RangeError
from mlops_assets.feature_loop.point_in_time import compiled_sql
from mlops_assets.monitoring_loop.actions import is_cadence_day
from mlops_assets.monitoring_loop.incidents import Incident

BLOCK_DAYS = 31
BLOCK_PREDICTIONS = 1_000_000
"""A block holds at most so many predictions, or one day: its tables stand in memory."""
LEFT_TO_SENSORS = frozenset({Kind.RETRAIN.value, *(kind.value for kind in TOLD)})
"""Kinds of decisions that a daily run writes down and a sensor carries out; a replay carries out all at once."""


@dataclass(frozen=True)
class DayReport:
    """One day as a run leaves it. ``is_new``: this run closed it; otherwise a closed day was recomputed."""

    day: date
    state: str
    is_new: bool
    verdict: str
    reason: str
    rows: Mapping[str, int]
    decisions: tuple[str, ...]
    changes: Sequence[Row] = ()
    open_incidents: Sequence[Incident] = ()
    alarm_budget: Sequence[Row] = ()


def run_days(
    world: World,
    days: Sequence[date],
    *,
    acts: bool,
    by: str,
    on_day: Callable[[DayReport], None],
    block_days: int = BLOCK_DAYS,
) -> list[DayReport]:
    """Recompute the closed part of a range, then close its unclosed days in order.

    Args:
        acts: carry every decision out at once, at the virtual time of its day (a replay); otherwise trainings and
            alerts are left to sensors.
        by: who runs, for the lease and the ``actions`` rows.
        on_day: called once per finished day.

    Raises:
        RangeError: the range starts after the first unclosed day.
        LeaseHeldError: somebody else writes this service.
    """
    first_unclosed = world.first_unclosed()
    wanted = sorted(days)
    if wanted and wanted[0] > first_unclosed:
        raise RangeError(
            f"service '{world.name}': {wanted[0]} cannot be closed before {first_unclosed}, the first unclosed day. "
            f"Start the range at {first_unclosed}."
        )
    with world.ledger.lease(world.name, by) as lease:
        declare(world)
        reports = _recompute(world, [day for day in wanted if day < first_unclosed], on_day)
        if acts:
            _finish_pending(world)
        open_days = [day for day in wanted if day >= first_unclosed]
        while open_days:
            closed = _close_block(world, lease, first_block(world, open_days, block_days), acts=acts, by=by)
            for report in closed:
                on_day(report)
            reports += closed
            open_days = open_days[len(closed) :]
            if not closed:
                break
    return reports


def first_block(world: World, days: Sequence[date], most: int) -> list[date]:
    """The first days to close together: as many as fit into memory, up to the first one on which training is due.

    A training ends a block: what lies behind it would be computed in vain, by a champion that may be replaced.
    """
    block = list(days[: min(most, days_that_fit(world, days[0]))])
    cadence = "never" if world.service.is_monitor_only else world.service.model.cadence
    due = (place for place, day in enumerate(block, start=1) if is_cadence_day(day, cadence))
    return block[: next(due, most)]


def days_that_fit(world: World, day: date) -> int:
    """How many days like the one before ``day`` have ``BLOCK_PREDICTIONS`` predictions; one if none is closed yet."""
    before = day - timedelta(days=1)
    row = stored_generations(world, [before]).get(("predictions", before))
    return max(1, BLOCK_PREDICTIONS // max(1, row["rows"])) if row else 1


def declare(world: World) -> None:
    """Write what computes the newest features, and its SQL, and what labels mean into the ledger, on first use.

    Raises:
        DeclarationError: a label's meaning changed, and its version did not.
    """
    meanings = new_meanings(world)
    features = world.service.feature_set
    row = {
        "service": world.name, "feature_version": features.version, "text": features.model_dump_json(),
        "compiled": compiled_sql(features), "recorded_at": world.clock(),
    }  # fmt: skip
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "declarations", [row])
        world.ledger.append(transaction, "label_definitions", meanings)


def _recompute(world: World, days: list[date], on_day: Callable[[DayReport], None]) -> list[DayReport]:
    reports = []
    for start in range(0, len(days), BLOCK_DAYS):
        for done in recompute_block(world, days[start : start + BLOCK_DAYS]):
            report = DayReport(done.day, done.state, False, done.verdict, done.reason, done.rows, ())
            on_day(report)
            reports.append(report)
    return reports


def _close_block(world: World, lease: Lease, days: list[date], *, acts: bool, by: str) -> list[DayReport]:
    """Close a block up to the first day whose decisions change something, or that may not close yet."""
    now = world.clock() if acts else world.now()  # a replay waits for nothing that the wall clock has left behind
    closable: list[date] = []
    for day in days:
        if waits_for(world, day, now) is not None:
            break
        closable.append(day)
    if not closable:
        return []
    known = known_for(world, closable)
    refresh_features(world, closable, known)
    with open_engine() as con:
        block = compute_block(world, con, closable, known)
        judged = judge_block(world, block)
        kept = [judgement.day for judgement in judged]
        fault_point("before-commit")
        counts = commit_block(world, lease, block, kept, judged)
    for judgement in judged:
        for decision in judgement.decisions:
            if acts or decision["kind"] not in LEFT_TO_SENSORS:
                moment = Moment("replay", world.calendar.end_of(judgement.day)) if acts else Moment(by, world.now())
                act(world, {**decision, "attempt": 1}, moment)
    return [
        DayReport(
            j.day, j.verdict["state"], True, j.verdict["verdict"], j.verdict["reason"], counts[j.day],
            tuple(row["decision_id"] for row in j.decisions), j.changes, j.open_incidents, j.alarm_budget,
        )
        for j in judged
    ]  # fmt: skip


def _finish_pending(world: World) -> None:
    """Finish what a killed run decided and did not do, before the next day closes."""
    for decision in pending_decisions(world):
        act(world, decision, Moment("replay", world.calendar.end_of(decision["day"])))


def act_on(world: World, decision_id: str, *, by: str) -> str:
    """Carry out one decision that has no *done* action, at the service's own time; returns what was done.

    Raises:
        LedgerError: there is no such decision.
    """
    for decision in pending_decisions(world):
        if decision["decision_id"] == decision_id:
            return act(world, decision, Moment(by, max(world.now(), world.calendar.end_of(decision["day"]))))
    known = {row["decision_id"] for row in world.ledger.effective("decisions", world.name)}
    if decision_id in known:
        return f"{decision_id} is done already"
    raise LedgerError(f"service '{world.name}': there is no decision '{decision_id}'.")


def open_epoch(world: World, from_day: date, by: str) -> None:
    """Open a new epoch that re-decides from a closed day on, with every file known on its own day (PROTOCOL.md 5).

    Raises:
        RangeError: the day is not closed, so there is nothing to redo; or others gave the answers, once and for all.
    """
    if world.service.is_monitor_only:
        raise RangeError(
            f"service '{world.name}': its predictions were ingested, so they cannot be decided again. "
            "Deliver the repaired file; it counts from the first unclosed day on."
        )
    last = world.closed_through()
    if last is None or not world.service.first_day <= from_day <= last:
        raise RangeError(
            f"service '{world.name}': {from_day} is not closed, so there is nothing to redo. "
            f"Closed: {world.service.first_day} to {last}."
        )
    epoch = {
        "service": world.name, "epoch": world.ledger.epoch(world.name) + 1, "from_day": from_day, "until_day": last,
        "by": by, "versions": world.lake.versions(), "opened_at": world.clock(),
    }  # fmt: skip
    with (
        world.ledger.lease(world.name, f"redo by {by}") as lease,
        world.ledger.transaction(lease) as transaction,
    ):
        world.ledger.append(transaction, "epochs", [epoch])


def recover(world: World) -> list[str]:
    """Say and repair what a killed run left: nothing that is not closed counts, aliases follow the ledger."""
    lines: list[str] = []
    for name in (SHARED, world.name):
        holder = world.ledger.holder(name)
        if holder is not None:
            lines.append(f"'{name}' is being written by {holder['holder']} (process {holder['pid']})")
    pending = pending_decisions(world)
    lines += [f"to be carried out: {row['decision_id']} (attempt {row['attempt']})" for row in pending]
    lines += void_lines(world)
    was_released = world.ledger.rows("releases", world.name)  # a redo may have left nobody in charge
    if was_released and not any(row["kind"] == Kind.RETRAIN.value for row in pending):
        reconcile(world)
    return lines
