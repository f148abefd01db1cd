"""A person backfills closed days from the page: the same rows, no decision, no page, and one run for all days."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from toy_world import a_service, a_world, deliver_all, ledger_state, span

from mlops_assets.adapters.dagster_home import instance
from mlops_assets.adapters.engine import columns_of, open_engine, quote, rows
from mlops_assets.adapters.processes import Program, running, wait_until_all_answer
from mlops_assets.build import Watcher, build_definitions, replay_run
from mlops_assets.closing.features import feature_columns
from mlops_assets.closing.world import World
from mlops_assets.pages import environment
from mlops_assets.tables import BY_NAME

TESTS = Path(__file__).parents[1]
DAYS = span(0, 8)
BACKFILLED = [str(day) for day in span(2, 6)]
MODULE = """
from toy_world import a_service
service = a_service(schedule_cron="0 0 1 1 *")
"""
LAUNCH = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
POLL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } runs(limit: 9) { runId status } } } }"""


def ask(address: str, query: str, **variables: Any) -> Any:
    """One question to Dagster's page, as the browser asks it."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.loads(response.read())
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


@contextmanager
def dagster_page(world: World, folder: Path, port: int) -> Iterator[str]:
    """``dagster dev`` over one home: page, daemon and code server."""
    (folder / "parcel_service.py").write_text(MODULE)
    address = f"http://127.0.0.1:{port}"
    command = (
        *(sys.executable, "-m", "dagster", "dev", "-m", "mlops_assets.definitions"),
        *("-h", "127.0.0.1", "-p", str(port)),
    )
    program = Program("Dagster", command, f"{address}/server_info", folder / "dagster.log")
    given = {
        **environment(world.home, os.environ),
        "MLOPS_SERVICES": "parcel_service:service",
        "PYTHONPATH": os.pathsep.join([str(folder), str(TESTS)]),
    }
    with running([program], given) as started:
        assert wait_until_all_answer(started, seconds=180, is_stopped=lambda: False)
        yield address


def newest(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """The content of every table as it lies there now, whatever the last closing names."""
    found = {}
    with open_engine() as con:
        for name in world.lake.tables():
            table = BY_NAME[name]
            columns = feature_columns([world.service.feature_set]) if table.is_open else table.columns
            world.lake.view(con, name, columns, is_open=table.is_open)
            named = ", ".join(quote(c) for c in sorted(columns_of(con, name)) if c not in table.observed)
            found[name] = rows(con, f"select {named} from {quote(name)} order by all")
    return found


def wait_for_end(address: str, backfill: str, seconds: float = 240) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = ask(address, POLL, id=backfill)["partitionBackfillOrError"]
        if found["status"].startswith("COMPLETED") or found["status"] in ("FAILED", "CANCELED"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(1)


@pytest.mark.slow
def test_a_run_that_selects_a_part_of_the_day_loop_is_refused_and_one_of_features_closes_nothing(
    tmp_path: Path,
) -> None:
    """A person picks assets on the page: a day is closed as a whole, or not at all."""
    world = a_world(tmp_path / "home", a_service())
    deliver_all(world.home.landing, DAYS[:2])
    job = build_definitions([world.service], world.home).resolve_job_def("parcels_daily")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    selected = [dg.AssetKey(["parcels", name]) for name in ("features", "predictions", "verdict")]
    with dg.DagsterInstance.ephemeral() as history:

        def run_of(keys: list[dg.AssetKey]) -> dg.ExecuteInProcessResult:
            return job.execute_in_process(
                instance=history, asset_selection=keys, partition_key=str(DAYS[0]), run_config=quiet,
                raise_on_error=False,
            )  # fmt: skip

        [failed] = [event for event in run_of(selected).all_events if event.is_step_failure]
        assert run_of(selected[:1]).success
    error = failed.step_failure_data.error
    assert error is not None
    assert (
        "A day is closed as a whole; not selected: labels, outcomes, quality, operations, drift, loop_sync. "
        "Select all of predictions, labels, outcomes, quality, operations, drift, loop_sync, verdict, or none of them."
    ) in error.to_string()
    assert not world.ledger.closings("parcels")


@pytest.mark.slow
def test_a_backfill_of_closed_days_changes_no_row_and_decides_nothing(tmp_path: Path, free_port: int) -> None:
    world = a_world(tmp_path / "home", a_service(schedule_cron="0 0 1 1 *"))
    deliver_all(world.home.landing, DAYS)
    with instance(world.home) as history:
        replay_run(world, build_definitions([world.service], world.home), history, DAYS, Watcher())
    before, ledger = newest(world), (ledger_state(world), world.ledger.effective("actions", world.name))
    assert ledger[0]["decisions"], "the story needs days that decided something"

    keys = [
        "features",
        "profiles",
        "predictions",
        "labels",
        "outcomes",
        "quality",
        "operations",
        "drift",
        "loop_sync",
        "verdict",
    ]
    selection = [{"path": ["parcels", name]} for name in keys]
    with dagster_page(world, tmp_path, free_port) as address:
        asked = {"assetSelection": selection, "partitionNames": BACKFILLED, "title": "again"}
        launched = ask(address, LAUNCH, p=asked)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        done = wait_for_end(address, launched["backfillId"])

    assert done["status"] == "COMPLETED_SUCCESS", done
    assert [run["status"] for run in done["runs"]] == ["SUCCESS"]
    after = newest(world)
    for name in before:
        assert after[name] == before[name], name
    assert (ledger_state(world), world.ledger.effective("actions", world.name)) == ledger
    assert world.ledger.rows("divergences", world.name) == []
