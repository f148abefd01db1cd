"""A decision becomes a run once; after a failed run it becomes another one. Driven tick by tick."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from toy_log import a_log_service, answers, answers_of, payments, truth_of
from toy_world import CALENDAR, FIRST, a_service, a_world, close, deliver_all, span

from mlops_assets import Expected, IncidentPolicy, MLService, ModelTier, SqlTable
from mlops_assets.adapters.calendar import wall_clock
from mlops_assets.adapters.dagster_home import instance as open_instance
from mlops_assets.build import Watcher, build_definitions, replay_run, settle
from mlops_assets.closing.standing import pending_decisions
from mlops_assets.closing.world import World

DECISION_DAYS = span(0, 14)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two weeks of parcels lie in the landing zone; nothing is closed."""
    found = a_world(tmp_path / "home")
    deliver_all(found.home.landing, DECISION_DAYS)
    return found


@pytest.fixture
def defs(world: World) -> dg.Definitions:
    return build_definitions([world.service], world.home)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """The history of a replay, on disk as a person's is."""
    with open_instance(a_world(tmp_path / "history").home) as found:
        yield found


def tick(defs: dg.Definitions, instance: dg.DagsterInstance, name: str) -> list[dg.RunRequest]:
    """One tick of a sensor: the runs it asks for that were not asked for before."""
    sensor = next(s for s in defs.sensors or [] if s.name == name)
    with dg.build_sensor_context(instance=instance, definitions=defs) as context:
        return list(sensor.evaluate_tick(context).run_requests or [])


def schedule_tick(defs: dg.Definitions, instance: dg.DagsterInstance) -> tuple[list[dg.RunRequest], str | None]:
    """One tick of the schedule: what it asks for, or why it does not."""
    (schedule,) = defs.schedules or []
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=wall_clock().replace(tzinfo=UTC)
    ) as context:
        seen = schedule.evaluate_tick(context)
    return list(seen.run_requests or []), seen.skip_message


def launch(defs: dg.Definitions, instance: dg.DagsterInstance, job: str, request: dg.RunRequest) -> bool:
    """Run what was asked for, in this process."""
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    found = defs.resolve_job_def(job)
    return found.execute_in_process(
        instance=instance, tags=dict(request.tags), run_config=quiet, raise_on_error=False
    ).success


def days_shown(instance: dg.DagsterInstance, asset: str) -> set[str]:
    return instance.get_materialized_partitions(dg.AssetKey(asset.split("/")))


def test_the_schedule_closes_one_day_after_another(
    world: World, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    for expected in span(0, 2):
        (request,), _ = schedule_tick(defs, instance)
        assert request.run_key == f"parcels-e1-{expected}-1"
        assert launch(defs, instance, "parcels_daily", request)
        assert world.closed_through() == expected
    assert days_shown(instance, "parcels/verdict") == {str(day) for day in span(0, 2)}


def test_a_day_whose_run_failed_is_asked_for_again(
    world: World, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    """The contract suite is gone for a while: the run fails, the next tick asks with attempt 2."""
    broken = build_definitions([a_service(contracts=str(world.home.path / "gone"))], world.home)
    (first,), _ = schedule_tick(broken, instance)
    assert not launch(broken, instance, "parcels_daily", first)

    (second,), _ = schedule_tick(defs, instance)
    assert second.run_key == f"parcels-e1-{FIRST}-2"
    assert launch(defs, instance, "parcels_daily", second)


def test_the_schedule_says_what_it_waits_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    tomorrow = wall_clock().date() + timedelta(days=1)
    world = a_world(tmp_path / "home", a_service(first_day=tomorrow))
    requests, why = schedule_tick(build_definitions([world.service], world.home), instance)
    assert requests == []
    assert why is not None and f"{tomorrow} ends at" in why


def test_the_schedule_reads_a_table_before_it_asks_which_file_is_missing(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two days ago is over and its file not there: the tick says why the table cannot be read, then reads it."""
    day = CALENDAR.day_of(wall_clock()) - timedelta(days=2)
    log, told = (SqlTable(url_variable="LOANS_DB_URL", table=name) for name in ("answers", "payments"))
    sources = (answers(table=log, expected=Expected(first=day)),
               payments(table=told, expected=Expected(first=day + timedelta(days=1))))  # fmt: skip
    world = a_world(tmp_path / "home", a_log_service(first_day=day, close_after_hours=96, sources=sources))
    defs = build_definitions([world.service], world.home)
    requests, why = schedule_tick(defs, instance)
    assert not requests and why is not None
    assert why.startswith(f"{day} waits for answers/{day}.* (rows of table 'answers') until ")
    assert "the environment variable LOANS_DB_URL is not set" in why

    monkeypatch.setenv("LOANS_DB_URL", f"sqlite:///{tmp_path / 'loans.db'}")
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'loans.db'}")
    for name, rows in (("answers", answers_of(day)), ("payments", truth_of(day))):
        rows.astype({"event_at": "datetime64[us]", "available_at": "datetime64[us]"}).to_sql(name, engine, index=False)
    engine.dispose()
    ((request,), _), landed = schedule_tick(defs, instance), world.home.landing / "answers" / f"{day}.parquet"
    assert request.tags["mlops/day"] == day.isoformat() and landed.exists()


def closed_by_schedule(world: World) -> str:
    """Close days without acting, as the daily run does, until a day decides to train; the decision's id."""
    for day in DECISION_DAYS:
        close(world, [day], acts=False)
        for row in pending_decisions(world):
            if row["kind"] == "retrain":
                return str(row["decision_id"])
    raise AssertionError("no day decided to train")


@pytest.mark.slow
def test_a_decision_to_train_becomes_one_run(world: World, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    decision_id = closed_by_schedule(world)
    (request,) = tick(defs, instance, "parcels_retrain_sensor")
    (again,) = tick(defs, instance, "parcels_retrain_sensor")
    assert request.run_key == again.run_key == f"{decision_id}-1"  # Dagster launches a key once

    assert launch(defs, instance, "parcels_retrain", request)
    assert tick(defs, instance, "parcels_retrain_sensor") == []
    assert [r["decision_id"] for r in world.ledger.effective("gates", "parcels")] == [decision_id]
    assert instance.get_latest_materialization_event(dg.AssetKey(["parcels", "release"])) is not None


@pytest.mark.slow
def test_a_training_that_failed_is_launched_again_with_attempt_two(
    world: World, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    decision_id = closed_by_schedule(world)
    (first,) = tick(defs, instance, "parcels_retrain_sensor")
    broken = build_definitions([a_broken_service()], world.home)
    assert not launch(broken, instance, "parcels_retrain", first)

    (second,) = tick(defs, instance, "parcels_retrain_sensor")
    assert second.run_key == f"{decision_id}-2"
    assert launch(defs, instance, "parcels_retrain", second)
    assert tick(defs, instance, "parcels_retrain_sensor") == []


def a_broken_service() -> MLService:
    """A factory that leads nowhere: the training fails."""
    model = a_service().model.model_copy(update={"champion": ModelTier(factory="toy_world:nowhere")})
    return a_service(model=model)


def test_an_incident_is_told_once_in_the_tick_itself(
    tmp_path: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    """The day's orders never came: the day is blocked, and one page goes out."""
    world = a_world(tmp_path / "home")
    deliver_all(world.home.landing, span(0, 2), without=[("orders", FIRST + timedelta(days=1))])
    close(world, span(0, 2), acts=False)
    defs = build_definitions([world.service], world.home)
    told = [row["decision_id"] for row in pending_decisions(world) if row["kind"] == "open_incident"]
    assert told

    assert tick(defs, instance, "parcels_alert_sensor") == []
    assert {row["kind"] for row in pending_decisions(world)} <= {"retrain"}
    done = [row for row in world.ledger.effective("actions", "parcels") if row["state"] == "done"]
    assert sorted(row["decision_id"] for row in done) == sorted(told)
    tick(defs, instance, "parcels_alert_sensor")
    assert len([r for r in world.ledger.effective("actions", "parcels") if r["state"] == "done"]) == len(told)


def test_each_sensor_carries_out_its_own_kind_once(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """Nobody takes the incident, and a week ends: three sensors, three messages, none of them twice."""
    world = a_world(tmp_path / "home", a_service(incidents=IncidentPolicy(digest="weekly")))
    deliver_all(world.home.landing, span(0, 4), without=[("orders", FIRST + timedelta(days=1))])
    close(world, span(0, 4), acts=False)
    defs = build_definitions([world.service], world.home)

    def done() -> list[tuple[str, str]]:
        kinds = {row["decision_id"]: row["kind"] for row in world.ledger.effective("decisions", "parcels")}
        rows = world.ledger.rows("actions", "parcels")
        return sorted((kinds[row["decision_id"]], row["by"]) for row in rows if row["state"] == "done")

    expected: list[tuple[str, str]] = []
    for name, kind in (("alert", "open_incident"), ("escalation", "escalate"), ("digest", "digest")):
        for _twice in range(2):
            assert tick(defs, instance, f"parcels_{name}_sensor") == []
        expected.append((kind, f"{name} sensor"))
        assert done() == sorted(expected)
    assert {row["kind"] for row in pending_decisions(world)} <= {"retrain", "freeze"}


@pytest.mark.slow
def test_the_page_of_a_day_shows_the_open_incidents_with_their_playbook(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    world = a_world(tmp_path / "home")
    deliver_all(world.home.landing, span(0, 2), without=[("orders", FIRST + timedelta(days=1))])
    replay_run(world, build_definitions([world.service], world.home), instance, span(0, 2), Watcher())
    verdict = dg.AssetKey(["parcels", "verdict"])
    event = instance.get_latest_materialization_event(verdict)
    assert event is not None and event.asset_materialization is not None
    page = event.asset_materialization.metadata["open incidents"].value
    assert isinstance(page, str) and "open_incident-orders" in page and "## What is asked of you" in page
    [check] = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(verdict, "incidents"), 1)
    assert check.event is not None and "orders" in str(check.event.dagster_event)
    assert check.status.value == "FAILED"


@pytest.mark.slow
def test_a_blocked_day_stays_missing_where_nothing_was_computed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    world = a_world(tmp_path / "home")
    missing = FIRST + timedelta(days=1)
    deliver_all(world.home.landing, span(0, 4), without=[("orders", missing)])
    defs = build_definitions([world.service], world.home)
    replay_run(world, defs, instance, span(0, 4), Watcher())

    everything = {str(day) for day in span(0, 4)}
    assert days_shown(instance, "sources/orders") == everything - {str(missing)}
    fed = missing + timedelta(days=1)
    for asset in ("features", "profiles", "predictions"):
        assert days_shown(instance, f"parcels/{asset}") == everything - {str(fed)}, asset
    assert days_shown(instance, "parcels/verdict") == everything


@pytest.mark.slow
def test_a_replay_tells_each_day_and_its_trainings_to_dagster(
    world: World, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    seen: list[date] = []
    replay_run(world, defs, instance, DECISION_DAYS, Watcher(lambda report: seen.append(report.day)))
    assert seen == DECISION_DAYS
    assert days_shown(instance, "parcels/verdict") == {str(day) for day in DECISION_DAYS}
    assert instance.get_latest_materialization_event(dg.AssetKey(["parcels", "release"])) is not None
    assert tick(defs, instance, "parcels_retrain_sensor") == []


@pytest.mark.slow
def test_days_closed_without_dagster_are_told_to_it_afterwards(world: World, instance: dg.DagsterInstance) -> None:
    """A kill between closing and reporting leaves a gap that the next start fills."""
    close(world, span(0, 3))
    assert settle(world, instance) == ["4 closed days were missing in Dagster's history; reported"]
    assert days_shown(instance, "parcels/quality") == {str(day) for day in span(0, 3)}
    assert settle(world, instance) == []
