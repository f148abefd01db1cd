"""The real daemon, real processes: it closes the day, launches the training, and delivers the alert."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from daemon_service import LAST, parcels
from receivers import WebHook, running
from toy_world import FIRST, a_world, close, deliver_all, span

from mlops_assets.adapters.dagster_home import instance as open_instance
from mlops_assets.adapters.processes import free_port, members
from mlops_assets.closing.world import World
from mlops_assets.homestead import prepare_home
from mlops_assets.pages import environment

TESTS = Path(__file__).parent.parent
DEADLINE_SECONDS = 600
"""A minute or two on an idle machine; a busy one may take its time."""


@contextmanager
def daemon(world: World, urls: str) -> Iterator[None]:
    """``dagster dev -w workspace.yaml`` over a home, in a process group of its own; ended, whatever the test does."""
    port = free_port(38200, "127.0.0.1")
    workspace = TESTS.parent / "workspace.yaml"
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
    given = {**os.environ, "MLOPS_SERVICES": "daemon_service:parcels", "MLOPS_ALERT_URLS": urls}
    given["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    with (world.home.path / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=world.home.path, env=environment(world.home, given), stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=30)
            for left in members(process.pid):
                os.kill(left, signal.SIGKILL)


def wait_for(what: str, is_there: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_there():
        assert time.monotonic() < deadline, f"{what} never came:\n{log.read_text()[-3000:]}"
        time.sleep(1)


def launched_by(world: World, sensor: str) -> list[dg.DagsterRun]:
    """Runs that finished well and that a schedule or sensor asked for."""
    with open_instance(world.home) as instance:
        runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    return [
        run for run in runs if sensor in (run.tags.get("dagster/sensor_name"), run.tags.get("dagster/schedule_name"))
    ]


def told_of(hook: WebHook, decision_id: str) -> list[Any]:
    """What came about one decision; a message ends with its id."""
    return [message for message in hook.received if message["message"].endswith(decision_id)]


@pytest.mark.slow
def test_the_daemon_closes_the_day_trains_and_tells(tmp_path: Path) -> None:
    world = a_world(tmp_path / "home", parcels)
    deliver_all(world.home.landing, span(0, (LAST - FIRST).days), without=[("scans", LAST)])
    close(world, span(0, (LAST - FIRST).days - 1))
    for _line in prepare_home(world.home, [parcels]):
        pass
    assert world.closed_through() == LAST - timedelta(days=1) and not world.releases()

    incident = f"parcels-e1-{LAST}-open_incident-scans"
    with running(WebHook()) as hook, daemon(world, hook.url):
        log = world.home.path / "daemon.log"
        wait_for("the closing", lambda: world.closed_through() == LAST, log)
        wait_for("the alert", lambda: bool(told_of(hook, incident)), log)
        wait_for("the training", lambda: bool(launched_by(world, "parcels_retrain_sensor")), log)

    [closing] = launched_by(world, "parcels_daily_schedule")
    assert closing.tags["mlops/day"] == str(LAST)
    [training] = launched_by(world, "parcels_retrain_sensor")
    assert training.tags["mlops/decision"] == f"parcels-e1-{LAST}-retrain-retraining"

    [champion] = [row for row in world.releases() if row["role"] == "champion"]
    assert world.registry.aliases()["champion"] == champion["model_version"]

    [told] = told_of(hook, incident)  # the owner's weekly page comes on the same day
    assert "scans missing on 2024-03-17" in told["title"]
    done = {row["decision_id"]: row for row in world.ledger.effective("actions", "parcels") if row["state"] == "done"}
    assert done[incident]["detail"] == "delivered to 1 ticket addresses"
    assert (done[incident]["by"], done[training.tags["mlops/decision"]]["by"][:4]) == ("alert sensor", "run ")
