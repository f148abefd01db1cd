"""What asks for runs: a schedule that closes the first closable day, and sensors that react to decision rows.

Sensors take decisions that have no *done* action; they never ask "is it still bad?". A run key is the decision (or
day) and the number of the attempt: with the bare id, Dagster would never start a killed training again.
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job

from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.world import World
from mlops_assets.decisions import Kind
from mlops_assets.errors import MlopsError

ACTS, DAY, EPOCH = "mlops/acts", "mlops/day", "mlops/epoch"
DECISION, KIND = "mlops/decision", "mlops/kind"
MAX_ATTEMPTS = 5
"""After so many runs that ended without success a person has to look; launching by hand stays possible."""

DEEDS: dict[str, tuple[tuple[Kind, ...], str]] = {
    "alert": (
        (Kind.OPEN_INCIDENT, Kind.RAISE_INCIDENT, Kind.FAILED_RUN),
        "Tells people about new incidents, those that became graver, and failed runs; at least once, with the "
        "decision's id.",
    ),
    "escalation": (
        (Kind.ESCALATE, Kind.STALLED),
        "Calls the accountable person, once, when nobody took an incident within a day or no day closes; by the "
        "wall clock.",
    ),
    "digest": ((Kind.DIGEST,), "Sends the owner one page a week for all their services, also with nothing to do."),
    "freeze": (
        (Kind.FREEZE, Kind.UNFREEZE, Kind.HOLD_RETRAINING),
        "Finishes freezes, their lifting, and held trainings whose run was killed before it had recorded them.",
    ),
    "rollback": (
        (Kind.ROLLBACK, Kind.PROMOTE),
        "Finishes rollbacks and promotions whose run or command was killed in between.",
    ),
}
"""Sensors that act in the tick itself: the kinds of decisions they carry out, and what for."""

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_ALIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def service_sensors(
    world: World, daily_job: Job, retrain_job: Job | None
) -> tuple[dg.ScheduleDefinition, list[dg.SensorDefinition]]:
    """The schedule and the sensors of a service, all on from the start; one that trains nothing has no job for it."""
    jobs = [daily_job, retrain_job] if retrain_job else [daily_job]
    retraining = [_retrain_sensor(world, retrain_job)] if retrain_job else []
    return _daily_schedule(world, daily_job), [
        *retraining,
        *(_deed_sensor(world, name, kinds, words) for name, (kinds, words) in DEEDS.items()),
        _failed_run_sensor(world, jobs),
    ]


def _daily_schedule(world: World, job: Job) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{world.name}_daily_schedule",
        job=job,
        cron_schedule=world.service.schedule_cron,
        execution_timezone=world.service.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Closes the first closable day; otherwise says what it waits for, and until when.",
    )
    def daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        from mlops_assets.closing.standing import first_closable

        trouble = _land_tables(world)
        closable = first_closable(world)
        if closable.day is None or not closable.is_closable:
            return dg.SkipReason("; ".join(filter(None, [closable.reason, trouble])))
        day, epoch = closable.day.isoformat(), world.ledger.epoch(world.name)
        tags = {DAY: day, EPOCH: str(epoch)}
        attempt = _next_attempt(context.instance, f"{world.name}_daily", tags)
        if isinstance(attempt, str):
            return dg.SkipReason(f"{day}: {attempt}")
        tags |= {"dagster/asset_partition_range_start": day, "dagster/asset_partition_range_end": day}
        return dg.RunRequest(run_key=f"{world.name}-e{epoch}-{day}-{attempt}", tags=tags)

    return daily_schedule


def _land_tables(world: World) -> str:
    """Land what tables have of the first unclosed day; returns why one cannot be read, and the run will say so too."""
    from mlops_assets.closing.extracting import extract_tables

    day, last = world.first_unclosed(), world.service.last_day
    try:
        extract_tables(world, [day] if last is None or day <= last else [], again=False)
    except MlopsError as error:
        return str(error)
    return ""


def _retrain_sensor(world: World, job: Job) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{world.name}_retrain_sensor",
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches the training that a day decided on, once; again only if the run failed.",
    )
    def retrain_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from mlops_assets.closing.standing import pending_decisions

        if writer := _writer(world):
            return dg.SkipReason(writer)
        requests, waiting = [], []
        for row in pending_decisions(world):
            if row["kind"] != Kind.RETRAIN:
                continue
            decision = {DECISION: row["decision_id"]}
            attempt = _next_attempt(context.instance, f"{world.name}_retrain", decision)
            if isinstance(attempt, str):
                waiting.append(f"{row['decision_id']}: {attempt}")
                continue
            key = f"{row['decision_id']}-{max(attempt, row['attempt'])}"
            requests.append(dg.RunRequest(run_key=key, tags={**decision, KIND: "retrain"}))
        if not requests:
            return dg.SkipReason("; ".join(waiting) or "no decision to train is pending")
        return dg.SensorResult(run_requests=requests)

    return retrain_sensor


def _deed_sensor(world: World, name: str, kinds: Sequence[Kind], words: str) -> dg.SensorDefinition:
    """A sensor that carries out decisions of some kinds in the tick itself; what failed is tried again, five times."""

    @dg.sensor(
        name=f"{world.name}_{name}_sensor",
        target=None,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=words,
    )
    def deed_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from mlops_assets.closing.overdue import overdue
        from mlops_assets.closing.standing import pending_decisions

        if writer := _writer(world):
            return dg.SkipReason(writer)
        if Kind.STALLED in kinds:
            overdue(world)
        lines = [carry_out(world, row, by=f"{name} sensor") for row in pending_decisions(world) if row["kind"] in kinds]
        return dg.SkipReason("; ".join(lines) or f"nothing is pending of: {', '.join(kinds)}")

    return deed_sensor


def carry_out(world: World, decision: Row, *, by: str) -> str:
    """Carry one pending decision out and say so; a failure is recorded, and the next tick tries again, five times."""
    from mlops_assets.closing.telling import digest_waits
    from mlops_assets.day_loop import act_on

    decision_id = decision["decision_id"]
    if decision["attempt"] > MAX_ATTEMPTS:
        return f"{decision_id}: failed {MAX_ATTEMPTS} times; table `actions` of {world.name} says why"
    if decision["kind"] == Kind.DIGEST and (why := digest_waits(world, decision)):
        return f"{decision_id}: {why}"
    try:
        return f"{decision_id}: {act_on(world, decision_id, by=by)}"
    except (OSError, MlopsError) as error:
        return f"{decision_id}: {error}"


def _failed_run_sensor(world: World, jobs: Sequence[Job]) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name=f"{world.name}_failed_run_sensor",
        monitored_jobs=list(jobs),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people about runs that failed, with the reason; the alert sensor repeats what failed.",
    )
    def failed_run_sensor(context: dg.RunFailureSensorContext) -> None:
        from mlops_assets.closing.overdue import failed_run

        run = context.dagster_run
        about = run.tags.get(DAY) or run.tags.get(DECISION) or "launched by hand"
        text = f"{run.job_name} ({about}) failed: {context.failure_event.message}"
        decision = failed_run(world, run.run_id, text)
        context.log.info(carry_out(world, {**decision, "attempt": 1}, by="failed-run sensor"))

    return failed_run_sensor


def _writer(world: World) -> str | None:
    """Who writes the service now: a replay carries its own decisions out."""
    holder = world.ledger.holder(world.name)
    return f"{holder['holder']} (process {holder['pid']}) is writing '{world.name}'" if holder else None


def _next_attempt(instance: dg.DagsterInstance, job_name: str, tags: dict[str, str]) -> int | str:
    """The number of the next attempt, or why there is none now."""
    alive = instance.get_runs(dg.RunsFilter(job_name=job_name, tags=tags, statuses=_ALIVE), limit=1)
    if alive:
        return f"run {alive[0].run_id[:8]} is at it"
    ended = instance.get_runs_count(dg.RunsFilter(job_name=job_name, tags=tags, statuses=_ENDED))
    if ended >= MAX_ATTEMPTS:
        return f"{ended} runs ended without doing it. Read the newest one, then launch it again by hand."
    return ended + 1
