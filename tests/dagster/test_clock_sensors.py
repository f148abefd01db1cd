"""What sensors do while no day closes, and what they finish: driven tick by tick on an instance of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType
from receivers import WebHook, running
from toy_stories import copy_of, untrained
from toy_world import CALENDAR, FIRST, a_service, a_world, close, deliver_all, span

from mlops_assets import IncidentPolicy
from mlops_assets.adapters.dagster_home import instance as open_instance
from mlops_assets.adapters.dagster_home import prepare_dagster_home
from mlops_assets.adapters.ledger import Row
from mlops_assets.build import build_definitions
from mlops_assets.closing.overdue import failed_run, overdue
from mlops_assets.closing.standing import pending_decisions
from mlops_assets.closing.telling import others_of_owner
from mlops_assets.closing.world import World
from mlops_assets.decisions import Decision, Kind, decision_row
from mlops_assets.people import acknowledge_incident
from mlops_assets.promises import stopped, uncovered
from mlops_assets.sensors import carry_out, service_sensors

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
LAST = FIRST + timedelta(days=2)
"""The last day that closes; on it the orders of the day before are missing."""
INCIDENT = f"parcels-e1-{LAST}-open_incident-orders"
ESCALATION = f"parcels-e1-{LAST + timedelta(days=1)}-escalate-orders"
STALLED = f"parcels-e1-{LAST + timedelta(days=1)}-stalled-closing"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three days are closed, the third one blocked; an incident is open and told of, and nobody has it."""
    world = a_world(tmp_path_factory.mktemp("clock") / "home", untrained())
    deliver_all(world.home.landing, span(0, 2), without=[("orders", LAST - timedelta(days=1))])
    close(world, span(0, 2))
    assert not pending_decisions(world)
    return world


@pytest.fixture
def world(closed: World, tmp_path: Path) -> World:
    return copy_of(closed, tmp_path / "home")


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebHook]:
    with running(WebHook()) as server:
        monkeypatch.setenv("MLOPS_ALERT_URLS", server.url)
        yield server


def at(world: World, moment: datetime) -> World:
    """The same service when the wall clock shows this."""
    return replace(world, clock=lambda: moment)


def after_end_of(days: int, hours: float) -> datetime:
    """So many hours after the end of a day, counted from the last closed one."""
    return CALENDAR.end_of(LAST + timedelta(days=days)) + hours * HOUR


def tick(world: World, name: str) -> None:
    """One tick of one sensor of the service as it stands."""
    _schedule, sensors = service_sensors(world, dg.define_asset_job("parcels_daily"), None)
    sensor = next(one for one in sensors if one.name == f"parcels_{name}_sensor")
    with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance) as context:
        assert not sensor.evaluate_tick(context).run_requests


def done(world: World) -> dict[str, str]:
    """Decision -> who carried it out, of those that no closing took."""
    rows = world.ledger.effective("actions", world.name)
    return {row["decision_id"]: row["by"] for row in rows if row["state"] == "done" and row["by"] != "replay"}


def decided(world: World, kind: Kind, subject: str, **evidence: str) -> Row:
    """A decision of the last day that somebody wrote down and could not carry out any more."""
    row = decision_row(world.name, LAST, 1, Decision(kind, subject, "because", evidence))
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "decisions", [row])
    return row


def test_nobody_came_within_a_day_and_no_day_closes_is_told_once(world: World, hook: WebHook) -> None:
    """The clock escalates at the end of the next day, which nobody has closed."""
    tick(at(world, after_end_of(1, -0.1)), "escalation")
    assert done(world) == {}
    for hours in (0.1, 0.2):
        tick(at(world, after_end_of(1, hours)), "escalation")
    assert done(world) == {ESCALATION: "escalation sensor"}
    [got] = hook.received
    assert got["message"].startswith("To: Mia (accountable)")
    assert f"nobody has acknowledged {INCIDENT} since {LAST}: blocked: orders missing on {LAST}" in got["message"]


def test_the_twenty_four_hours_begin_when_the_notice_was_delivered(tmp_path: Path, hook: WebHook) -> None:
    """The message went out eight hours after the day had ended: nobody is late before the same hour of the next."""
    world = a_world(tmp_path / "home", untrained())
    deliver_all(world.home.landing, span(0, 2), without=[("orders", LAST - timedelta(days=1))])
    close(world, span(0, 2), acts=False)
    tick(at(world, after_end_of(0, 8)), "alert")
    assert list(done(world)) == [INCIDENT]
    tick(at(world, after_end_of(1, 7.9)), "escalation")
    assert list(done(world)) == [INCIDENT]
    tick(at(world, after_end_of(1, 8.1)), "escalation")
    assert set(done(world)) == {ESCALATION, INCIDENT}


def test_the_day_that_closes_after_all_does_not_escalate_again(world: World, hook: WebHook) -> None:
    tick(at(world, after_end_of(1, 0.1)), "escalation")
    deliver_all(world.home.landing, span(3, 3))
    close(world, span(3, 3), acts=False)
    assert ESCALATION in {row["decision_id"] for row in world.ledger.effective("decisions", world.name)}
    assert ESCALATION not in {row["decision_id"] for row in pending_decisions(world)}
    assert [row["event"] for row in world.ledger.rows("incident_events", world.name)].count("escalated") == 1
    close(world, span(3, 3))
    assert world.ledger.rows("divergences", world.name) == []


def test_who_said_that_they_have_it_is_not_passed_over_by_the_clock(world: World) -> None:
    acknowledge_incident([world], INCIDENT, by="Mia", reason="")
    assert overdue(at(world, after_end_of(1, 0.1))) == []


def test_days_that_stop_closing_page_the_accountable_person_once(world: World, hook: WebHook) -> None:
    """A day may close six hours after its end; six hours later somebody is called."""
    acknowledge_incident([world], INCIDENT, by="Mia", reason="")
    for hours in (11.9, 12.1, 20):
        tick(at(world, after_end_of(1, hours)), "escalation")
    assert done(world) == {STALLED: "escalation sensor"}
    [got] = hook.received
    assert f"{LAST + timedelta(days=1)} could have closed at" in got["title"]
    assert "mlops status parcels" in got["message"] and got["message"].startswith("To: Mia (accountable)")


def test_history_and_the_demo_are_never_overdue(world: World) -> None:
    assert overdue(at(world, after_end_of(9, 0))) == []
    demo = replace(world, service=world.service.model_copy(update={"clock": "demo"}))
    assert overdue(at(demo, after_end_of(1, 12.1))) == []


@pytest.mark.parametrize("kind", [Kind.FREEZE, Kind.UNFREEZE, Kind.HOLD_RETRAINING])
def test_what_a_killed_run_decided_about_retraining_is_recorded_by_its_sensor_once(world: World, kind: Kind) -> None:
    row = decided(world, kind, "retraining")
    for _twice in range(2):
        tick(at(world, after_end_of(0, 1)), "freeze")
    assert done(world) == {row["decision_id"]: "freeze sensor"}
    tried = [r for r in world.ledger.rows("actions", "parcels") if r["decision_id"] == row["decision_id"]]
    assert {r["attempt"] for r in tried} == {1} and len(tried) == 2


def test_a_message_about_a_failed_run_is_sent_until_it_is_taken(world: World, hook: WebHook) -> None:
    """The receiver is down when the run fails: the alert sensor repeats it, and every attempt is recorded."""
    hook.refusals = [500, 500]
    now = at(world, after_end_of(0, 1))
    row = failed_run(now, "0a1b2c3d-run", "parcels_daily (2024-03-04) failed: no space left")
    assert failed_run(now, "0a1b2c3d-run", "said twice") == row
    assert "refused it" in carry_out(now, {**row, "attempt": 1}, by="failed-run sensor")
    for _tick in range(3):
        tick(now, "alert")
    assert done(world) == {row["decision_id"]: "alert sensor"}
    states = [(r["attempt"], r["state"]) for r in world.ledger.rows("actions", "parcels")
              if r["decision_id"] == row["decision_id"] and r["state"] != "intended"]  # fmt: skip
    assert states == [(1, "failed"), (2, "failed"), (3, "done")]
    [got] = hook.received
    assert "no space left" in got["title"]


def test_a_run_that_failed_becomes_one_message(tmp_path: Path, hook: WebHook) -> None:
    """The contract suite is gone: the run of the schedule fails, and the sensor's next tick tells it, once."""
    world = a_world(tmp_path / "home", untrained(contracts=str(tmp_path / "gone")))
    deliver_all(world.home.landing, span(0, 1))
    defs = build_definitions([world.service], world.home)
    sensor = next(one for one in defs.sensors or [] if one.name == "parcels_failed_run_sensor")
    repository = defs.get_repository_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:

        def next_tick(cursor: str | None) -> str | None:
            with dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository) as context:
                return sensor.evaluate_tick(context).cursor

        cursor = next_tick(None)
        job = defs.resolve_job_def("parcels_daily")
        failed = job.execute_in_process(
            instance=instance, partition_key=str(FIRST), run_config=quiet, raise_on_error=False
        )
        assert not failed.success
        for _tick in range(2):
            cursor = next_tick(cursor)
    [row] = [one for one in world.ledger.effective("decisions", "parcels") if one["kind"] == "failed_run"]
    assert row["evidence"]["run_id"] == failed.run_id
    assert done(world) == {row["decision_id"]: "failed-run sensor"}
    [got] = hook.received
    assert got["title"].startswith("parcels, ") and "parcels_daily" in got["title"]


def test_an_owner_of_two_services_gets_one_page_a_week_about_both(tmp_path: Path, hook: WebHook) -> None:
    weekly = IncidentPolicy(digest="weekly")
    parcels, letters = untrained(incidents=weekly), untrained(name="letters", incidents=weekly)
    world = replace(a_world(tmp_path / "home", parcels), beside=(letters,))
    other = replace(a_world(tmp_path / "home", letters), beside=(parcels,))
    deliver_all(world.home.landing, span(0, 2))
    close(other, span(0, 1), acts=False)
    close(world, span(0, 2), acts=False)
    now = after_end_of(0, 1)
    [row] = [row for row in pending_decisions(world) if row["kind"] == "digest"]
    assert f"waits for letters to close {LAST}" in carry_out(at(world, now), row, by="digest sensor")
    assert hook.received == []
    close(other, span(2, 2), acts=False)
    for one in (world, other, world):
        for row in [row for row in pending_decisions(one) if row["kind"] == "digest"]:
            carry_out(at(one, now), row, by="digest sensor")
    [got] = hook.received
    assert got["message"].startswith("To: Mia <mia@example.com>")
    for name in ("parcels", "letters"):
        assert f"{name}, {LAST}: week to {LAST}: 0 open incidents, nothing to do" in got["message"]
    assert not [row for one in (world, other) for row in pending_decisions(one) if row["kind"] == "digest"]


def test_the_page_does_not_wait_for_a_service_that_stands_still(tmp_path: Path, hook: WebHook) -> None:
    weekly = IncidentPolicy(digest="weekly")
    parcels, letters = untrained(incidents=weekly), untrained(name="letters", incidents=weekly)
    world = replace(a_world(tmp_path / "home", parcels), beside=(letters,))
    deliver_all(world.home.landing, span(0, 2))
    close(a_world(tmp_path / "home", letters), span(0, 1), acts=False)
    close(world, span(0, 2), acts=False)
    [row] = [row for row in pending_decisions(world) if row["kind"] == "digest"]
    carry_out(at(world, after_end_of(0, 6.1)), row, by="digest sensor")
    assert f"letters, {LAST}: not closed through {LAST} yet" in hook.received[0]["message"]


def test_a_service_of_another_year_is_not_waited_for(tmp_path: Path) -> None:
    weekly = IncidentPolicy(digest="weekly")
    over = untrained(name="letters", incidents=weekly, last_day=LAST - timedelta(days=1))
    young = untrained(name="cards", incidents=weekly, first_day=LAST + timedelta(days=1))
    world = replace(a_world(tmp_path / "home", untrained(incidents=weekly)), beside=(over, young))
    assert others_of_owner(world, LAST) == []
    assert [one.name for one in others_of_owner(world, LAST - timedelta(days=1))] == ["letters"]


def test_a_rollback_whose_run_was_killed_is_finished_by_its_sensor_once(tmp_path: Path) -> None:
    """The decision stands, the role change does not: the next tick makes it, and MLflow's alias follows."""
    model = a_service().model.model_copy(update={"first_training": FIRST + timedelta(days=9)})
    world = a_world(tmp_path / "home", a_service(model=model))
    deliver_all(world.home.landing, span(0, 11))
    close(world, span(0, 10))
    roles = {row["role"]: row["model_version"] for row in world.releases()}
    day = world.closed_through()
    assert day is not None
    evidence = {"day": str(day), "from": roles["champion"], "to": roles["fallback"]}
    row = decision_row(world.name, day, 1, Decision(Kind.ROLLBACK, "champion", "a breach", evidence))
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "decisions", [row])
    now = at(world, CALENDAR.end_of(day) + HOUR)
    for _twice in range(2):
        tick(now, "rollback")
    assert done(world) == {row["decision_id"]: "rollback sensor"}
    assert world.holders(CALENDAR.end_of(day) + 2 * HOUR)["champion"]["model_version"] == roles["fallback"]
    assert world.registry.aliases()["champion"] == roles["fallback"]


def test_a_sensor_that_somebody_muted_in_dagster_is_a_gap_until_it_has_a_reason(tmp_path: Path) -> None:
    world = a_world(tmp_path / "home", untrained())
    prepare_dagster_home(world.home)
    here = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "services")
    with open_instance(world.home) as instance:
        for name, status in (("alert", InstigatorStatus.STOPPED), ("digest", InstigatorStatus.RUNNING)):
            origin = RemoteInstigatorOrigin(here, f"parcels_{name}_sensor")
            instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, status, None))
    assert stopped(world) == ["parcels_alert_sensor"]
    assert "parcels_alert_sensor, which is off," in [gap.thing for gap in uncovered(world)]
