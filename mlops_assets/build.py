"""Declarations -> ``dg.Definitions``: the one call that a user project makes.

The daily job is *one* step with three passes (sources with contracts; features and profiles; the day loop), not
three steps: a bad source day must stay "missing", so nothing is yielded for it, and Dagster skips every step that
waits for an output which was not yielded, for all days of the range. Inside one step the lineage is the same, and
days are reported one by one, as they are done.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import dagster as dg
from dagster import DagsterExecutionInterruptedError

from mlops_assets.adapters.asset_specs import daily, key_of, source_key
from mlops_assets.adapters.dagster_events import (
    BUDGET,
    Log,
    budget_metadata,
    closed_before,
    features_done,
    loop_done,
    sources_done,
    training_done,
)
from mlops_assets.adapters.duckdb_resource import PrivateDuckDB
from mlops_assets.adapters.home import Home
from mlops_assets.checks import check_results, check_specs
from mlops_assets.closing.world import World
from mlops_assets.errors import LeaseHeldError
from mlops_assets.feature_loop.assets import feature_assets, source_asset
from mlops_assets.feedback_loop.assets import feedback_assets
from mlops_assets.model_loop.assets import model_assets
from mlops_assets.monitoring_loop.assets import budget_asset, monitoring_assets
from mlops_assets.sensors import ACTS, DECISION, KIND, service_sensors
from mlops_assets.service.service import MLService
from mlops_assets.services import check_sharing

if TYPE_CHECKING:
    from mlops_assets.day_loop import DayReport

SECOND_PASS = ("features", "profiles")
DAY_LOOP = ("predictions", "labels", "outcomes", "quality", "operations", "drift", "loop_sync", "verdict")
RANGE_FIRST, RANGE_LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
PROCESS = "mlops/process"
WAIT_SECONDS = 300.0
BATCH, BATCH_EVENTS = "DAGSTER_EVENT_BATCH_SIZE", 1000
"""Dagster's own switch: the *planned* events of a range are stored as one batch."""
T = TypeVar("T")


@dataclass(frozen=True)
class Watcher:
    """Who wants to know how far a replay is: told after every day, and around every pass."""

    on_day: "Callable[[DayReport], None]" = lambda report: None
    step: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()


NOBODY = Watcher()
_watcher: ContextVar[Watcher] = ContextVar("watcher")


def build_definitions(services: Sequence[MLService], home: Home | None = None) -> dg.Definitions:
    """Assets, checks, jobs, schedules and sensors of these services.

    Args:
        services: the declarations; services that name the same source share its asset.
        home: where everything lives; by default what the environment names.

    Raises:
        DeclarationError: services share a source that they cannot share.
    """
    check_sharing(services)
    known: set[str] = set()
    parts = []
    for service in services:
        owned = [source.name for source in service.sources if source.name not in known]
        known.update(owned)
        beside = tuple(one for one in services if one is not service)
        world = World(service, home or Home.from_environment(), beside=beside)
        parts.append(_service_definitions(world, owned))
    shared = dg.Definitions(resources={"duckdb": PrivateDuckDB()}, executor=_executor())
    return dg.Definitions.merge(shared, *parts)


def _executor() -> dg.ExecutorDefinition:
    """One process per run; ``MLOPS_EXECUTOR=multiprocess`` gives every step its own."""
    is_multi = os.environ.get("MLOPS_EXECUTOR", "in_process") == "multiprocess"
    return dg.multiprocess_executor if is_multi else dg.in_process_executor


def _service_definitions(world: World, owned: Sequence[str]) -> dg.Definitions:
    name = world.name
    day_loop = _daily_assets(world, owned)
    model_loop = [] if world.service.is_monitor_only else [_model_assets(world)]
    daily_job = dg.define_asset_job(
        f"{name}_daily",
        selection=dg.AssetSelection.assets(*day_loop.keys),
        description=f"Reads the day's files, computes its features, and closes the day of {name}.",
        tags={"mlops/service": name},
        partitions_def=daily(world.service),
    )
    retrain_jobs = [
        dg.define_asset_job(
            f"{name}_retrain",
            selection=dg.AssetSelection.assets(*training.keys),
            description="Carries out one decision to train: training set, candidate, gate, refit, release.",
            tags={"mlops/service": name, KIND: "retrain"},
        )
        for training in model_loop
    ]
    schedule, sensors = service_sensors(world, daily_job, retrain_jobs[0] if retrain_jobs else None)
    return dg.Definitions(
        assets=[day_loop, _budget_asset(world), *model_loop],
        jobs=[daily_job, *retrain_jobs],
        schedules=[schedule],
        sensors=sensors,
    )


def _daily_assets(world: World, owned: Sequence[str]) -> dg.AssetsDefinition:
    service = world.service
    specs = [source_asset(service, source) for source in service.sources if source.name in owned]
    specs += [*feature_assets(service), *feedback_assets(service), *monitoring_assets(service)]
    keys = {spec.key for spec in specs}

    @dg.multi_asset(
        name=f"{service.name}_day",
        specs=specs,
        check_specs=[check for check in check_specs(service) if check.asset_key in keys],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=f"{service.name}_writes",
    )
    def close_days(
        context: dg.AssetExecutionContext, duckdb: PrivateDuckDB
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        """Sources with contracts, features with profiles, then the day loop; a day not computed stays missing."""
        days = [date.fromisoformat(key) for key in context.partition_keys]
        asked = _Asked(context, world, days)
        asked.read_sources(duckdb)
        asked.compute_features(duckdb)
        asked.close()
        with duckdb.get_connection() as con:
            yield from check_results(world, con, days, set(context.selected_asset_check_keys))

    return close_days


@dataclass(frozen=True)
class _Asked:
    """One run of the daily step: which days, and which assets a person or the schedule selected."""

    context: dg.AssetExecutionContext
    world: World
    days: list[date]

    @property
    def acts(self) -> bool:
        """A replay carries decisions out at once; otherwise sensors do."""
        return self.context.run.tags.get(ACTS) == "now"

    @property
    def log(self) -> Log:
        """Reports one materialization."""
        return lambda done: self.context.log_event(done)

    def has(self, *names: str) -> bool:
        """Whether one of these assets was selected."""
        return any(key_of(self.world.service, name) in self.context.selected_asset_keys for name in names)

    def read_sources(self, duckdb: PrivateDuckDB) -> None:
        """First pass. A day whose file was rejected or is missing stays missing."""
        from mlops_assets.closing.sources import ingest_sources

        with _watcher.get(NOBODY).step("sources"):
            self._when_free(lambda: ingest_sources(self.world, self.days))
            selected = [
                source
                for source in self.world.service.sources
                if source_key(source.name) in self.context.selected_asset_keys
            ]
            with duckdb.get_connection() as con:
                sources_done(self.world, con, self.days, selected, self.log)

    def compute_features(self, duckdb: PrivateDuckDB) -> None:
        """Second pass, for the days that are over; a blocked day stays missing."""
        from mlops_assets.closing.features import ensure_features

        first, now = self.world.first_unclosed(), self.world.clock() if self.acts else self.world.now()
        over = [day for day in self.days if day < first or self.world.calendar.end_of(day) <= now]
        if not over or over[0] > first or not self.has(*SECOND_PASS, *DAY_LOOP):
            return

        with _watcher.get(NOBODY).step("features"):
            self._when_free(lambda: ensure_features(self.world, over, self._holder))
            with duckdb.get_connection() as con:
                names = [name for name in SECOND_PASS if self.has(name)]
                features_done(self.world, con, over, names, self.log)

    def close(self) -> None:
        """Third pass: only a run that selects the whole day loop closes."""
        from mlops_assets.day_loop import run_days

        if not self.has(*DAY_LOOP):
            return
        lacking = [name for name in DAY_LOOP if not self.has(name)]
        if lacking:
            raise dg.Failure(
                f"A day is closed as a whole; not selected: {', '.join(lacking)}. Select all of "
                f"{', '.join(DAY_LOOP)}, or none of them."
            )
        watcher = _watcher.get(NOBODY)

        def on_day(report: "DayReport") -> None:
            loop_done(self.world, report, DAY_LOOP, self.log)
            watcher.on_day(report)

        with watcher.step("day loop"):
            reports = self._when_free(
                lambda: run_days(self.world, self.days, acts=self.acts, by=self._holder, on_day=on_day)
            )
        if self.acts:
            training_done(self.world, {i for report in reports for i in report.decisions}, self.log)

    @property
    def _holder(self) -> str:
        return "replay" if self.acts else f"run {self.context.run_id[:8]}"

    def _when_free(self, work: Callable[[], T]) -> T:
        return when_free(self.world, self.context.log.info, work)


def when_free(world: World, say: Callable[[str], None], work: Callable[[], T]) -> T:
    """Do something that takes a lease as soon as nobody else holds it; after WAIT_SECONDS, fail and say who does."""
    from mlops_assets.closing.waiting import wait_for_lease

    while True:
        wait_for_lease(world, seconds=WAIT_SECONDS, say=say)
        try:
            return work()
        except LeaseHeldError as error:  # taken between our look and our grasp
            say(str(error))


def _budget_asset(world: World) -> dg.AssetsDefinition:
    @dg.multi_asset(name=f"{world.name}_budget", specs=[budget_asset(world.service)])
    def report_budget(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        """The report as of the last closed day, started by hand; the one of a week comes with its Sunday."""
        from mlops_assets.closing.budgeting import budget_of, ledger_rows

        last = world.closed_through()
        if last is None:
            context.log.info(f"no day of {world.name} is closed yet")
            return
        rows = ledger_rows(world, world.ledger.epoch(world.name), budget_of(world, last))
        yield dg.MaterializeResult(key_of(world.service, BUDGET), metadata=budget_metadata(rows))

    return report_budget


def _model_assets(world: World) -> dg.AssetsDefinition:
    @dg.multi_asset(name=f"{world.name}_train", specs=model_assets(world.service), pool="mlflow_write")
    def carry_out_training(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        """Carry out the decision in tag ``mlops/decision``, or, started by hand, every one that is pending."""
        from mlops_assets.closing.standing import pending_decisions
        from mlops_assets.day_loop import act_on

        tagged = context.run.tags.get(DECISION)
        pending = [row["decision_id"] for row in pending_decisions(world) if row["kind"] == "retrain"]
        wanted = [tagged] if tagged else pending
        if not wanted:
            context.log.info(f"no decision to train is pending for {world.name}; nothing was done")
        for decision_id in wanted:
            context.log.info(f"{decision_id}: {act_on(world, decision_id, by=f'run {context.run_id[:8]}')}")
        training_done(world, set(wanted), context.log_event)
        yield from ()

    return carry_out_training


def replay_run(
    world: World, defs: dg.Definitions, instance: dg.DagsterInstance, days: Sequence[date], watcher: Watcher
) -> None:
    """Close a range of days as one Dagster run in this process, carrying decisions out at once.

    Raises:
        LeaseHeldError, RangeError: as ``day_loop.run_days`` does.
        KeyboardInterrupt: a person stopped it; the closed days stay closed.
    """
    tags = {
        RANGE_FIRST: min(days).isoformat(),
        RANGE_LAST: max(days).isoformat(),
        ACTS: "now",
        PROCESS: f"{socket.gethostname()}:{os.getpid()}",
    }
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job = defs.resolve_job_def(f"{world.name}_daily")
    token = _watcher.set(watcher)
    os.environ.setdefault(BATCH, str(BATCH_EVENTS))
    try:
        job.execute_in_process(instance=instance, tags=tags, run_config=quiet)
    except DagsterExecutionInterruptedError as error:
        raise KeyboardInterrupt from error
    finally:
        _watcher.reset(token)


def settle(world: World, instance: dg.DagsterInstance) -> list[str]:
    """Make Dagster's history say what the ledger says, after a kill: lines of what was put right.

    Replays whose process is gone are marked as failed (nothing else would, and they would look alive for ever);
    closed days that the history lacks are reported, without a run.
    """
    lines = []
    alive = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(alive):
        host, _, process = run.tags.get(PROCESS, "").rpartition(":")
        if host == socket.gethostname() and Path("/proc").is_dir() and not Path(f"/proc/{process}").exists():
            instance.report_run_failed(run, f"its process {process} is gone; the days it closed stay closed")
            lines.append(f"run {run.run_id[:8]}: process {process} is gone; marked as failed")
    shown = instance.get_materialized_partitions(key_of(world.service, "verdict"))
    lacking = sorted(day for day in world.ledger.closings(world.name) if day.isoformat() not in shown)
    if lacking:
        with PrivateDuckDB().get_connection() as con:
            closed_before(world, con, lacking, (*SECOND_PASS, *DAY_LOOP), instance.report_runless_asset_event)
        lines.append(f"{len(lacking)} closed days were missing in Dagster's history; reported")
    return lines
